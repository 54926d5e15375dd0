"""Elementary streams in RTP: H.264 (RFC 6184), H.265 (RFC 7798), AAC (RFC 3640), G.711 and the like (RFC 3551).

The payload formats are taken apart into NAL units or samples and handed to the same assemblers as a program
stream's PES, so pictures end, codecs are found and damage is told in the same way. "Joined in the middle of a
fragment" and "more packets are needed" are ordinary outcomes, not errors.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod

from gb28181gw.media.tracks import Codec, Track
from gb28181gw.media.wire import aac, nal
from gb28181gw.media.wire.audio import AudioAssembler
from gb28181gw.media.wire.exceptions import UnsupportedPayloadError
from gb28181gw.media.wire.ps_demux import PsDemuxer
from gb28181gw.media.wire.stream_types import STREAM_TYPES
from gb28181gw.media.wire.units import PTS_MODULUS, DemuxCounters, EsUnit
from gb28181gw.media.wire.video import MAX_UNIT, VideoAssembler

_RTP_MODULUS = 1 << 32


class EsDepacketiser(ABC):
    """Packets of one payload format in, units out; the same calls as `PsDemuxer`."""

    def __init__(self, clock_rate: int) -> None:
        self.counters = DemuxCounters()
        self.quirks: dict[str, int] = {}
        self._clock_rate = clock_rate
        self._timestamp: int | None = None  # unwrapped

    @property
    @abstractmethod
    def tracks(self) -> tuple[Track, ...]: ...

    @property
    @abstractmethod
    def tracks_version(self) -> int: ...

    @abstractmethod
    def feed(
        self, payload: bytes, rtp_timestamp: int | None = None, marker: bool = False, now: float = 0.0
    ) -> list[EsUnit]:
        """Take the payload of one packet."""

    @abstractmethod
    def gap(self) -> None:
        """Packets were lost before the next one."""

    @property
    def deadline(self) -> float | None:
        return None

    def flush_after(self, now: float) -> list[EsUnit]:
        """See `PsDemuxer.flush_after`."""
        del now
        return []

    @abstractmethod
    def flush(self) -> list[EsUnit]:
        """The stream has ended."""

    def _pts(self, rtp_timestamp: int | None) -> int | None:
        """33-bit PTS on 90 kHz of a 32-bit timestamp of the payload's clock."""
        if rtp_timestamp is None:
            return None
        if self._timestamp is None:
            self._timestamp = rtp_timestamp
        else:
            half = _RTP_MODULUS >> 1
            self._timestamp += (rtp_timestamp - self._timestamp + half) % _RTP_MODULUS - half
        return self._timestamp * 90000 // self._clock_rate % PTS_MODULUS

    def _quirk(self, name: str) -> None:
        self.quirks[name] = self.quirks.get(name, 0) + 1


class _VideoDepacketiser(EsDepacketiser):
    """What H.264 and H.265 share: single units, aggregates and fragments."""

    codec: Codec

    def __init__(self, payload_type: int, *, max_unit: int = MAX_UNIT) -> None:
        super().__init__(90000)
        self._assembler = VideoAssembler(
            payload_type, self.counters, self._quirk, max_unit=max_unit, aligned=True
        )
        self._marked: int | None = None
        self._in_fragment = False

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (self._assembler.track,) if self._assembler.track is not None else ()

    @property
    def tracks_version(self) -> int:
        return self._assembler.version

    def preset(self, parameter_sets: tuple[bytes, ...]) -> None:
        """Parameter sets of the SDP (`sprop-parameter-sets`, `sprop-vps` …)."""
        self._assembler.preset(self.codec, parameter_sets)

    def feed(
        self, payload: bytes, rtp_timestamp: int | None = None, marker: bool = False, now: float = 0.0
    ) -> list[EsUnit]:
        if rtp_timestamp != self._marked:
            self._marked = rtp_timestamp
            pts = self._pts(rtp_timestamp)
            self._assembler.mark(pts, pts)
        if payload:
            self._take(payload, now, rtp_timestamp)
        if marker:
            self._assembler.marker(now, between=not self._in_fragment)
        return self._assembler.take()

    def gap(self) -> None:
        self.counters.gaps += 1
        self._in_fragment = False
        self._marked = None
        self._assembler.gap()

    @property
    def deadline(self) -> float | None:
        return None if self._in_fragment else self._assembler.deadline

    def flush_after(self, now: float) -> list[EsUnit]:
        deadline = self.deadline
        if deadline is None or now < deadline:
            return []
        self._assembler.flush()
        return self._assembler.take()

    def flush(self) -> list[EsUnit]:
        if not self._in_fragment:
            self._assembler.flush()
        return self._assembler.take()

    @abstractmethod
    def _take(self, payload: bytes, now: float, rtp_timestamp: int | None) -> None: ...

    def _unit(self, unit: bytes, now: float, rtp_timestamp: int | None) -> None:
        self._end_fragment()
        self._assembler.append(nal.START_CODE + unit, now, rtp_timestamp)

    def _end_fragment(self) -> None:
        """Another unit while a fragment is open: its end is missing."""
        if self._in_fragment:
            self.counters.malformed += 1
            self._in_fragment = False
            self._assembler.gap()

    def _aggregate(self, payload: bytes, position: int, now: float, rtp_timestamp: int | None) -> None:
        size = len(payload)
        while position + 2 <= size:
            (length,) = struct.unpack_from("!H", payload, position)
            position += 2
            if not length or position + length > size:
                self.counters.malformed += 1
                return
            self._unit(payload[position : position + length], now, rtp_timestamp)
            position += length

    def _fragment(
        self, header: bytes, flags: int, data: bytes, now: float, rtp_timestamp: int | None
    ) -> None:
        """FU of either format: `flags` has S in bit 7 and E in bit 6, `header` is the unit's own."""
        if flags & 0x80:
            self._end_fragment()
            self._in_fragment = True
            self._assembler.append(b"".join((nal.START_CODE, header, data)), now, rtp_timestamp)
        elif self._in_fragment:
            self._assembler.append(data, now, rtp_timestamp)
        else:
            self.counters.dropped_units += 1  # joined in the middle
            return
        if flags & 0x40:
            self._in_fragment = False


