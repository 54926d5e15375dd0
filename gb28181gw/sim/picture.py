"""Draws the moving test picture: a drifting colour field, bouncing balls, a clock and the channel's name.

The background comes from libavfilter (`gradients`, rendered small and scaled up, which keeps it cheap and smooth);
everything else is written into the planes as runs of bytes, so that no array library is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from av import VideoFrame
from av.filter import Graph

from gb28181gw.sim import font

_WHITE = 235
_DIM = bytes(16 + (value - 16) * 2 // 5 if value > 16 else value for value in range(256))
"""Luma of what lies behind a text panel."""
_FADE = bytes(128 + (value - 128) // 3 for value in range(256))
"""Chroma of what lies behind a text panel."""

# Balls: colour (U, V), base luma, size and speed in parts of the picture, phase.
_BALLS = (
    ((90, 200), 120, 0.110, (0.231, 0.173), 0.00),
    ((54, 128), 150, 0.075, (0.317, 0.271), 0.35),
    ((170, 90), 130, 0.060, (0.193, 0.389), 0.70),
)
# 75 % bars (BT.601): Y, U, V of white, yellow, cyan, green, magenta, red, blue.
_BARS = (
    (180, 128, 128),
    (162, 44, 142),
    (131, 156, 44),
    (112, 72, 58),
    (84, 184, 198),
    (65, 100, 212),
    (35, 212, 114),
)


def _bounce(position: float) -> float:
    """Fold a growing number into 0…1, there and back."""
    folded = position % 2.0
    return 2.0 - folded if folded > 1.0 else folded


@dataclass(slots=True)
class _Planes:
    """Three planes of one picture under work, with their line sizes."""

    y: bytearray
    u: bytearray
    v: bytearray
    y_stride: int
    c_stride: int


class Painter:
    """Makes the pictures of one channel, one after the other. Not thread-safe; make one where it is used."""

    def __init__(self, width: int, height: int, fps: int, title: str) -> None:
        self.width = width
        self.height = height
        self.fps = fps
        self.title = title
        self._scale = max(1, height // 180)
        self._graph = Graph()
        small_width, small_height = max(16, width // 4 // 2 * 2), max(16, height // 4 // 2 * 2)
        source = self._graph.add(
            "gradients",
            f"s={small_width}x{small_height}:r={fps}:speed=0.02:n=4:seed=28181:"
            f"x0=0:y0=0:x1={small_width}:y1={small_height}:"
            "c0=0x0b1f45:c1=0x145374:c2=0x2f8f83:c3=0x3b2667:type=linear",
        )
        scale = self._graph.add("scale", f"{width}:{height}:flags=bilinear")
        shape = self._graph.add("format", "pix_fmts=yuv420p")
        sink = self._graph.add("buffersink")
        source.link_to(scale)
        scale.link_to(shape)
        shape.link_to(sink)
        self._graph.configure()

    def paint(self, number: int, clock: str, footer: str = "") -> VideoFrame:
        """The next picture. `number` drives the shapes (frames since the start), `clock` is written top left."""
        background = self._graph.pull()
        if not isinstance(background, VideoFrame):
            raise TypeError("the background is not a picture")
        planes = _Planes(
            y=bytearray(background.planes[0]),
            u=bytearray(background.planes[1]),
            v=bytearray(background.planes[2]),
            y_stride=background.planes[0].line_size,
            c_stride=background.planes[1].line_size,
        )
        seconds = number / self.fps
        self._bars(planes)
        self._sweep(planes, seconds)
        for (u, v), luma, size, (speed_x, speed_y), phase in _BALLS:
            self._ball(planes, seconds, u, v, luma, size, speed_x, speed_y, phase)
        edge = 4 * self._scale
        self._text(planes, clock, edge, edge)
        self._text(planes, self.title, self.width - edge - font.text_width(self.title) * self._scale, edge)
        if footer:
            top = self.height - edge - (font.GLYPH_HEIGHT + 6) * self._scale - self.height // 24
            self._text(planes, footer, edge, top)
        picture = VideoFrame(self.width, self.height, "yuv420p")
        for index, (data, stride) in enumerate(
            ((planes.y, planes.y_stride), (planes.u, planes.c_stride), (planes.v, planes.c_stride))
        ):
            _store(picture, index, data, stride)
        return picture

    def _bars(self, planes: _Planes) -> None:
        """Colour bars along the lower edge."""
        top = self.height - self.height // 24 // 2 * 2
        for index, (y, u, v) in enumerate(_BARS):
            left = index * self.width // len(_BARS) // 2 * 2
            right = (index + 1) * self.width // len(_BARS) // 2 * 2
            if index == len(_BARS) - 1:
                right = self.width
            line = bytes((y,)) * (right - left)
            for row in range(top, self.height):
                start = row * planes.y_stride + left
                planes.y[start : start + len(line)] = line
            half_u, half_v = bytes((u,)) * ((right - left) // 2), bytes((v,)) * ((right - left) // 2)
            for row in range(top // 2, self.height // 2):
                start = row * planes.c_stride + left // 2
                planes.u[start : start + len(half_u)] = half_u
                planes.v[start : start + len(half_v)] = half_v

    def _sweep(self, planes: _Planes, seconds: float) -> None:
        """A bright line that crosses the picture every four seconds: smooth motion shows missing frames."""
        left = int((seconds / 4.0 % 1.0) * (self.width - 2))
        thick = bytes((200,)) * max(2, self._scale // 2)
        for row in range(self.height - self.height // 24):
            start = row * planes.y_stride + left
            planes.y[start : start + len(thick)] = thick[: self.width - left]

    def _ball(
        self,
        planes: _Planes,
        seconds: float,
        u: int,
        v: int,
        luma: int,
        size: float,
        speed_x: float,
        speed_y: float,
        phase: float,
    ) -> None:
        """A shaded disc that bounces between the edges."""
        radius = max(4, int(size * self.height))
        center_x = radius + int(_bounce(seconds * speed_x + phase) * (self.width - 2 * radius - 1))
        center_y = radius + int(_bounce(seconds * speed_y + phase) * (self.height - 2 * radius - 1))
        for offset in range(-radius, radius + 1):
            half = math.isqrt(radius * radius - offset * offset)
            left = max(0, center_x - half)
            right = min(self.width, center_x + half)
            # Light comes from above: brighter at the top, darker at the bottom, with a soft highlight.
            value = min(_WHITE, max(24, luma - 60 * offset // radius))
            start = (center_y + offset) * planes.y_stride + left
            planes.y[start : start + right - left] = bytes((value,)) * (right - left)
            if offset % 2 == 0:
                row = (center_y + offset) // 2
                first, last = left // 2, right // 2
                start = row * planes.c_stride + first
                planes.u[start : start + last - first] = bytes((u,)) * (last - first)
                planes.v[start : start + last - first] = bytes((v,)) * (last - first)

    def _text(self, planes: _Planes, text: str, left: int, top: int) -> None:
        """A line of text on a darkened panel."""
        scale = self._scale
        pad = 3 * scale
        box_left = max(0, left - pad) // 2 * 2
        box_right = min(self.width, left + font.text_width(text) * scale + pad) // 2 * 2
        box_top = max(0, top - pad) // 2 * 2
        box_bottom = min(self.height, top + font.GLYPH_HEIGHT * scale + pad) // 2 * 2
        for row in range(box_top, box_bottom):
            start, stop = row * planes.y_stride + box_left, row * planes.y_stride + box_right
            planes.y[start:stop] = planes.y[start:stop].translate(_DIM)
        for row in range(box_top // 2, box_bottom // 2):
            start, stop = row * planes.c_stride + box_left // 2, row * planes.c_stride + box_right // 2
            planes.u[start:stop] = planes.u[start:stop].translate(_FADE)
            planes.v[start:stop] = planes.v[start:stop].translate(_FADE)
        for row, column, length in font.runs_of(text):
            first = left + column * scale
            last = min(self.width, first + length * scale)
            if first < 0 or last <= first:
                continue
            line = bytes((_WHITE,)) * (last - first)
            for repeat in range(scale):
                y = top + row * scale + repeat
                if 0 <= y < self.height:
                    start = y * planes.y_stride + first
                    planes.y[start : start + len(line)] = line


def _store(picture: VideoFrame, index: int, data: bytearray, stride: int) -> None:
    """Copy a plane; the two pictures may pad their lines differently."""
    plane = picture.planes[index]
    if plane.line_size == stride and plane.buffer_size == len(data):
        plane.update(bytes(data))
        return
    rows = plane.height
    padded = bytearray(plane.buffer_size)
    for row in range(rows):
        line = data[row * stride : row * stride + plane.width]
        padded[row * plane.line_size : row * plane.line_size + len(line)] = line
    plane.update(bytes(padded))
