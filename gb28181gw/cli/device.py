"""`gb28181gw device`: move a channel, use its presets, send any command of the standard; by the running gateway."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, fail, print_table, settings_or_exit
from gb28181gw.cli.running import NotRunningError, RunningGateway, running_gateway
from gb28181gw.errors import GatewayError

ANSWER_S = 90.0
"""A catalogue of many parts takes so long."""

app = typer.Typer(help="Control a device through the running gateway.", no_args_is_help=True)

DeviceArgument = Annotated[str, typer.Argument(help="The device.", show_default=False)]
ChannelArgument = Annotated[str, typer.Argument(help="The channel.", show_default=False)]
UrlOption = Annotated[
    str, typer.Option("--url", help="Of the API; by default that of the configuration.", show_default=False)
]
KeyOption = Annotated[
    str, typer.Option("--key", help="Access key; by default that of data_dir.", show_default=False)
]


class PresetVerb(StrEnum):
    """What `device preset` does."""

    LIST = "list"
    GOTO = "goto"
    SET = "set"
    DELETE = "delete"


@app.command("ptz")
def ptz(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    pan: Annotated[float, typer.Option(help="From -1 (left) to 1 (right).", min=-1, max=1)] = 0.0,
    tilt: Annotated[float, typer.Option(help="From -1 (down) to 1 (up).", min=-1, max=1)] = 0.0,
    zoom: Annotated[float, typer.Option(help="From -1 (out) to 1 (in).", min=-1, max=1)] = 0.0,
    focus: Annotated[
        float | None, typer.Option(help="From -1 (near) to 1 (far).", min=-1, max=1, show_default=False)
    ] = None,
    iris: Annotated[
        float | None, typer.Option(help="From -1 (close) to 1 (open).", min=-1, max=1, show_default=False)
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--for", help="Stop after so many seconds; 0: leave it to the gateway.", min=0, max=9),
    ] = 0.0,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Move a channel; without any speed, stop it. The gateway stops it after 10 s in any case."""
    if focus is not None or iris is not None:
        if pan or tilt or zoom:
            print("--focus and --iris go without --pan, --tilt and --zoom.", file=sys.stderr)
            raise typer.Exit(2)
        body = {"focus": focus or 0.0, "iris": iris or 0.0}
    else:
        body = {"pan": pan, "tilt": tilt, "zoom": zoom}

    def run(gateway: RunningGateway) -> None:
        path = f"{channel_path(device_id, channel_id)}/ptz"
        gateway.post(path, body)
        if seconds and any(body.values()):
            time.sleep(seconds)
            gateway.post(path, dict.fromkeys(body, 0.0))
        if as_json:
            print(json.dumps({"device_id": device_id, "channel_id": channel_id, **body}))

    with_gateway(run, config, url, key)


