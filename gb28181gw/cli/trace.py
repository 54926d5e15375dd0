"""`gb28181gw trace`: the SIP ladder of a device, from the running gateway."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, fail, settings_or_exit
from gb28181gw.cli.running import NotRunningError, RunningGateway, running_gateway
from gb28181gw.errors import GatewayError

POLL_S = 1.0


def trace(
    device_id: Annotated[str, typer.Argument(help="The device.", show_default=False)],
    last: Annotated[int, typer.Option(help="So many of its last messages.", min=1, max=200)] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as messages come, until Ctrl-C.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Whole messages, without credentials.")] = False,
    pcap: Annotated[
        Path | None,
        typer.Option(help="Write a capture file for Wireshark in place of the ladder.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    url: Annotated[
        str, typer.Option(help="Of the API; by default that of the configuration.", show_default=False)
    ] = "",
    key: Annotated[
        str, typer.Option(help="Access key; by default that of data_dir.", show_default=False)
    ] = "",
    config: ConfigOption = None,
) -> None:
    """Show the SIP messages between a device and the running gateway."""
    settings = settings_or_exit(config)
    try:
        gateway = running_gateway(settings, url=url, key=key)
        path = f"/api/v1/devices/{quote(device_id, safe='')}/trace?limit={last}"
        if pcap is not None:
            _save(gateway.get(path + "&format=pcap"), pcap)
            return
        _print(gateway, path, follow=follow, full=full, as_json=as_json)
    except NotRunningError as error:
        print(f"No gateway answers at {gateway.url} ({error}).", file=sys.stderr)
        print("Start it with 'gb28181gw serve', or give its --config or --url.", file=sys.stderr)
        raise typer.Exit(1) from None
    except GatewayError as error:
        fail(error)
    except KeyboardInterrupt:
        return


def _save(capture: bytes, path: Path) -> None:
    try:
        path.write_bytes(capture)
    except OSError as error:
        print(f"{path} cannot be written: {error.strerror}.", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"{len(capture)} bytes written to {path}.", file=sys.stderr)


def _print(gateway: RunningGateway, path: str, *, follow: bool, full: bool, as_json: bool) -> None:
    after, first = 0, True
    while True:
        page = gateway.get_json(f"{path}&after={after}")
        for message in page["items"]:
            after = max(after, int(message["number"]))
            print(json.dumps(message, ensure_ascii=False) if as_json else rung(message, full=full))
        if first and not as_json and not page["items"]:
            print("No messages yet.", file=sys.stderr)
        if first and page["keepalives"] > 1 and not as_json:
            print(f"({page['keepalives']} keepalives in all; the last one is shown)", file=sys.stderr)
        first = False
        sys.stdout.flush()
        if not follow:
            return
        time.sleep(POLL_S)


def rung(message: dict[str, Any], *, full: bool = False) -> str:
    """One message of the ladder; the text was freed of control characters by the gateway."""
    arrow = "──▶" if message["direction"] == "in" else "◀──"
    clock = str(message["timestamp"])[11:23]
    head = (
        f"{clock}  {message['remote']:>21} {arrow} {message['local']:<21} {message['transport']:<3} "
        f"{message['first_line']}  [{message['cseq']}, {message['bytes']} bytes]"
    )
    if not full:
        return head
    body = "\n".join("    " + line for line in str(message["text"]).splitlines())
    return f"{head}\n{body}\n"
