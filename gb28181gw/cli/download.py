"""`gb28181gw download`: a recording of a device into a file here, with a bar that shows how far it is."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, fail, settings_or_exit
from gb28181gw.cli.device import ANSWER_S, ChannelArgument, DeviceArgument, KeyOption, UrlOption
from gb28181gw.cli.running import NotRunningError, RunningGateway, running_gateway
from gb28181gw.errors import CODES, GatewayError

if TYPE_CHECKING:
    from gb28181gw.settings import Settings

LOOK_S: Final = 0.3
_MEGABYTE: Final = 1_000_000


def download(
    device_id: DeviceArgument,
    channel_id: ChannelArgument,
    start: Annotated[
        str,
        typer.Argument(
            help="ISO 8601; without an offset in the time zone of [sip] timezone.", show_default=False
        ),
    ],
    end: Annotated[str, typer.Argument(help="Likewise.", show_default=False)],
    speed: Annotated[float, typer.Option(help="Asked of the device.", min=0.25, max=32)] = 4.0,
    output: Annotated[
        Path | None,
        typer.Option(help="File or directory; by default a name of its own here.", show_default=False),
    ] = None,
    centre: Annotated[
        bool,
        typer.Option("--centre", help="What the device keeps as a centre, not the channel's own recordings."),
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the gateway's copy afterwards.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = "",
    key: KeyOption = "",
    config: ConfigOption = None,
) -> None:
    """Copy a recording through the running gateway into an MP4 file. Ctrl-C ends it at the device too."""
    settings = settings_or_exit(config)
    body = {
        "start": _moment(start, settings),
        "end": _moment(end, settings),
        "speed": speed,
        "location": "centre" if centre else "front_end",
    }
    try:
        gateway = running_gateway(settings, url=url, key=key, timeout_s=ANSWER_S)
        job = gateway.post(f"/api/v1/devices/{device_id}/channels/{channel_id}/download", body)
        done = _follow(gateway, job, quiet=as_json)
        if done["error"] is not None:
            error = done["error"]
            code = error["code"] if error["code"] in CODES else "gb.route.internal"
            raise GatewayError(code, error["detail"], sip_status=error.get("sip_status"))
        saved = _save(gateway, done, output)
        if remove:
            gateway.delete(f"/api/v1/downloads/{done['id']}")
    except NotRunningError as error:
        print(f"No gateway answers ({error}).", file=sys.stderr)
        print("Start it with 'gb28181gw serve', or give its --config or --url.", file=sys.stderr)
        raise typer.Exit(1) from None
    except GatewayError as error:
        fail(error)
    if as_json:
        print(json.dumps({**done, "saved": str(saved)}, ensure_ascii=False))
        return
    file = done["file"]
    print(f"{saved}: {file['frames']} pictures, {file['duration_s']:.1f} s, SHA-256 {file['sha256']}")
    for gap in done["gaps"]:
        print(f"Missing: {gap['seconds']:.1f} s at {gap['time']} ({gap['reason']}).", file=sys.stderr)
    for note in done["notes"]:
        print(note, file=sys.stderr)


def _moment(text: str, settings: Settings) -> str:
    """As the API wants it. Exits with status 2 for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        print(f"{text!r} is no time such as 2024-05-01T08:00:00+08:00.", file=sys.stderr)
        raise typer.Exit(2) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=settings.sip.zone)).isoformat()


def _follow(gateway: RunningGateway, job: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Until it is over; the bar goes by the time seen of the recording."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    path = f"/api/v1/downloads/{job['id']}"
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
            task = progress.add_task(_words(job), total=1.0)
            while True:
                seen: dict[str, Any] = gateway.get_json(path)
                progress.update(task, completed=float(seen["progress"]), description=_words(seen))
                if seen["state"] in ("complete", "failed"):
                    return seen
                time.sleep(LOOK_S)
    except KeyboardInterrupt:
        with suppress(NotRunningError, GatewayError):
            gateway.delete(path)
        print("Ended; nothing of it is kept.", file=sys.stderr)
        raise typer.Exit(130) from None


def _words(seen: dict[str, Any]) -> str:
    if seen["state"] == "queued":
        return f"waits, place {seen['queue_position']}"
    rate = f" at {seen['rate']:.1f}x" if seen["rate"] else ""
    return f"{seen['state']}, {seen['bytes'] / _MEGABYTE:.1f} MB{rate}"


def _save(gateway: RunningGateway, done: dict[str, Any], output: Path | None) -> Path:
    """Fetch the file and verify it. Raises gb.output.disk when what arrived is not what the manifest says."""
    path = Path(done["file"]["name"]) if output is None else output
    if path.is_dir():
        path /= done["file"]["name"]
    partial = path.with_name(f"{path.name}.part")
    try:
        total = gateway.save(done["file"]["url"], partial)
        if total != done["file"]["sha256"]:
            raise GatewayError("gb.output.disk", f"{partial} does not have the SHA-256 of the manifest.")
        partial.replace(path)
    except OSError as error:
        raise GatewayError("gb.output.disk", f"{path} cannot be written: {error}.") from error
    return path
