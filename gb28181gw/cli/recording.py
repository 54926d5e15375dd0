"""`gb28181gw recording`: what the gateway records itself; by the running gateway."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, print_table
from gb28181gw.cli.device import (
    ChannelArgument,
    DeviceArgument,
    KeyOption,
    UrlOption,
    channel_path,
    with_gateway,
)
from gb28181gw.cli.running import RunningGateway

app = typer.Typer(help="What the gateway records itself.", no_args_is_help=True)

StartOption = Annotated[
    datetime,
    typer.Option("--start", help="As in 2026-11-22T08:00:00+08:00.", formats=["%Y-%m-%dT%H:%M:%S%z"]),
]
EndOption = Annotated[
    datetime, typer.Option("--end", help="As in 2026-11-22T09:00:00+08:00.", formats=["%Y-%m-%dT%H:%M:%S%z"])
]


class Mode(StrEnum):
    CONTINUOUS = "continuous"
    PLAN = "plan"
    EVENT = "event"


@app.command("list")
def list_recordings(
    as_json: JsonOption = False, url: UrlOption = "", key: KeyOption = "", config: ConfigOption = None
) -> None:
    """The plans of all channels, and how they stand."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json("/api/v1/recordings?size=500")
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        names = ("device_id", "channel_id", "mode", "state", "since", "detail")
        rows = [[str(one[name] or "") for name in names] for one in found["items"]]
        print_table(["Device", "Channel", "Mode", "State", "Since", "Detail"], rows)

    with_gateway(run, config, url, key)


@app.command("set")
def set_recording(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    mode: Annotated[Mode, typer.Option(help="Always, by the week's plan, or at alarms.")] = Mode.CONTINUOUS,
    week: Annotated[
        list[str] | None,
        typer.Option(
            help="Of mode plan, as in mon,tue,fri=08:00-18:30; may be repeated.", show_default=False
        ),
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option(help="Days; by default as configured.", min=1, show_default=False)
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Record a channel from now on."""
    body: dict[str, Any] = {
        "mode": mode.value,
        "keep_days": keep_days,
        "week": [_part(text) for text in week or []],
    }

    def run(gateway: RunningGateway) -> None:
        found = gateway.put(f"{channel_path(device_id, channel_id)}/recording", body)
        print(json.dumps(found) if as_json else f"{found['mode']}: {found['state']}")

    with_gateway(run, config, url, key)


@app.command("remove")
def remove_recording(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Record a channel no more; what was recorded stays for its time."""
    with_gateway(
        lambda gateway: gateway.delete(f"{channel_path(device_id, channel_id)}/recording"), config, url, key
    )


@app.command("spans")
def spans(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    start: StartOption,
    end: EndOption,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """What was recorded of a channel; what lies between two rows was not."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json(
            f"{channel_path(device_id, channel_id)}/recording/spans?{_time(start, end)}&size=500"
        )
        if as_json:
            print(json.dumps(found))
            return
        rows = [
            [
                one["start"],
                one["end"],
                f"{one['size'] / 1e6:.1f}",
                one["trigger"],
                "yes" if one["locked"] else "",
            ]
            for one in found["items"]
        ]
        print_table(["Start", "End", "MB", "Trigger", "Locked"], rows)

    with_gateway(run, config, url, key)


@app.command("files")
def files(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    start: StartOption,
    end: EndOption,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """The files of a channel, and whether they are here and in the object store."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json(
            f"{channel_path(device_id, channel_id)}/recording/files?{_time(start, end)}&size=500"
        )
        if as_json:
            print(json.dumps(found))
            return
        rows = [
            [
                one["start"],
                one["end"] or "",
                f"{one['size'] / 1e6:.1f}",
                "yes" if one["locked"] else "",
                one["file"] if one["local"] else "",
                one["object"],
            ]
            for one in found["items"]
        ]
        print_table(["Start", "End", "MB", "Locked", "File", "Object"], rows)

    with_gateway(run, config, url, key)


@app.command("fetch")
def fetch(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    start: StartOption,
    end: EndOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The MP4 file.", dir_okay=False)],
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Write what was recorded of a time into one MP4 file, and print its SHA-256."""

    def run(gateway: RunningGateway) -> None:
        total = gateway.save(f"{channel_path(device_id, channel_id)}/recording/file?{_time(start, end)}", out)
        print(f"{total}  {out}")

    with_gateway(run, config, url, key)


@app.command("lock")
def lock(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    start: StartOption,
    end: EndOption,
    unlock: Annotated[bool, typer.Option("--unlock", help="It is no evidence any more.")] = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Make what was recorded evidence, which is never deleted."""

    def run(gateway: RunningGateway) -> None:
        body = {"start": start.isoformat(), "end": end.isoformat(), "locked": not unlock}
        found = gateway.post(f"{channel_path(device_id, channel_id)}/recording/lock", body)
        print(f"{found['files']} files")

    with_gateway(run, config, url, key)


def _time(start: datetime, end: datetime) -> str:
    return urlencode({"start": start.isoformat(), "end": end.isoformat()})


def _part(text: str) -> dict[str, Any]:
    """``mon,tue=08:00-18:30``; the API checks the rest."""
    days, equals, times = text.partition("=")
    begin, _, end = times.partition("-")
    part: dict[str, Any] = {"days": days.split(",")}
    return {**part, "begin": begin, "end": end} if equals else part