@app.command("dialect")
def dialect(
    device_id: DeviceArgument,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Show how a device is spoken to and why, its tolerances, and what it does not know."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json(f"/api/v1/devices/{quote(device_id, safe='')}/dialect")
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        switches = [[name, one["value"], one["origin"]] for name, one in found["switches"].items()]
        print_table(["Switch", "Value", "From"], switches)
        if found["file"]:
            print(f"Dialect file: {found['file']}")
        if found["quirks"]:
            print()
            rows = [[name, one["row"], str(one["count"])] for name, one in found["quirks"].items()]
            print_table(["Tolerance", "Row", "Count"], rows)
        if found["unsupported"]:
            print()
            print_table(
                ["Does not know", "Shown by"], [[name, why] for name, why in found["unsupported"].items()]
            )

    with_gateway(run, config, url, key)


@app.command("preset")
def preset(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    verb: Annotated[PresetVerb, typer.Argument(help="What to do.")] = PresetVerb.LIST,
    number: Annotated[int, typer.Argument(help="The preset, 1 to 255.", show_default=False)] = 0,
    name: Annotated[
        str, typer.Option(help="With set; for devices of the 2022 edition.", show_default=False)
    ] = "",
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """List, call, set or delete the presets of a channel."""

    def run(gateway: RunningGateway) -> None:
        path = f"{channel_path(device_id, channel_id)}/presets"
        if verb is PresetVerb.LIST:
            found = gateway.get_json(path)
            if as_json:
                print(json.dumps(found, ensure_ascii=False))
            else:
                print_table(["Preset", "Name"], [[str(one["id"]), one["name"]] for one in found["items"]])
            return
        gateway.post(f"{path}/{number}", {"action": verb.value, "name": name})
        if as_json:
            print(json.dumps({"id": number, "action": verb.value}))

    with_gateway(run, config, url, key)


class TalkWayName(StrEnum):
    AUTO = "auto"
    BROADCAST = "broadcast"
    TALK = "talk"


@app.command("talk")
def talk(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    file: Annotated[
        Path, typer.Argument(help="WAV file: PCM, 16 bits, one or two channels.", exists=True, dir_okay=False)
    ],
    way: Annotated[TalkWayName, typer.Option(help="How the loudspeaker is reached.")] = TalkWayName.AUTO,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Speak a recording through a device's loudspeaker."""
    from gb28181gw.cli.talk import speak

    with_gateway(
        lambda gateway: speak(gateway, channel_path(device_id, channel_id), file, way.value, as_json=as_json),
        config,
        url,
        key,
    )


@app.command("subscriptions")
def subscriptions(
    device_id: DeviceArgument,
    renew: Annotated[
        bool, typer.Option("--renew", help="Try all of them now, also what the device refused.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Show what is subscribed at a device, and how it stands."""

    def run(gateway: RunningGateway) -> None:
        path = f"/api/v1/devices/{quote(device_id, safe='')}/subscriptions"
        found = gateway.post(path, {}) if renew else gateway.get_json(path)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        rows = [
            [
                one["kind"],
                one["target"],
                one["state"],
                _to_seconds(one["expires_at"]),
                str(one["notifies"]),
                _to_seconds(one["notified_at"]) or "never",
                one["detail"],
            ]
            for one in found["items"]
        ]
        print_table(["Kind", "Of", "State", "Until", "Notified", "Last", "Detail"], rows)

    with_gateway(run, config, url, key)


@app.command("snapshot")
def snapshot(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The JPEG file.", dir_okay=False)],
    max_age: Annotated[
        float, typer.Option(help="Seconds: a picture no older than this will do.", min=0)
    ] = 0.0,
    stale: Annotated[
        bool | None,
        typer.Option(
            "--stale/--no-stale",
            help="Whether the last picture will do when none can be taken; by default only of a device that is "
            "offline.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Take a picture of a channel from its stream, and write it to a file."""

    def run(gateway: RunningGateway) -> None:
        query = f"?max_age={max_age:g}" + ("" if stale is None else f"&stale={str(stale).lower()}")
        body, headers = gateway.picture(f"{channel_path(device_id, channel_id)}/snapshot{query}")
        out.write_bytes(body)
        told = {
            "file": str(out),
            "size": len(body),
            "time": headers["X-Picture-Time"],
            "stale": headers.get("X-Picture-Stale", ""),
        }
        if as_json:
            print(json.dumps(told))
        else:
            print(f"{out} of {told['time']}" + (f", not from now: {told['stale']}" if told["stale"] else ""))

    with_gateway(run, config, url, key)


@app.command("snapshots")
def snapshots(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    count: Annotated[int, typer.Option(help="How many pictures.", min=1, max=10)] = 1,
    interval: Annotated[int, typer.Option(help="Seconds from picture to picture.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Directory for the files.")] = Path(),
    wait: Annotated[float, typer.Option(help="Seconds to wait for the pictures.", min=0)] = 60.0,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Have a device of the 2022 edition take pictures and upload them here, and write them to files."""
    from gb28181gw.cli import snapshots as pictures

    def run(gateway: RunningGateway) -> None:
        path = channel_path(device_id, channel_id)
        found = pictures.order(gateway, path, count=count, interval_s=interval, wait_s=wait)
        files = pictures.fetch(gateway, found["id"], out) if found["received"] else []
        raise typer.Exit(pictures.tell(found, files, as_json=as_json))

    with_gateway(run, config, url, key)


@app.command("command")
def command(
    device_id: DeviceArgument,
    name: Annotated[
        str, typer.Argument(help="CmdType or control element, as in RecordCmd.", show_default=False)
    ],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            help="FIELD=VALUE by XML names, as in BasicParam.HeartBeatInterval=30; values may be JSON.",
            show_default=False,
        ),
    ] = None,
    channel: Annotated[
        str, typer.Option(help="The channel; without it the device itself.", show_default=False)
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Send it although the device seems not to know it.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Send a control, query or configuration of the standard and show the answer."""
    try:
        body = {"command": name, **body_of(fields or [])}
    except ValueError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    if channel:
        body["channel_id"] = channel
    if force:
        body["force"] = True

    def run(gateway: RunningGateway) -> None:
        found = gateway.post(f"/api/v1/devices/{quote(device_id, safe='')}/commands", body)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        if found["note"]:
            print(found["note"], file=sys.stderr)
        elif found["applied"]:
            print("Read back: the device has it so.", file=sys.stderr)
        if not found["answered"]:
            if not found["note"]:
                print("The device took it; the standard has no answer to it.", file=sys.stderr)
            return
        print_table(["Field", "Value"], flat({name: found[name] for name in found if name[:1].isupper()}))

    with_gateway(run, config, url, key)


def body_of(fields: list[str]) -> dict[str, Any]:
    """``A.B=1`` to ``{"A": {"B": 1}}``. Raises ValueError with a sentence."""
    body: dict[str, Any] = {}
    for text in fields:
        path, equals, value = text.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise ValueError(f"{text!r}: write FIELD=VALUE, as in RecordCmd=Record.")
        inner = body
        for step in names[:-1]:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{text!r}: {step} has a value already.")  # noqa: TRY004 - what a person typed
        inner[names[-1]] = _value(value)
    return body


def _value(text: str) -> Any:
    """JSON where it is a number, a list or an object; else text, as codes with leading zeros are."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float | list | dict) and not isinstance(found, bool) else text


def flat(values: dict[str, Any], where: str = "") -> list[list[str]]:
    """Rows of a table: the path of each value, and the value."""
    rows: list[list[str]] = []
    for name, value in values.items():
        here = f"{where}{name}"
        if isinstance(value, dict):
            rows += flat(value, f"{here}.")
        elif isinstance(value, list):
            for at, one in enumerate(value, 1):
                rows += (
                    flat(one, f"{here}[{at}].") if isinstance(one, dict) else [[f"{here}[{at}]", str(one)]]
                )
        else:
            rows.append([here, str(value)])
    return rows


def _to_seconds(moment: str | None) -> str:
    """Of a time of the API; in the gateway's time zone."""
    return (moment or "")[:19].replace("T", " ")


def channel_path(device_id: str, channel_id: str) -> str:
    """Of the API."""
    return f"/api/v1/devices/{quote(device_id, safe='')}/channels/{quote(channel_id, safe='')}"


def with_gateway(run: Callable[[RunningGateway], None], config: Any, url: str, key: str) -> None:
    """Call `run` with the gateway that runs, or say what is wrong and end with status 1."""
    settings = settings_or_exit(config)
    try:
        gateway = running_gateway(settings, url=url, key=key, timeout_s=ANSWER_S)
        run(gateway)
    except NotRunningError as error:
        print(f"No gateway answers ({error}).", file=sys.stderr)
        print("Start it with 'gb28181gw serve', or give its --config or --url.", file=sys.stderr)
        raise typer.Exit(1) from None
    except GatewayError as error:
        fail(error)
