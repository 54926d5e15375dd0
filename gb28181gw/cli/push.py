"""`gb28181gw push`: channels that are pushed to URLs; by the running gateway."""

from __future__ import annotations

import json
from typing import Annotated

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

app = typer.Typer(help="Channels that are pushed to RTMP and RTSP URLs.", no_args_is_help=True)


@app.command("list")
def list_pushes(
    as_json: JsonOption = False, url: UrlOption = "", key: KeyOption = "", config: ConfigOption = None
) -> None:
    """All pushes, and how they stand."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.get_json("/api/v1/pushes?size=500")
        if as_json:
            print(json.dumps(found))
            return
        names = ("id", "device_id", "channel_id", "url", "state", "since", "last_error")
        rows = [[str(one[name] or "") for name in names] for one in found["items"]]
        print_table(["Id", "Device", "Channel", "URL", "State", "Since", "Last error"], rows)

    with_gateway(run, config, url, key)


@app.command("add")
def add_push(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    to: Annotated[str, typer.Argument(help="rtmp://, rtmps://, rtsp:// or rtsps://.", show_default=False)],
    audio: Annotated[bool, typer.Option(help="With sound.")] = True,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Push a channel to a URL until it is removed."""

    def run(gateway: RunningGateway) -> None:
        found = gateway.post(f"{channel_path(device_id, channel_id)}/push", {"url": to, "audio": audio})
        print(json.dumps(found) if as_json else f"{found['id']}  {found['url']}")

    with_gateway(run, config, url, key)


@app.command("remove")
def remove_push(
    push_id: Annotated[str, typer.Argument(help="As listed.", show_default=False)],
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """End a push for good."""
    with_gateway(lambda gateway: gateway.delete(f"/api/v1/pushes/{push_id}"), config, url, key)
