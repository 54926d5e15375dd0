"""The native codecs for differential tests, and material that makes both sides go through their rare branches.

The module is built (again, when its sources changed) by the first test that wants it; the same by hand::

    cmake -S native -B build/codecs -DGB28181_CODECS_MODULE=ON && cmake --build build/codecs
"""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.media.tracks import Codec, Frame, Track
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.units import EsUnit
from tests.support import media

_NAME = "_native_codecs"
_ROOT = Path(__file__).resolve().parents[2]
_BUILD = _ROOT / "build"


def _make() -> str:
    """Build the module; the reason when it cannot be done here. A build that fails is an error and no reason."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    cmake = shutil.which("cmake", path=path)
    if cmake is None or shutil.which("c++", path=path) is None:
        return "neither built nor buildable here: cmake or a C++ compiler is missing"
    if importlib.util.find_spec("nanobind") is None:
        return "neither built nor buildable here: nanobind is missing"
    _BUILD.mkdir(exist_ok=True)
    tree = str(_BUILD / "codecs")
    with (_BUILD / "codecs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # for tests that run side by side
        for command in (
            [
                cmake,
                "-S",
                "native",
                "-B",
                tree,
                "-DGB28181_CODECS_MODULE=ON",
                f"-DPython_EXECUTABLE={sys.executable}",
            ],
            [cmake, "--build", tree, "--parallel", "2", "--target", _NAME],
        ):
            done = subprocess.run(
                command, cwd=_ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return ""


def load() -> Any:
    """The module; the calling test module is skipped where it was not built and cannot be."""
    known = sys.modules.get(_NAME)
    if known is not None:
        return known
    reason = _make()
    found = sorted((_BUILD / "codecs-module").glob(f"{_NAME}*.so"))
    if not found:
        pytest.skip(f"{_NAME} is {reason}", allow_module_level=True)
    loader = importlib.machinery.ExtensionFileLoader(_NAME, str(found[0]))
    spec = importlib.util.spec_from_loader(_NAME, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[_NAME] = module
    return module


def track_facts(track: Track) -> tuple[object, ...]:
    """A track as the native module tells it."""
    return (
        str(track.kind),
        str(track.codec),
        track.width,
        track.height,
        track.fps,
        track.sample_rate,
        track.channels,
        track.parameter_sets,
    )


class Tracks:
    """Native twins of tracks; one object here is one object there, because both sides compare by identity."""

    def __init__(self, codecs: Any) -> None:
        self._codecs = codecs
        self._known: dict[int, tuple[Track, Any]] = {}

    def native(self, track: Track) -> Any:
        known = self._known.get(id(track))
        if known is None:
            twin = self._codecs.make_track(
                str(track.codec),
                track.width,
                track.height,
                float(track.fps),
                track.sample_rate,
                track.channels,
                list(track.parameter_sets),
            )
            known = self._known[id(track)] = (track, twin)
        return known[1]


class Pair:
    """A demuxer of either side, fed with the same; every call compares what comes out."""

    def __init__(self, oracle: Any, native: Any) -> None:
        self.oracle = oracle
        self.native = native
        self.units: list[EsUnit] = []
        self._last: tuple[object, Any] | None = None

    def feed(self, payload: bytes, timestamp: int | None, marker: bool, now: float) -> None:
        self._compare(
            self.oracle.feed(payload, timestamp, marker, now),
            self.native.feed(payload, timestamp, marker, now),
        )

    def gap(self) -> None:
        self.oracle.gap()
        self.native.gap()

    def pause(self, now: float) -> None:
        self._compare(self.oracle.flush_after(now), self.native.flush_after(now))

    def finish(self) -> None:
        self._compare(self.oracle.flush(), self.native.flush())
        self.compare_state()

    def compare_state(self) -> None:
        counters = self.oracle.counters
        assert self.native.counters == {name: getattr(counters, name) for name in counters.__slots__}
        assert self.native.quirks == self.oracle.quirks
        assert tuple(self.native.tracks) == tuple(track_facts(track) for track in self.oracle.tracks)
        assert self.native.tracks_version == self.oracle.tracks_version
        assert self.native.stream_types == getattr(self.oracle, "stream_types", {})

    def _compare(self, expected: Sequence[EsUnit], actual: Sequence[tuple[Any, ...]]) -> None:
        assert len(actual) == len(expected)
        for unit, (track, *rest) in zip(expected, actual, strict=True):
            assert rest == [
                unit.stream_id,
                unit.pts_90k,
                unit.dts_90k,
                unit.key,
                unit.payload,
                unit.damaged,
                unit.rtp_timestamp,
                unit.arrival,
            ]
            assert track.facts == track_facts(unit.track)
            if self._last is not None:
                assert track.is_same(self._last[1]) == (unit.track is self._last[0])
            self._last = (unit.track, track)
        self.units += expected
        assert self.native.deadline == self.oracle.deadline


# ------------------------------------------------------------- elementary streams made up of rare things

H264 = media.video_clip(Codec.H264, width=160, height=128, frames=20, gop=5)
H264_B = media.video_clip(Codec.H264, width=160, height=128, frames=20, gop=10, b_frames=2)
H264_SLICES = media.video_clip(Codec.H264, width=160, height=128, frames=20, gop=5, slices=3)
H265 = media.video_clip(Codec.H265, width=160, height=128, frames=20, gop=5)
PCMA = media.audio_clip(Codec.PCMA, packets=20)
AAC = media.audio_clip(Codec.AAC, packets=8)
CLIPS = (H264, H264_B, H264_SLICES, H265)

_SMALL_H264 = (
    (media.h264_sps(width=64, height=48), media.H264_PPS),
    (media.h264_sps(width=128, height=96), media.H264_PPS),
    (media.h264_sps(width=64, height=64, fields=True), media.H264_PPS),
    (media.h264_sps(width=64, height=48, sps_id=3), media.H264_PPS),
)
_ODD_H264 = (
    b"\x06\x05\x04abcd\x80",  # SEI
    b"\x09\xf0",  # delimiter
    b"\x0c\xff\xff",  # filler
    b"\x0a",  # end of sequence
    b"\x0b",  # end of stream
    b"\x1e\x01\x02\x03",  # private
    b"\x80\x01\x02",  # forbidden bit
    b"\x67",
    b"\x67\x42",
    b"\x00",
    b"",
)
_ODD_H265 = (
    b"\x46\x01\x50",
    b"\x4e\x01\x05abcd",
    b"\x50\x01zz",
    b"\x42\x01",
    b"\x02",
    b"\x02\x00\x80",
    b"\x60\x01aa",
    b"",
)


def _small_picture(rng: random.Random, number: int, key: bool, fields: bool) -> list[bytes]:
    """Slices with right headers and filler; several of a picture, or two fields."""
    frame_num = number % 16
    if fields:
        bottom = rng.random() < 0.5
        second = bottom if rng.random() < 0.1 else not bottom
        units = [media.h264_slice(idr=key, frame_num=frame_num, field=bottom, size=rng.randrange(1, 60))]
        if rng.random() < 0.9:
            units.append(media.h264_slice(frame_num=frame_num, field=second, size=rng.randrange(1, 60)))
        return units
    units = [media.h264_slice(idr=key, frame_num=frame_num, size=rng.randrange(1, 90))]
    for slice_number in range(rng.choice((0, 0, 0, 1, 2))):
        units.append(
            media.h264_slice(
                idr=key, first_mb=1 + slice_number, frame_num=frame_num, size=rng.randrange(1, 60)
            )
        )
    return units


def pictures(rng: random.Random, count: int) -> list[tuple[bool, list[bytes]]]:
    """`count` pictures as NAL units, with parameter sets that come, change and are missing."""
    kind = rng.randrange(4)
    if rng.random() < 0.04:  # MPEG-4: configurations and VOPs
        odd = (b"\xb0\x01", b"\xb6", b"\xb5\x09")
        return _with_oddities(
            rng,
            [(False, [b"\xb6" + bytes((rng.randrange(256),)) * rng.randrange(20)]) for _ in range(count)],
            odd,
        )
    if rng.random() < 0.04:  # never a parameter set (MED-35), perhaps nothing that reads at all (MED-39)
        unit = rng.choice((media.h264_slice(size=40), b"\xff" * 40, b"\x02\x01\xd0" + b"\xaa" * 40))
        return [(False, [unit])] * count
    if kind == 0:
        clip = rng.choice(CLIPS)
        start = rng.randrange(len(clip))
        out = []
        for number in range(count):
            frame = clip[(start + number) % len(clip)]
            out.append((frame.key, list(nal.split_annexb(frame.payload))))
        return _with_oddities(rng, out, _ODD_H265 if clip is H265 else _ODD_H264)
    if kind == 1:  # a change of the codec in mid-stream
        half = count // 2
        one, other = rng.sample(CLIPS, 2)
        frames = [one[n % len(one)] for n in range(half)] + [other[n % len(other)] for n in range(half)]
        return [(frame.key, list(nal.split_annexb(frame.payload))) for frame in frames]
    sets: tuple[bytes, ...] = rng.choice(_SMALL_H264)
    gop = rng.choice((1, 5, 12))
    out = []
    for number in range(count):
        if rng.random() < 0.02:
            sets = rng.choice(_SMALL_H264)
        if rng.random() < 0.002:  # more sets than are kept
            sets = (sets[0], *(b"\x68" + media.BitWriter().ue(n).ue(0).u(0, 20).rbsp() for n in range(80)))
        key = number % gop == 0
        units = _small_picture(rng, number, key, sets[0] is _SMALL_H264[2][0] and rng.random() < 0.8)
        if key and rng.random() < 0.9:
            units = [*sets, *units]
        if key and rng.random() < 0.1:
            units = [b"\x41" + media.BitWriter().ue(0).ue(7).u(0xAAAA, 16).rbsp() + b"\xaa" * 20]
            units = [*sets, *units]  # an open GOP
        out.append((key, units))
    return _with_oddities(rng, out, _ODD_H264)


def _with_oddities(
    rng: random.Random, stream: list[tuple[bool, list[bytes]]], odd: Sequence[bytes]
) -> list[tuple[bool, list[bytes]]]:
    share = rng.choice((0.0, 0.0, 0.05, 0.5))
    for _, units in stream:
        if rng.random() < share:
            units.insert(rng.randrange(len(units) + 1), rng.choice(odd))
    return stream


def annexb(rng: random.Random, units: Sequence[bytes], style: int) -> bytes:
    """Start codes of four bytes, of three, or as chance will have it, with zeros behind units."""
    out = bytearray()
    for unit in units:
        if style == 0:
            out += b"\x00\x00\x00\x01" + unit
        elif style == 1:
            out += b"\x00\x00\x01" + unit
        else:
            out += rng.choice((b"\x00\x00\x01", b"\x00\x00\x00\x01")) + unit
            out += bytes(rng.choice((0, 0, 0, 1, 3)))
    return bytes(out)


def times(rng: random.Random, count: int, step: int = 3600) -> list[tuple[int | None, int | None]]:
    """(pts, dts) of `count` pictures: plain, reordered, jumping, missing, stuck, as cameras have them."""
    mode = rng.randrange(9)
    value = rng.choice((0, 1000, (1 << 33) - 20 * step, rng.randrange(1 << 33)))
    out: list[tuple[int | None, int | None]] = []
    for number in range(count):
        if mode != 6:
            value += step
        if mode == 1 and rng.random() < 0.05:
            value += rng.choice((-1, 1)) * rng.randrange(20_000, 20_000_000)
        pts: int | None = value % (1 << 33)
        dts: int | None = None
        if mode == 2:
            dts = (value - rng.choice((0, step, 2 * step))) % (1 << 33)
        elif mode == 3:  # B pictures without DTS
            pts = (value + (0, 2, -1, -1)[number % 4] * step) % (1 << 33)
        elif (mode == 4 and rng.random() < 0.3) or mode == 5:
            pts = None
        elif mode == 8 and rng.random() < 0.5:  # DTS for some pictures only
            dts = (value - step) % (1 << 33)
        elif mode == 8:
            pts = (value - rng.choice((0, 0, 3 * step))) % (1 << 33)
        elif mode == 7:
            pts = (value + rng.randrange(-step // 3, step // 3)) % (1 << 33)
        out.append((pts, dts))
    return out


# ------------------------------------------------------------------------------------- program streams


def program_stream(rng: random.Random, count: int) -> bytes:
    """A program stream that no proper muxer writes, of `count` pictures."""
    stream = pictures(rng, count)
    stamps = times(rng, count)
    style = rng.randrange(3)
    layout = rng.randrange(5)
    types = rng.choice(
        (
            {},
            {0xE0: 0x1B},
            {0xE0: 0x24, 0xC0: 0x90},
            {0xE0: 0x1B, 0xC0: 0x0F},
            {0xE0: 0x1B, 0xC0: 0x1C},
            {0xE0: 0x80, 0xC0: 0x9B},
            {0xE0: 0x10},
            {0xE0: 0x1B, 0xC0: 0x55},
            {0xE0: 0x1B, 0xC0: 0x1B},
        )
    )
    audio = rng.choice((None, None, PCMA, AAC))
    sound = b""  # of frames that go over the ends of PES packets
    if rng.random() < 0.1:
        sound = b"".join(adts(AAC[n % len(AAC)].payload) for n in range(count))
    elif rng.random() < 0.05:
        sound = (
            b"\xff\xfc\x14\x00" + bytes(140)
        ) * count  # MPEG-1 layer II, 32 kbit/s, 48 kHz: 96 bytes and more
        sound = (b"\xff\xfc\x14\x00" + bytes(92)) * count if rng.random() < 0.8 else sound
    crc = rng.choice((b"\x00\x00\x00\x00", b""))
    out = bytearray()
    carry = b""
    for number, ((key, units), (pts, dts)) in enumerate(zip(stream, stamps, strict=False)):
        if rng.random() < 0.95:
            out += pack_start(rng, number)
        if (key and types and rng.random() < 0.9) or rng.random() < 0.02:
            if rng.random() < 0.05:
                types = {0xE0: rng.choice((0x1B, 0x24, 0x80, 0x10)), **types}
            out += b"\x00\x00\x01\xbb\x00\x0c" + b"\x80\x04\x04\x04\x21\x7f\xe0\xe0\xe8\xc0\xc0\x20"
            out += media.stream_map(
                types,
                info=rng.choice((b"", b"", b"abcd")),
                map_length=rng.choice((None, None, None, 0, 400)),
                crc=crc,
            )
        out += _video_pes(rng, layout, annexb(rng, units, style), units, pts, dts, carry)
        if layout == 3:  # the end of a picture comes with the next one
            body = annexb(rng, units, style)
            cut = rng.randrange(len(body) + 1)
            out += media.pes(carry + body[:cut], pts=pts, dts=dts)
            carry = body[cut:]
        if sound:
            size = rng.choice((50, 300, 1000, 2000))
            out += media.pes(sound[:size], stream_id=0xC0, pts=rng.choice((None, number * 3600)))
            sound = sound[size:]
        elif audio is not None and rng.random() < 0.7:
            sample = audio[number % len(audio)].payload
            if audio is AAC and types.get(0xC0) == 0x1C:
                sample = b"\x00\x10" + (len(sample) << 3).to_bytes(2, "big") + sample
            elif audio is AAC:
                sample = adts(sample)
            out += media.pes(sample, stream_id=0xC0, pts=rng.choice((None, number * 3600)))
        if rng.random() < 0.05:
            out += rng.choice(_STRANGE_PACKETS)
    return bytes(out)


_STRANGE_PACKETS = (
    b"\x00\x00\x01\xbd\x00\x08\x00\x00\x01\xe0\x00\x00\x80\x80",
    b"\x00\x00\x01\xbe\x00\x04\xff\xff\xff\xff",
    b"\x00\x00\x01\xbf\x00\x00",
    b"\x00\x00\x01\xb9",
    b"\x00\x00\x01\xe0\x00\x02\x80\x80",
    b"\x00\x00\x01\xe0\x00\x08\x80\x80\x05\x21\x00\x01\x00\x01",
    b"\x00\x00\x01\xe1\x00\x07\x80\x00\x00abcd",
    b"\x00\x00\x01\xe2\x00\x07\x80\x00\x00\x00\x00\x01\x67",
    b"\x00\x00\x01\xc1\x00\x07\x80\x00\x00abcd",
    b"\x00\x00\x01\x42\x00\x07",
    b"\x00\x00\x01\xe0\x00\x10\x0f\xff" + b"abcdefghijklmn",
    bytes(11),
    b"garbage between packets",
)


def pack_start(rng: random.Random, number: int) -> bytes:
    kind = rng.random()
    if kind < 0.9:
        return media.pack_header(number * 3600, bytes([0xFF]) * rng.choice((0, 0, 0, 3, 7)))
    if kind < 0.93:
        return b"\x00\x00\x01\xba"  # MED-10
    if kind < 0.96:
        return media.pack_header(number * 3600) + b"\x12" * rng.choice((1, 10, 80))  # MED-11
    if kind < 0.98:
        return b"\x00\x00\x01\xba\x21\x00\x01\x00\x01\x80\x00\x01"  # ISO 11172-1
    return b"\x00\x00\x01\xba\xff\xff\xff"


def _video_pes(
    rng: random.Random,
    layout: int,
    body: bytes,
    units: Sequence[bytes],
    pts: int | None,
    dts: int | None,
    carry: bytes,
) -> bytes:
    if layout == 3:
        return b""
    if layout == 1:  # a PES for each unit, times on the first
        out = b""
        for unit in units:
            out += media.pes(b"\x00\x00\x00\x01" + unit, pts=pts, dts=dts)
            if rng.random() < 0.8:
                pts = dts = None
        return out
    if layout == 2:  # length 0
        return media.pes(body, pts=pts, dts=dts, length=0)
    if layout == 4 and rng.random() < 0.1:
        return media.pes(body, pts=pts, dts=dts, header_length=rng.choice((0, 1, 4, 9, 200)))
    size = rng.choice((60000, 60000, 500, 50))
    pieces = [body[place : place + size] for place in range(0, len(body), size)] or [b""]
    first = media.pes(pieces[0], pts=pts, dts=dts)
    return first + b"".join(media.pes(piece) for piece in pieces[1:])


def adts(payload: bytes) -> bytes:
    size = len(payload) + 7
    return (
        bytes(
            (
                0xFF,
                0xF1,
                1 << 6 | 11 << 2,
                1 << 6 | size >> 11,
                size >> 3 & 0xFF,
                (size & 7) << 5 | 0x1F,
                0xFC,
            )
        )
        + payload
    )


def damage(rng: random.Random, data: bytes, places: int) -> bytes:
    """Patches, losses, repetitions at so many places."""
    out = bytearray(data)
    for _ in range(places):
        if not out:
            break
        at = rng.randrange(len(out))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            del out[at : at + rng.choice((1, 2, 50, 1400))]
        elif kind == 2:
            out[at:at] = rng.randbytes(rng.choice((1, 3, 40)))
        elif kind == 3:
            out[at:at] = rng.choice(SYNTAX)
        else:
            out[at:at] = out[max(0, at - 100) : at]
    return bytes(out)


def feed_pair(rng: random.Random, pair: Pair, data: bytes) -> None:
    """Cut `data` into payloads; markers, losses and pauses where chance wants them."""
    sizes = rng.choice(((1400,), (1400, 1400, 37), (1, 2, 3, 5), (7, 200, 3000), (60000,)))
    loss = rng.choice((0.0, 0.0, 0.01, 0.1))
    marks = rng.choice((0.0, 0.05, 1.0))
    pauses = rng.choice((0.0, 0.05, 0.3))
    position = 0
    now = 100.0
    timestamp = rng.randrange(1 << 32)
    while position < len(data):
        size = rng.choice(sizes)
        payload = data[position : position + size]
        position += size
        now += rng.choice((0.0, 0.0001, 0.04))
        marker = rng.random() < marks
        if rng.random() < loss:
            pair.gap()
            continue
        pair.feed(payload, rng.choice((timestamp, timestamp, None)), marker, now)
        if marker or rng.random() < 0.1:
            timestamp = (timestamp + 3600) % (1 << 32)
        if rng.random() < pauses:
            now += rng.choice((0.01, 0.05, 0.6))
            pair.pause(now)
    pair.compare_state()
    pair.finish()


# Bytes that mean something to the readers.
SYNTAX = (
    b"\x00\x00\x01\xba",
    b"\x00\x00\x01\xba\x44\x00\x04\x00\x04\x01\x00\x00\x03\xf8",
    b"\x00\x00\x01\xbb\x00\x06",
    b"\x00\x00\x01\xbc\x00\x0e\xe0\xff\x00\x00\x00\x04\x1b\xe0\x00\x00\x00\x00\x00\x00",
    b"\x00\x00\x01\xbc",
    b"\x00\x00\x01\xbd\x00\x08",
    b"\x00\x00\x01\xe0\x00\x00\x80\x80\x05\x21\x00\x01\x00\x01",
    b"\x00\x00\x01\xe0\x00\x20\x80\xc0\x0a",
    b"\x00\x00\x01\xc0\x00\x10\x80\x00\x00",
    b"\x00\x00\x01\xe0",
    b"\x00\x00\x01",
    b"\x00\x00\x00\x01\x67\x42\xc0\x0d\xda\x05\x07\xe8\x40",
    b"\x00\x00\x00\x01\x68\xce\x0f\xc8",
    b"\x00\x00\x00\x01\x65\x88",
    b"\x00\x00\x00\x01\x41\x9a",
    b"\x00\x00\x00\x01\x42\x01\x01",
    b"\x00\x00\x00\x01\x26\x01\xaf",
    b"\xff\xf1\x6c\x40\x02\x1f\xfc",
    b"\x00\x00",
    b"\xff\xff",
)


# ------------------------------------------------------------------------- elementary streams in RTP


def payloads_h264(rng: random.Random, units: Sequence[bytes], limit: int) -> list[bytes]:
    """RFC 6184: single units, STAP-A, FU-A."""
    out: list[bytes] = []
    small: list[bytes] = []
    for unit in units:
        if unit and len(unit) <= limit // 3 and rng.random() < 0.5:
            small.append(unit)
            continue
        if small:
            out.append(b"\x18" + b"".join(len(s).to_bytes(2, "big") + s for s in small))
            small = []
        if len(unit) <= limit:
            out.append(unit)
            continue
        head, body = unit[0], unit[1:]
        for place in range(0, len(body), limit):
            flags = (0x80 if place == 0 else 0) | (0x40 if place + limit >= len(body) else 0)
            out.append(bytes((head & 0xE0 | 28, flags | head & 0x1F)) + body[place : place + limit])
    if small:
        out.append(b"\x18" + b"".join(len(s).to_bytes(2, "big") + s for s in small))
    return out


def payloads_h265(rng: random.Random, units: Sequence[bytes], limit: int) -> list[bytes]:
    """RFC 7798: single units, AP, FU."""
    out: list[bytes] = []
    for unit in units:
        if len(unit) < 2 or len(unit) <= limit:
            if len(unit) >= 2 and rng.random() < 0.2:
                out.append(b"\x60\x01" + (len(unit).to_bytes(2, "big") + unit) * 2)
            else:
                out.append(unit)
            continue
        body = unit[2:]
        for place in range(0, len(body), limit):
            flags = (0x80 if place == 0 else 0) | (0x40 if place + limit >= len(body) else 0)
            head = bytes((unit[0] & 0x81 | 49 << 1, unit[1], flags | unit[0] >> 1 & 0x3F))
            out.append(head + body[place : place + limit])
    return out


Payloads = Callable[[random.Random, Sequence[bytes], int], list[bytes]]


def feed_elementary(rng: random.Random, pair: Pair, make: Payloads, count: int) -> None:
    """Pictures in RTP payloads, with losses, damage, false markers and pauses."""
    stream = pictures(rng, count)
    loss = rng.choice((0.0, 0.0, 0.02))
    broken = rng.choice((0.0, 0.0, 0.02))
    pauses = rng.choice((0.0, 0.1))
    markers = rng.choice((1.0, 0.9, 0.0))
    limit = rng.choice((40, 300, 1400))
    timestamp = rng.randrange(1 << 32)
    now = 50.0
    for _, units in stream:
        timestamp = (timestamp + rng.choice((3600, 3600, 3600, 0, 100000))) % (1 << 32)
        payloads = make(rng, units, limit)
        if rng.random() < broken:
            payloads.insert(0, annexb(rng, units, 2))
        for number, payload in enumerate(payloads):
            now += 0.001
            if rng.random() < loss:
                pair.gap()
                continue
            if rng.random() < broken:
                payload = damage(rng, payload, 1)
            marker = number == len(payloads) - 1 and rng.random() < markers
            marker = marker or rng.random() < broken
            pair.feed(payload, timestamp, marker, now)
        now += 0.03
        if rng.random() < pauses:
            now += rng.choice((0.02, 0.5))
            pair.pause(now)
    pair.compare_state()
    pair.finish()


def frame_of(track: Track, pts: int, dts: int, key: bool, payload: bytes) -> Frame:
    return Frame(track=track, pts_90k=pts, dts_90k=dts, key=key, payload=payload)
