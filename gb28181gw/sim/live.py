"""A picture that is encoded while it is sent, with the wall clock in it: what a camera on the desk would show.

The encoder runs in a thread of its own at the frame rate, from `start` to `stop`, and keeps the last pictures. It
costs some 12 % of a core for each channel at 1280x720, so it is for demonstrations and not for load.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from fractions import Fraction

from av import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.content import (
    CLOCK_RATE,
    Access,
    ContentSpec,
    Sound,
    make_sound,
    open_encoder,
)
from gb28181gw.sim.picture import Painter

KEPT_S = 8
"""Pictures of so many seconds are kept for streams that lag."""


class LiveContent:
    """Content (see `content.Content`) that grows with time. Picture n belongs to ``start + n / fps``."""

    def __init__(self, spec: ContentSpec) -> None:
        self.video: Codec = spec.video
        self.audio: Codec | None = spec.audio
        self.fps = Fraction(spec.fps)
        self.width = spec.width
        self.height = spec.height
        self._spec = spec
        self._sound: Sound = make_sound(spec.audio, Fraction(10))
        self._pictures: dict[int, tuple[bytes, bool]] = {}
        self._newest = -1
        self._want_key = True
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sim-live", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the encoder; blocks until it has ended. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def newest(self) -> int:
        with self._lock:
            return self._newest

    def ready(self, number: int) -> bool:
        with self._lock:
            return number <= self._newest

    def want_key(self) -> None:
        with self._lock:
            self._want_key = True

    def access(self, number: int) -> Access:
        with self._lock:
            data, key = self._pictures.get(number) or self._pictures[self._newest]
        dts = self._dts(number)
        return Access(
            number=number,
            dts_90k=dts,
            pts_90k=dts,
            key=key,
            data=data,
            audio=tuple(self._sound.between(dts, self._dts(number + 1))),
        )

    def key_at_or_before(self, number: int) -> int:
        with self._lock:
            keys = [index for index, (_, key) in self._pictures.items() if key and index <= number]
        return max(keys, default=number)

    def _dts(self, number: int) -> int:
        return int(number * CLOCK_RATE / self.fps)

    def _run(self) -> None:
        spec = self._spec
        painter = Painter(spec.width, spec.height, spec.fps, spec.title)
        encoder = open_encoder(spec, low_delay=True)
        begin = time.monotonic()
        number = 0
        while not self._stopping.is_set():
            now = datetime.now().astimezone()
            clock = now.strftime("%Y-%m-%d %H:%M:%S.") + f"{now.microsecond // 10_000:02d}"
            picture = painter.paint(number, clock, f"LIVE  FRAME {number:06d}")
            picture.pts = number
            picture.time_base = Fraction(1, spec.fps)
            with self._lock:
                if self._want_key:
                    self._want_key = False
                    picture.pict_type = PictureType.I
            self._keep(encoder.encode(picture))
            number += 1
            pause = begin + number / spec.fps - time.monotonic()
            if pause > 0:
                self._stopping.wait(pause)
            elif pause < -1.0:
                # The host cannot keep up: go on from now rather than run after the clock.
                begin = time.monotonic() - number / spec.fps

    def _keep(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            data, key = bytes(packet), packet.is_keyframe
            with self._lock:
                self._newest += 1
                self._pictures[self._newest] = (data, key)
                self._pictures.pop(self._newest - KEPT_S * self._spec.fps, None)
