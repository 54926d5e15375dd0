"""Session descriptions of what the RTSP server plays (RFC 4566, RFC 2326 C; RFC 6184, 7798, 3640, 3551). Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire import nal

_STATIC = {Codec.PCMU: 0, Codec.PCMA: 8}
_VIDEO_TYPE = 96
_AAC_TYPE = 97


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """One `m=` section."""

    index: int
    """From 0, in the order of the description."""
    track: Track
    payload_type: int
    clock_rate: int


def media_of(tracks: Sequence[Track], *, audio: Sequence[Codec]) -> list[Medium]:
    """The tracks that can be played, picture first; of sound what is in `audio`, which is in order of preference."""
    chosen = [track for track in tracks if track.codec in (Codec.H264, Codec.H265)][:1]
    sounds = [track for codec in audio for track in tracks if track.codec is codec]
    chosen += sounds[:1]
    return [
        Medium(
            index=index,
            track=track,
            payload_type=_STATIC.get(track.codec, _VIDEO_TYPE if track.codec.is_video else _AAC_TYPE),
            clock_rate=90_000 if track.codec.is_video else track.sample_rate or 8000,
        )
        for index, track in enumerate(chosen)
    ]


def describe(media: Sequence[Medium], *, name: str, address: str, control: str, query: str) -> bytes:
    """`control`: the URL without its query; media are named ``/track0`` … behind it, with the query again."""
    family = "IP6" if ":" in address else "IP4"
    tail = f"?{query}" if query else ""
    lines = [
        "v=0",
        f"o=- 1 1 IN {family} {address}",
        f"s={name}",
        f"c=IN {family} {'::' if family == 'IP6' else '0.0.0.0'}",  # noqa: S104 - chosen by SETUP
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
    ]
    for medium in media:
        track = medium.track
        kind = "video" if track.kind is TrackKind.VIDEO else "audio"
        lines.append(f"m={kind} 0 RTP/AVP {medium.payload_type}")
        lines += _attributes(medium)
        lines.append(f"a=control:{control}/track{medium.index}{tail}")
    return ("\r\n".join(lines) + "\r\n").encode()


def _attributes(medium: Medium) -> list[str]:
    track, number = medium.track, medium.payload_type
    if track.codec in _STATIC:
        return [f"a=rtpmap:{number} {track.codec.value.upper()}/{medium.clock_rate}"]
    if track.codec is Codec.AAC:
        config = track.parameter_sets[0].hex() if track.parameter_sets else ""
        return [
            f"a=rtpmap:{number} MPEG4-GENERIC/{medium.clock_rate}/{track.channels or 1}",
            f"a=fmtp:{number} streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;"
            f"indexdeltalength=3;config={config}",
        ]
    by_type: dict[int, list[str]] = {}
    for unit in track.parameter_sets:
        by_type.setdefault(nal.nal_type(track.codec, unit), []).append(base64.b64encode(unit).decode())
    lines = [f"a=rtpmap:{number} {track.codec.value.upper()}/90000"]
    if track.codec is Codec.H264:
        sps = next((unit for unit in track.parameter_sets if unit[0] & 0x1F == nal.H264_SPS), b"")
        sets = [*by_type.get(nal.H264_SPS, ()), *by_type.get(nal.H264_PPS, ())]
        lines.append(
            f"a=fmtp:{number} packetization-mode=1;profile-level-id={sps[1:4].hex().upper()};"
            f"sprop-parameter-sets={','.join(sets)}"
        )
    else:
        names = ((nal.H265_VPS, "vps"), (nal.H265_SPS, "sps"), (nal.H265_PPS, "pps"))
        sets = [f"sprop-{name}={','.join(by_type[kind])}" for kind, name in names if kind in by_type]
        lines.append(f"a=fmtp:{number} {';'.join(sets)}")
    if track.fps:
        lines.append(f"a=framerate:{track.fps:g}")
    return lines
