"""Test material: real H.264, H.265, AAC and G.711, made with PyAV once and kept in a temporary directory.

`video_clip` and `audio_clip` give `media.tracks.Frame`s as the gateway's own units look; `ps_stream` puts
them into packs.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import os
import struct
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av

from gb28181gw.media.tracks import Codec, Frame, Track, TrackKind
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.ps_mux import PsMuxer

_VERSION = 3  # of the recipes below; a change makes new files
_ENCODERS = {Codec.H264: "libx264", Codec.H265: "libx265"}


def _directory() -> Path:
    path = Path(tempfile.gettempdir()) / f"gb28181gw-test-media-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def _cached(
    name: str, make: functools.partial[list[tuple[int, int, bool, bytes]]]
) -> list[tuple[int, int, bool, bytes]]:
    file = _directory() / f"{name}-{_VERSION}-{av.__version__}.json"
    if not file.exists():
        rows = [(pts, dts, key, base64.b64encode(data).decode()) for pts, dts, key, data in make()]
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(rows))
        draft.rename(file)  # whole or not at all, for tests that run side by side
    return [(pts, dts, key, base64.b64decode(data)) for pts, dts, key, data in json.loads(file.read_text())]


def _picture(width: int, height: int, number: int, noise: int) -> av.VideoFrame:
    """A moving gradient; `noise` adds detail, so that pictures grow."""
    frame = av.VideoFrame(width, height, "yuv420p")
    for index, plane in enumerate(frame.planes):
        stride = plane.line_size
        rows = plane.height
        if noise and index == 0:
            state = number * 7919 + 1
            pieces = []
            for _ in range(rows):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                pattern = state.to_bytes(4, "big") * 2
                line = bytes(128 + (byte - 128) * noise // 100 for byte in pattern)
                pieces.append((line * (stride // 8 + 1))[:stride])
            plane.update(b"".join(pieces))
            continue
        ramp = bytes(range(256)) * (stride // 256 + 3)
        shift = (number * 5 * (index + 1)) % 256
        plane.update(b"".join(ramp[shift + row % 64 : shift + row % 64 + stride] for row in range(rows)))
    return frame


def _encode_video(
    codec: Codec,
    width: int,
    height: int,
    fps: int,
    frames: int,
    gop: int,
    b_frames: int,
    noise: int,
    slices: int,
) -> list[tuple[int, int, bool, bytes]]:
    context = av.CodecContext.create(_ENCODERS[codec], "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = Fraction(1, fps)
    context.framerate = Fraction(fps, 1)
    if codec is Codec.H264:
        extra = f":slices={slices}" if slices > 1 else ""
        context.options = {
            "preset": "ultrafast",
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:threads=1{extra}",
        }
    else:
        context.options = {
            "preset": "ultrafast",
            "x265-params": (
                f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:repeat-headers=1:log-level=none:"
                f"pools=1:frame-threads=1:open-gop=0"
            ),
        }
    packets = []
    for number in range(frames):
        picture = _picture(width, height, number, noise)
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    step = 90000 // fps
    first = min(packet.dts for packet in packets)
    return [
        ((packet.pts - first) * step, (packet.dts - first) * step, packet.is_keyframe, bytes(packet))
        for packet in packets
    ]


@functools.cache
def video_clip(
    codec: Codec = Codec.H264,
    *,
    width: int = 320,
    height: int = 240,
    fps: int = 25,
    frames: int = 50,
    gop: int = 25,
    b_frames: int = 0,
    noise: int = 0,
    slices: int = 1,
) -> tuple[Frame, ...]:
    """A clip as frames; parameter sets before every key frame, four-byte start codes, times from 0."""
    name = f"{codec}-{width}x{height}-{fps}-{frames}-{gop}-{b_frames}-{noise}-{slices}"
    make = functools.partial(_encode_video, codec, width, height, fps, frames, gop, b_frames, noise, slices)
    rows = _cached(name, make)
    units = [nal.join_annexb(list(nal.split_annexb(data))) for _, _, _, data in rows]
    first = list(nal.split_annexb(units[0]))
    sets = tuple(unit for unit in first if nal.is_parameter_set(codec, nal.nal_type(codec, unit)))
    track = Track(
        kind=TrackKind.VIDEO, codec=codec, width=width, height=height, fps=float(fps), parameter_sets=sets
    )
    return tuple(
        Frame(track=track, pts_90k=pts, dts_90k=dts, key=key, payload=unit, arrival=dts / 90000)
        for (pts, dts, key, _), unit in zip(rows, units, strict=True)
    )


def _tone(samples: int, rate: int, start: int) -> bytes:
    return struct.pack(
        f"<{samples}h",
        *(int(8000 * math.sin(2 * math.pi * 440 * (start + i) / rate)) for i in range(samples)),
    )


def _encode_audio(codec: Codec, rate: int, packets: int) -> list[tuple[int, int, bool, bytes]]:
    encoder = {Codec.AAC: "aac", Codec.PCMA: "pcm_alaw", Codec.PCMU: "pcm_mulaw"}[codec]
    context = av.CodecContext.create(encoder, "w")
    sample_format = "fltp" if codec is Codec.AAC else "s16"
    context.sample_rate, context.format, context.layout = rate, sample_format, "mono"
    context.time_base = Fraction(1, rate)
    samples = 1024 if codec is Codec.AAC else rate // 25
    resampler = av.AudioResampler(sample_format, "mono", rate)
    rows: list[tuple[int, int, bool, bytes]] = []
    for number in range(packets):
        frame = av.AudioFrame("s16", "mono", samples)
        frame.sample_rate = rate
        frame.planes[0].update(_tone(samples, rate, number * samples))
        frame.pts = number * samples
        for converted in resampler.resample(frame):
            for packet in context.encode(converted):
                rows.append((0, 0, True, bytes(packet)))
    for packet in context.encode(None):
        rows.append((0, 0, True, bytes(packet)))
    if codec is Codec.AAC:
        rows.insert(0, (0, 0, True, bytes(context.extradata or b"")))
    return rows


@functools.cache
def audio_clip(codec: Codec = Codec.PCMA, *, rate: int = 8000, packets: int = 50) -> tuple[Frame, ...]:
    """A tone: G.711 in packets of 40 ms, AAC-LC as raw data blocks of 1,024 samples."""
    rows = _cached(f"{codec}-{rate}-{packets}", functools.partial(_encode_audio, codec, rate, packets))
    payloads = [data for _, _, _, data in rows]
    sets: tuple[bytes, ...] = ()
    samples = rate // 25
    if codec is Codec.AAC:
        sets, payloads, samples = (payloads[0][:2],), payloads[1:], 1024
    track = Track(kind=TrackKind.AUDIO, codec=codec, sample_rate=rate, channels=1, parameter_sets=sets)
    return tuple(
        Frame(
            track=track,
            pts_90k=number * samples * 90000 // rate,
            dts_90k=number * samples * 90000 // rate,
            key=True,
            payload=payload,
        )
        for number, payload in enumerate(payloads)
    )


def interleave(*clips: Iterable[Frame]) -> list[Frame]:
    """Frames of several clips in order of decoding."""
    return sorted((frame for clip in clips for frame in clip), key=lambda frame: frame.dts_90k)


def ps_stream(frames: Sequence[Frame], muxer: PsMuxer | None = None) -> list[bytes]:
    """One pack per frame."""
    video = next((frame.track.codec for frame in frames if frame.track.kind is TrackKind.VIDEO), None)
    audio = next((frame.track.codec for frame in frames if frame.track.kind is TrackKind.AUDIO), None)
    muxer = muxer or PsMuxer(video=video, audio=audio)
    return [muxer.mux(frame) for frame in frames]


# Program stream parts by hand, for what no proper muxer writes


def pack_header(scr: int = 0, stuffing: bytes = b"") -> bytes:
    """MPEG-2 pack header with the given stuffing (its length goes into the header, at most 7)."""
    base = PsMuxer(video=None).mux_payload(b"", scr, scr, key=False)[:14]
    return base[:13] + bytes((0xF8 | len(stuffing),)) + stuffing


def pes_times(pts: int, dts: int | None = None) -> bytes:
    """PTS, or PTS and DTS, as they stand in a PES header."""
    frame_start = PsMuxer(video=None).mux_payload(b"", pts, pts if dts is None else dts, key=False)
    return frame_start[14 + 9 : 14 + 9 + frame_start[14 + 8]]


def pes(
    payload: bytes,
    *,
    stream_id: int = 0xE0,
    pts: int | None = None,
    dts: int | None = None,
    length: int | None = None,
    header_length: int | None = None,
) -> bytes:
    """A PES packet; `length` and `header_length` replace what would be right."""
    times = b"" if pts is None else pes_times(pts, dts)
    flags = {0: 0x00, 5: 0x80, 10: 0xC0}[len(times)]
    size = 3 + len(times) + len(payload) if length is None else length
    header = len(times) if header_length is None else header_length
    return (
        b"\x00\x00\x01"
        + bytes((stream_id,))
        + size.to_bytes(2, "big")
        + bytes((0x80, flags, header))
        + times
        + payload
    )


def stream_map(
    types: dict[int, int],
    *,
    info: bytes = b"",
    descriptors: bytes = b"",
    map_length: int | None = None,
    descriptor_length: int | None = None,
    crc: bytes = b"\x00\x00\x00\x00",
) -> bytes:
    """A program stream map whose lengths may lie; the checksum is wrong unless given."""
    inner = len(descriptors) if descriptor_length is None else descriptor_length
    entries = b"".join(
        bytes((kind, stream_id)) + inner.to_bytes(2, "big") + descriptors for stream_id, kind in types.items()
    )
    length = len(entries) if map_length is None else map_length
    body = b"\xe0\xff" + len(info).to_bytes(2, "big") + info + length.to_bytes(2, "big") + entries + crc
    return b"\x00\x00\x01\xbc" + len(body).to_bytes(2, "big") + body


class BitWriter:
    """Writes an RBSP for parameter sets and slice headers that no encoder at hand makes."""

    def __init__(self) -> None:
        self._bits = ""

    def u(self, value: int, count: int) -> BitWriter:
        self._bits += format(value, f"0{count}b") if count else ""
        return self

    def ue(self, value: int) -> BitWriter:
        code = format(value + 1, "b")
        self._bits += "0" * (len(code) - 1) + code
        return self

    def rbsp(self) -> bytes:
        """With stop bit and emulation prevention."""
        bits = self._bits + "1"
        bits += "0" * (-len(bits) % 8)
        out = bytearray()
        for byte in int(bits, 2).to_bytes(len(bits) // 8, "big"):
            if byte <= 3 and out[-2:] == b"\x00\x00":
                out.append(3)
            out.append(byte)
        return bytes(out)


def h264_sps(*, width: int, height: int, fields: bool = False, sps_id: int = 0) -> bytes:
    """Main profile, frame_num of four bits, order type 2, no VUI; sides are multiples of 16 (32 with fields)."""
    bits = BitWriter().u(77, 8).u(0, 8).u(31, 8).ue(sps_id).ue(0).ue(2).ue(1).u(0, 1)
    bits.ue(width // 16 - 1).ue(height // (32 if fields else 16) - 1).u(not fields, 1)
    if fields:
        bits.u(0, 1)
    return b"\x67" + bits.u(1, 1).u(0, 1).u(0, 1).rbsp()


H264_PPS = (
    b"\x68" + BitWriter().ue(0).ue(0).u(0, 2).ue(0).ue(0).ue(0).u(0, 3).ue(0).ue(0).ue(0).u(0, 3).rbsp()
)


def h264_slice(
    *, idr: bool = False, first_mb: int = 0, frame_num: int = 0, field: bool | None = None, size: int = 60
) -> bytes:
    """A slice whose header is right and whose data is filler; `field`: None frame, False top, True bottom."""
    bits = BitWriter().ue(first_mb).ue(7 if idr else 5).ue(0).u(frame_num, 4)
    if field is not None:
        bits.u(1, 1).u(field, 1)
    return (b"\x65" if idr else b"\x41") + bits.rbsp() + b"\xaa" * size
