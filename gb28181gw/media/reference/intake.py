"""Which reader takes a payload apart: by what the bytes are, not by what was agreed (MED-18, MED-19).

One program stream reader serves all payload types that carry PS; elementary streams have a reader for each
payload type. What cannot be read is dropped, counted and named; it never raises.
"""

from __future__ import annotations

from collections.abc import Mapping

from gb28181gw.media.reference.source import Looks
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.es_depacketiser import (
    Demuxer,
    H264Depacketiser,
    H265Depacketiser,
    make_demuxer,
)
from gb28181gw.media.wire.exceptions import UnsupportedPayloadError
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.rtp import RtpPacket
from gb28181gw.media.wire.stream_types import CODECS
from gb28181gw.media.wire.units import EsUnit

_MAX_READERS = 8
_PROBED_PACKETS = 500
"""Packets among which the parameter sets of an elementary stream under a PS payload type are looked for."""
_MAP_WAIT_S = 5.0
"""A program stream without a map is expected to have video for so long."""
_AUDIO_CLOCKS = {"PCMA": 8000, "PCMU": 8000, "G723": 8000, "G729": 8000, "G722": 8000, "SVACA": 8000}


def clock_rate(encoding: str) -> int:
    """Of the RTP timestamp, for jitter."""
    return _AUDIO_CLOCKS.get(encoding.upper(), 90_000)