class H264Depacketiser(_VideoDepacketiser):
    """RFC 6184: single NAL unit, STAP-A, FU-A. STAP-B, MTAP and FU-B (interleaved mode) are counted and dropped."""

    codec = Codec.H264

    def _take(self, payload: bytes, now: float, rtp_timestamp: int | None) -> None:
        kind = payload[0] & 0x1F
        if 1 <= kind <= 23:
            if payload[:3] == b"\x00\x00\x01" or payload[:4] == nal.START_CODE:
                self._quirk("rtp.annexb_in_payload")
                self._end_fragment()
                self._assembler.append(payload, now, rtp_timestamp)
                return
            self._unit(payload, now, rtp_timestamp)
        elif kind == 24:
            self._aggregate(payload, 1, now, rtp_timestamp)
        elif kind == 28 and len(payload) > 2:
            header = bytes((payload[0] & 0xE0 | payload[1] & 0x1F,))
            self._fragment(header, payload[1], payload[2:], now, rtp_timestamp)
        elif payload[:4] == nal.START_CODE or payload[:3] == b"\x00\x00\x01":
            # A start code where the RFC wants a header byte: the stream as a file has it.
            self._quirk("rtp.annexb_in_payload")
            self._end_fragment()
            self._assembler.append(payload, now, rtp_timestamp)
        else:
            self.counters.malformed += 1


class H265Depacketiser(_VideoDepacketiser):
    """RFC 7798 without DONL: single NAL unit, AP (48), FU (49)."""

    codec = Codec.H265

    def _take(self, payload: bytes, now: float, rtp_timestamp: int | None) -> None:
        if len(payload) < 3:
            self.counters.malformed += 1
            return
        if payload[:3] in (b"\x00\x00\x01", b"\x00\x00\x00"):
            self._quirk("rtp.annexb_in_payload")
            self._end_fragment()
            self._assembler.append(payload, now, rtp_timestamp)
            return
        kind = payload[0] >> 1 & 0x3F
        if kind < 48:
            self._unit(payload, now, rtp_timestamp)
        elif kind == 48:
            self._aggregate(payload, 2, now, rtp_timestamp)
        elif kind == 49 and len(payload) > 3:
            header = bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1]))
            self._fragment(header, payload[2], payload[3:], now, rtp_timestamp)
        else:
            self.counters.malformed += 1


class AudioDepacketiser(EsDepacketiser):
    """G.711, G.722.1, G.723.1, G.729, SVAC audio: a payload is a packet of samples (RFC 3551)."""

    def __init__(self, payload_type: int, codec: Codec, clock_rate: int = 8000) -> None:
        super().__init__(clock_rate)
        self._assembler = AudioAssembler(payload_type, self.counters, self._quirk)
        self._assembler.declare(STREAM_TYPES[codec])

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (self._assembler.track,) if self._assembler.track is not None else ()

    @property
    def tracks_version(self) -> int:
        return self._assembler.version

    def feed(
        self, payload: bytes, rtp_timestamp: int | None = None, marker: bool = False, now: float = 0.0
    ) -> list[EsUnit]:
        del marker  # on audio it marks the start of a talkspurt (RFC 3551 4.1)
        self._assembler.start(self._pts(rtp_timestamp), rtp_timestamp)
        self._assembler.append(payload, now)
        self._assembler.finish()
        return self._assembler.take()

    def gap(self) -> None:
        self.counters.gaps += 1
        self._assembler.gap()

    def flush(self) -> list[EsUnit]:
        return []


