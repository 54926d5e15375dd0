"""`gb28181gw upper`: upper platforms and what is shared with them; by the running gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, fail, print_table, settings_or_exit
from gb28181gw.cli.device import KeyOption, UrlOption
from gb28181gw.cli.running import NotRunningError, RunningGateway, running_gateway
from gb28181gw.errors import GatewayError

ANSWER_S = 30.0
UPPERS = "/api/v1/uppers"
app = typer.Typer(help="Upper platforms that this gateway registers at.", no_args_is_help=True)

UpperArgument = Annotated[str, typer.Argument(help="The upper platform.", show_default=False)]


class Transport(StrEnum):
    """Of SIP."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class Form(StrEnum):
    """How shared channels are arranged."""

    AUTO = "auto"
    FLAT = "flat"
    DEVICES = "devices"
    REGIONS = "regions"
    GROUPS = "groups"


@app.command("list")
def list_uppers(
    as_json: JsonOption = False, url: UrlOption = "", key: KeyOption = "", config: ConfigOption = None
) -> None:
    """The upper platforms and whether we are registered there."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json(f"{UPPERS}?size=500")
        if as_json:
            _json(found)
            return
        print_table(
            ["Id", "Name", "Address", "Registered", "Channels", "Streams", "Last error"],
            [
                [
                    one["id"],
                    one["name"],
                    f"{one['host']}:{one['port']} {one['transport']}",
                    _state(one),
                    "all" if one["share_all"] else str(one["shared_channels"]),
                    str(one["streams"]),
                    one["last_error"],
                ]
                for one in found["items"]
            ],
        )

    _with_gateway(run, config, url, key)


@app.command("show")
def show(
    upper_id: UpperArgument,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Everything that is known of one upper platform, but never its password."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json(_path(upper_id))
        if as_json:
            _json(found)
        else:
            print_table(["Field", "Value"], [[name, _text(value)] for name, value in found.items()])

    _with_gateway(run, config, url, key)


@app.command("add")
def add(
    upper_id: UpperArgument,
    host: Annotated[str, typer.Option(help="Address or name to register at.", show_default=False)],
    domain: Annotated[str, typer.Option(help="Its SIP domain, mostly ten digits.", show_default=False)],
    port: Annotated[int, typer.Option(help="Its SIP port.", min=1, max=65535)] = 5060,
    transport: Annotated[Transport, typer.Option(help="Transport of SIP.")] = Transport.UDP,
    tls_ca: Annotated[
        str,
        typer.Option(
            help="File of the authorities (PEM) of its certificate; the system's by default.",
            show_default=False,
        ),
    ] = "",
    password: Annotated[
        str, typer.Option(help="For its challenge; - reads it from standard input.", show_default=False)
    ] = "",
    local_id: Annotated[
        str, typer.Option(help="Our code there; sip.id by default.", show_default=False)
    ] = "",
    username: Annotated[
        str, typer.Option(help="For its challenge; local_id by default.", show_default=False)
    ] = "",
    name: Annotated[str, typer.Option(help="A name for people.", show_default=False)] = "",
    edition: Annotated[str, typer.Option(help="1.0, 1.1, 2.0 or 3.0, or its year.")] = "3.0",
    charset: Annotated[
        str, typer.Option(help="GB2312, GB18030 or UTF-8; by edition.", show_default=False)
    ] = "",
    tree: Annotated[Form, typer.Option(help="How the shared channels are arranged.")] = Form.AUTO,
    share_all: Annotated[bool, typer.Option("--all", help="Share every channel with it.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Add an upper platform; the gateway registers there at once."""
    body: dict[str, Any] = {
        "id": upper_id,
        "host": host,
        "port": port,
        "domain": domain,
        "transport": transport.value,
        "password": sys.stdin.readline().strip() if password == "-" else password,  # noqa: S105 - a file name
        "edition": edition,
        "tree": tree.value,
    }
    given = {"local_id": local_id, "username": username, "name": name, "charset": charset}
    if tls_ca:
        given["tls_ca"] = str(Path(tls_ca).absolute())
    body.update({name: value for name, value in given.items() if value})

    def run(gateway: RunningGateway) -> None:
        if share_all:
            # Many ask for the catalogue the moment we are registered, and never again: it must be whole by then.
            gateway.post(UPPERS, {**body, "enabled": False})
            gateway.put(f"{_path(upper_id)}/channels", {"all": True})
            found = gateway.patch(_path(upper_id), {"enabled": True})
        else:
            found = gateway.post(UPPERS, body)
        if as_json:
            _json(found)
        else:
            print(f"Added {upper_id}; see 'gb28181gw upper list'.", file=sys.stderr)

    _with_gateway(run, config, url, key)