class Intake:
    """Owner of the readers of one epoch of one receiver."""

    def __init__(self, payloads: Mapping[int, str], parameter_sets: tuple[bytes, ...] = ()) -> None:
        self._payloads = dict(payloads)
        self._sets = parameter_sets
        """Of the SDP (MED-35)."""
        self._readers: dict[int, Demuxer | None] = {}
        self._program: PsDemuxer | None = None
        self._probed = 0
        self._began_at: float | None = None
        self._now = 0.0
        self._dropped = 0
        self._told: set[str] = set()
        self._new: list[str] = []

    def agree(self, payloads: Mapping[int, str]) -> None:
        """The answer's payload types; readers that run stay."""
        self._payloads = dict(payloads)

    def preset(self, parameter_sets: tuple[bytes, ...]) -> None:
        """Of the SDP: used until the stream has its own (MED-35)."""
        self._sets = parameter_sets
        for reader in self._all():
            self._hand_over(reader)

    def looks(self, packet: RtpPacket) -> Looks:
        """What a payload of a source that is not accepted yet looks like."""
        payload = packet.payload
        if not payload:
            return Looks.NOTHING
        if nal.sniff_payload(payload) != "ES":
            return Looks.RECOGNISED
        encoding = self._payloads.get(packet.payload_type, "PS").upper()
        if encoding == "PS":
            return Looks.RECOGNISED if _probe(payload) is not None else Looks.PLAUSIBLE
        return Looks.RECOGNISED

    def is_program(self, packet: RtpPacket) -> bool:
        """A reader of program streams takes the packet; asked after one like it was pushed."""
        return self._program is not None and self._readers.get(packet.payload_type) is self._program

    @property
    def has_program(self) -> bool:
        """Some payload type carries a program stream, as far as is known."""
        return self._program is not None

    @property
    def video_codec(self) -> Codec | None:
        """Of the program stream, where it is known."""
        if self._program is None:
            return None
        return next((track.codec for track in self._program.tracks if track.codec.is_video), None)

    @property
    def audio_only(self) -> bool:
        """Audio was declared, and no video."""
        return self.audio_expected and not self.video_expected

    def push(self, packet: RtpPacket, now: float) -> list[EsUnit]:
        """A packet in order; returns the units that it completed."""
        self._now = now
        if self._began_at is None:
            self._began_at = now
        payload_type, payload = packet.payload_type, packet.payload
        known = payload_type in self._readers
        reader = self._readers[payload_type] if known else self._open(payload_type, payload)
        if reader is self._program and self._probed < _PROBED_PACKETS:
            reader = self._reconsider(payload_type, payload, reader)
        if reader is None:
            self._dropped += 1
            return []
        return reader.feed(payload, packet.timestamp, packet.marker, now)

    def gap(self) -> None:
        """Packets were lost before the next one."""
        for reader in self._all():
            reader.gap()

    def flush(self) -> list[EsUnit]:
        """The source has ended."""
        return [unit for reader in self._all() for unit in reader.flush()]

    @property
    def deadline(self) -> float | None:
        """When `flush_after` may give something out."""
        deadlines = [at for reader in self._all() if (at := reader.deadline) is not None]
        return min(deadlines) if deadlines else None

    def flush_after(self, now: float) -> list[EsUnit]:
        return [unit for reader in self._all() for unit in reader.flush_after(now)]

    def take_quirks(self) -> list[str]:
        """Names of tolerances that fired for the first time."""
        for reader in self._all():
            if len(reader.quirks) > 0:
                for name in reader.quirks:
                    self._tell(name)
        new, self._new = self._new, []
        return new

    @property
    def errors(self) -> int:
        return self._dropped + sum(reader.counters.errors for reader in self._all())

    @property
    def video_expected(self) -> bool:
        """Video was declared, or nothing was declared and it may still come."""
        program = self._program
        if program is None:
            return any(self._is_video(name) for name in self._payloads.values())
        types = program.stream_types
        if not types:
            return self._now - (self._began_at or 0.0) < _MAP_WAIT_S
        return any(0xE0 <= stream_id <= 0xEF for stream_id in types)

    @property
    def audio_expected(self) -> bool:
        """Audio was declared, whether or not it has come (MED-16)."""
        if self._program is None:
            return False
        types = self._program.stream_types.values()
        return any((codec := CODECS.get(kind)) is not None and not codec.is_video for kind in types)

    def _all(self) -> list[Demuxer]:
        readers: list[Demuxer] = [] if self._program is None else [self._program]
        readers += (r for r in self._readers.values() if r is not None and r is not self._program)
        return readers

    @staticmethod
    def _is_video(name: str) -> bool:
        return name.upper() in ("H264", "H265", "HEVC")

    def _open(self, payload_type: int, payload: bytes) -> Demuxer | None:
        """The reader of a payload type that was not seen before."""
        encoding = self._payloads.get(payload_type, "")
        if payload_type not in self._payloads:
            self._tell("rtp.payload_type")  # MED-19
        if len(self._readers) >= _MAX_READERS:
            return None
        if self._program is not None and encoding.upper() in ("", "PS"):
            self._readers[payload_type] = self._program
            return self._program
        try:
            reader: Demuxer | None = make_demuxer(encoding or "PS", payload_type, payload)
        except UnsupportedPayloadError:
            self._tell("rtp.mpeg_ts" if payload[:1] == b"\x47" else "rtp.unsupported_encoding")
            reader = None
        if isinstance(reader, PsDemuxer):
            if encoding.upper() not in ("", "PS"):
                self._tell("rtp.ps_under_es")
            if self._program is None:
                self._program = reader
            reader = self._program
        self._readers[payload_type] = reader
        if reader is not None:
            self._hand_over(reader)
        return reader

    def _reconsider(self, payload_type: int, payload: bytes, reader: Demuxer | None) -> Demuxer | None:
        """An elementary stream under the payload type of PS is found by its parameter sets (MED-18)."""
        self._probed += 1
        if self._program is None or self._program.stream_types or self._program.tracks:
            self._probed = _PROBED_PACKETS
            return reader
        if nal.sniff_payload(payload) == "PS":
            self._probed = _PROBED_PACKETS
            return reader
        codec = _probe(payload)
        if codec is None:
            return reader
        self._tell("rtp.es_under_ps")
        self._probed = _PROBED_PACKETS
        self._program = None
        found: Demuxer = (
            H264Depacketiser(payload_type) if codec is Codec.H264 else H265Depacketiser(payload_type)
        )
        self._readers = {payload_type: found}
        return found

    def _hand_over(self, reader: Demuxer) -> None:
        """What the SDP told of the video. The codec is what a readable SPS says (MED-01)."""
        infos = (nal.probe_sps(unit) for unit in self._sets)
        codec = next((info.codec for info in infos if info is not None), None)
        if codec is None:
            return
        if isinstance(reader, PsDemuxer):
            reader.preset(codec, self._sets)
        elif isinstance(reader, H264Depacketiser | H265Depacketiser) and reader.codec is codec:
            reader.preset(self._sets)

    def _tell(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self._new.append(name)


def _probe(payload: bytes) -> Codec | None:
    """The codec of a payload that is, or begins an aggregate with, a readable SPS or a VPS."""
    if len(payload) < 8:
        return None
    units = [payload]
    if payload[0] & 0x1F == 24:  # STAP-A (RFC 6184 5.7.1)
        units.append(payload[3 : 3 + int.from_bytes(payload[1:3], "big")])
    elif payload[0] >> 1 & 0x3F == 48:  # AP (RFC 7798 4.4.2)
        return Codec.H265 if payload[4] >> 1 & 0x3F == nal.H265_VPS else None
    elif payload[:3] == b"\x40\x01\x0c":  # a VPS as encoders write it
        return Codec.H265
    for unit in units:
        info = nal.probe_sps(unit) if unit else None
        if info is not None:
            return info.codec
    return None