class AacDepacketiser(EsDepacketiser):
    """RFC 3640 mode AAC-hbr (13 bits size, 3 bits index), with fragments; ADTS frames as they are also read."""

    def __init__(self, payload_type: int, *, config: bytes = aac.DEFAULT_CONFIG, clock_rate: int = 0) -> None:
        _, sample_rate, _ = aac.parse_audio_specific_config(config)
        super().__init__(clock_rate or sample_rate)
        self._assembler = AudioAssembler(payload_type, self.counters, self._quirk, aac_config=config)
        self._assembler.declare(STREAM_TYPES[Codec.AAC])
        self._fragment = b""
        self._fragment_size = 0

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (self._assembler.track,) if self._assembler.track is not None else ()

    @property
    def tracks_version(self) -> int:
        return self._assembler.version

    def feed(
        self, payload: bytes, rtp_timestamp: int | None = None, marker: bool = False, now: float = 0.0
    ) -> list[EsUnit]:
        del marker
        payload = self._join(payload)
        if payload:
            self._assembler.start(self._pts(rtp_timestamp), rtp_timestamp)
            self._assembler.append(payload, now)
            self._assembler.finish()
            self.quirks.pop("ps.aac_au_headers", None)  # here they are the rule
        return self._assembler.take()

    def _join(self, payload: bytes) -> bytes:
        """A unit larger than its packet comes in several, each with the AU header of the whole (RFC 3640 3.2.3)."""
        if len(payload) < 4 or payload[:2] != b"\x00\x10":
            return payload
        size = (payload[2] << 8 | payload[3]) >> 3
        data = payload[4:]
        if not self._fragment_size:
            if size <= len(data):
                return payload
            self._fragment_size = size
            self._fragment = data
            return b""
        self._fragment += data
        if size != self._fragment_size or len(self._fragment) > size:
            self.counters.malformed += 1
            self._fragment_size = 0
            self._fragment = b""
            return b""
        if len(self._fragment) < size:
            return b""
        whole = payload[:4] + self._fragment
        self._fragment_size = 0
        self._fragment = b""
        return whole

    def gap(self) -> None:
        self.counters.gaps += 1
        self._fragment_size = 0
        self._fragment = b""
        self._assembler.gap()

    def flush(self) -> list[EsUnit]:
        return []


Demuxer = PsDemuxer | EsDepacketiser

_NAMES: dict[str, Codec] = {
    "H264": Codec.H264,
    "H265": Codec.H265,
    "HEVC": Codec.H265,
    "PCMA": Codec.PCMA,
    "PCMU": Codec.PCMU,
    "G723": Codec.G723_1,
    "G729": Codec.G729,
    "G722": Codec.G722_1,
    "SVACA": Codec.SVACA,
    "AAC": Codec.AAC,
    "MPEG4-GENERIC": Codec.AAC,
}


def make_demuxer(
    encoding: str, payload_type: int, first_payload: bytes, *, aac_config: bytes = aac.DEFAULT_CONFIG
) -> Demuxer:
    """The reader for a payload, by its bytes first (MED-18, MED-19) and by the name of its rtpmap second.

    `first_payload` should be the first that begins a packet or a picture; a start code of a program stream decides
    against any name. A vendor's name (Annex G) or an unknown one means PS. Raises `UnsupportedPayloadError` for
    MPEG-TS, which is recognised, and for names of codecs that have no reader.
    """
    found = nal.sniff_payload(first_payload)
    if found == "TS":
        raise UnsupportedPayloadError("the device sends MPEG-TS in RTP; set it to PS")
    if found == "PS":
        return PsDemuxer(aac_config=aac_config)
    codec = _NAMES.get(encoding.upper())
    if codec is None:
        if encoding.upper() in ("MP4V-ES", "MPEG4", "SVAC"):
            raise UnsupportedPayloadError(
                f"elementary {encoding} in RTP is not carried; set the device to PS"
            )
        return PsDemuxer(aac_config=aac_config)
    if codec is Codec.H264:
        return H264Depacketiser(payload_type)
    if codec is Codec.H265:
        return H265Depacketiser(payload_type)
    if codec is Codec.AAC:
        return AacDepacketiser(payload_type, config=aac_config)
    return AudioDepacketiser(payload_type, codec)