@app.command("remove")
def remove(
    upper_id: UpperArgument, url: UrlOption = "", key: KeyOption = "", config: ConfigOption = None
) -> None:
    """Unregister from an upper platform and forget it."""
    _with_gateway(lambda gateway: gateway.delete(_path(upper_id)), config, url, key)


@app.command("share")
def share(
    upper_id: UpperArgument,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Table (CSV) with device_id, channel_id and, where wanted, shared_id.", show_default=False
        ),
    ] = None,
    share_all: Annotated[
        bool, typer.Option("--all", help="Every channel, also those that come later.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would see and change nothing.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Replace what an upper platform sees by the rows of a table, or by everything."""
    if file is None and not share_all:
        print("Give a table, or --all.", file=sys.stderr)
        raise typer.Exit(2)
    try:
        table = file.read_bytes() if file is not None else b"device_id,channel_id\n"
    except OSError as error:
        print(f"{file}: {error.strerror}.", file=sys.stderr)
        raise typer.Exit(1) from None

    def run(gateway: RunningGateway) -> None:
        query = f"all={str(share_all).lower()}&dry_run={str(dry_run).lower()}"
        found = gateway.put(f"{_path(upper_id)}/channels.csv?{query}", table, "text/csv")
        if as_json:
            _json(found)
            return
        _shared_table(found)
        print(f"{found['total']} channels{' (nothing was changed)' if dry_run else ''}.", file=sys.stderr)

    _with_gateway(run, config, url, key)


@app.command("channels")
def channels(
    upper_id: UpperArgument,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the whole table as CSV, for 'upper share'.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """What an upper platform sees, and under which ids (the first 500)."""

    def run(gateway: RunningGateway) -> None:
        if as_csv:
            sys.stdout.write(gateway.get(f"{_path(upper_id)}/channels.csv").decode())
            return
        found = gateway.get_json(f"{_path(upper_id)}/channels?size=500")
        if as_json:
            _json(found)
        else:
            _shared_table(found)

    _with_gateway(run, config, url, key)


@app.command("catalog")
def catalog(
    upper_id: UpperArgument,
    tree: Annotated[Form | None, typer.Option(help="As if this form were set.", show_default=False)] = None,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Dry run: what an upper platform is told (the first 500 items), and what is wrong with it."""

    def run(gateway: RunningGateway) -> None:
        form = f"&tree={tree.value}" if tree is not None else ""
        found = gateway.get_json(f"{_path(upper_id)}/catalog?size=500{form}")
        if as_json:
            _json(found)
            return
        print_table(
            ["Id", "Name", "Parent", "Status", "Device", "Channel"],
            [
                [
                    one["id"],
                    one["name"],
                    one["parent_id"],
                    one["status"],
                    one["device_id"] or "",
                    one["channel_id"] or "",
                ]
                for one in found["items"]
            ],
        )
        if found["findings"]:
            print_table(["Id", "Finding"], [[one["id"], one["problem"]] for one in found["findings"]])

    _with_gateway(run, config, url, key)


def _state(one: dict[str, Any]) -> str:
    if not one["enabled"]:
        return "disabled"
    return f"since {one['registered_at']}" if one["registered"] else "no"


def _shared_table(found: dict[str, Any]) -> None:
    print_table(
        ["Device", "Channel", "Shared as", "Name", "Status"],
        [
            [
                one["device_id"],
                one["channel_id"],
                one["shared_id"],
                one["name"],
                one["status"] if one["present"] else "not there",
            ]
            for one in found["items"]
        ],
    )


def _path(upper_id: str) -> str:
    return f"{UPPERS}/{quote(upper_id, safe='')}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _json(found: Any) -> None:
    print(json.dumps(found, ensure_ascii=False))


def _with_gateway(run: Callable[[RunningGateway], None], config: Path | None, url: str, key: str) -> None:
    settings = settings_or_exit(config)
    try:
        run(running_gateway(settings, url=url, key=key, timeout_s=ANSWER_S))
    except NotRunningError as error:
        print(f"No gateway answers ({error}).", file=sys.stderr)
        print("Start it with 'gb28181gw serve', or give its --config or --url.", file=sys.stderr)
        raise typer.Exit(1) from None
    except GatewayError as error:
        fail(error)
