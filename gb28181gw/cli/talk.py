"""`gb28181gw device talk`: a recording through a loudspeaker, with a bar that shows how far it is."""

from __future__ import annotations

import io
import json
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gb28181gw.cli.running import RunningGateway
from gb28181gw.errors import GatewayError

PIECE_BYTES: Final = 512 * 1024
"""Of PCM in one request; the API takes 1 MiB."""
AHEAD_S: Final = 60.0
"""Sound that is sent ahead of what was spoken."""
LOOK_S: Final = 0.2


def speak(gateway: RunningGateway, channel: str, file: Path, way: str, *, as_json: bool) -> None:
    """Start a talk, speak the file, end the talk. Raises GatewayError as the API told it."""
    pieces = list(_pieces(file))
    total_s = sum(seconds for _, seconds in pieces)
    started = gateway.post(f"{channel}/talk", {"way": way})
    path = f"/api/v1/talks/{started['id']}"
    try:
        shown = _spoken(gateway, path, pieces, total_s, quiet=as_json)
    finally:
        try:
            gateway.delete(path)
        except GatewayError as error:
            if error.code != "gb.route.talk_unknown":
                raise
    if as_json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        print(f"Spoke {shown['spoken_s']:.1f} s by {shown['way']} ({shown['codec']}).", file=sys.stderr)


def _spoken(
    gateway: RunningGateway, path: str, pieces: list[tuple[bytes, float]], total_s: float, *, quiet: bool
) -> Any:
    """Feed the pieces and wait until they were spoken; the talk as it was seen last."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("speaking"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} s"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("speaking", total=total_s)
        waiting = list(pieces)
        while True:
            seen = gateway.get_json(path)
            progress.update(task, completed=min(float(seen["spoken_s"]), total_s))
            if waiting and seen["queued_s"] < AHEAD_S:
                gateway.post_bytes(f"{path}/audio", waiting.pop(0)[0], "audio/wav")
            elif not waiting and not seen["queued_s"]:
                return seen
            else:
                time.sleep(LOOK_S)


def _pieces(file: Path) -> Iterator[tuple[bytes, float]]:
    """The file as WAV files of at most `PIECE_BYTES`, each with its seconds. Raises GatewayError gb.route.invalid."""
    try:
        with wave.open(str(file), "rb") as source:
            frames = max(PIECE_BYTES // max(source.getnchannels() * source.getsampwidth(), 1), 1)
            while data := source.readframes(frames):
                made = io.BytesIO()
                with wave.open(made, "wb") as target:
                    target.setparams(source.getparams())
                    target.writeframes(data)
                yield (
                    made.getvalue(),
                    len(data) / source.getnchannels() / source.getsampwidth() / source.getframerate(),
                )
    except (wave.Error, EOFError) as error:
        raise GatewayError(
            "gb.route.invalid",
            f"{file} is no WAV file ({error}); convert it with: ffmpeg -i IN -ar 8000 -ac 1 -c:a pcm_s16le OUT.wav.",
        ) from None
