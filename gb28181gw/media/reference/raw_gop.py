"""The source's own packets since the last key frame: a raw RTP sink begins with them, the demuxer catches up from them.

Theory of operation. A program stream is not demuxed to find where a key frame begins: only a pack header is looked
for, and behind it the first NAL units or, for other codecs, a program stream map. A key frame may come in several
packs of one RTP timestamp; only the first of them, or one with parameter sets, begins the group. The group is bounded
as the kept frames are (`gop`), and given up as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from gb28181gw.media.reference.gop import MAX_BYTES
from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import nal
from gb28181gw.media.wire.reorder import Gap
from gb28181gw.media.wire.rtp import RtpPacket

Entry = tuple[RtpPacket | Gap, float]
"""A packet, or what is missing, and when it came (monotonic seconds)."""

MAX_ENTRIES = 32_768
"""More than half of the sequence numbers in one group is no group."""
_PACK = b"\x00\x00\x01\xba"
_PREFIX = b"\x00\x00\x01"
_PROBE_BYTES = 4096
"""Of a pack, among which its first slice must begin."""
_MAP = 0xBC


class RawGop:
    """Owner of the kept packets. `codec` tells the video codec as far as it is known, `audio_only` that none comes."""

    def __init__(self, codec: Callable[[], Codec | None], audio_only: Callable[[], bool]) -> None:
        self._codec = codec
        self._audio_only = audio_only
        self.entries: list[Entry] = []
        """From a key frame on; before the first one nothing."""
        self.parameters = b""
        """The first parameter set of the last key frame that had one whole in its first packet; another one may mean
        other tracks (MED-36)."""
        self._size_bytes = 0
        self._keeping = False
        self._probe = b""
        """The beginning of a pack whose first slice was not seen yet."""
        self._waiting: list[Entry] = []
        """Its packets, in case that it begins a group."""
        self._key_timestamp: int | None = None

    def gap(self, gap: Gap, now: float) -> None:
        """Packets are missing before the next one."""
        self._probe = b""
        self._waiting.clear()
        if self._keeping:
            self.entries.append((gap, now))

    def add(self, packet: RtpPacket, now: float) -> bool:
        """Keep the packet. True: it told that a key frame begins, and `entries` begins with that."""
        payload = packet.payload
        entry = (packet, now)
        key: bool | None = False
        found = payload.find(_PACK)
        if self._probe:
            self._waiting.append(entry)
            self._probe += payload
            key = self._judge(packet.timestamp)
        if key is False and found >= 0:
            self._probe = payload[found:]
            self._waiting = [entry]
            key = self._judge(packet.timestamp)
        if self._probe:
            if key:
                self.entries, self._waiting = self._waiting, []
                self._size_bytes = sum(
                    len(kept.payload) for kept, _ in self.entries if isinstance(kept, RtpPacket)
                )
                self._keeping = True
                self._probe = b""
                self._key_timestamp = packet.timestamp
                return True
            if key is False or len(self._probe) > _PROBE_BYTES:
                self._probe = b""
                self._waiting.clear()
        if self._keeping:
            self.entries.append(entry)
            self._size_bytes += len(payload)
            if self._size_bytes > MAX_BYTES or len(self.entries) > MAX_ENTRIES:
                self.clear()
        return False

    def clear(self) -> None:
        """Keep nothing until the next key frame."""
        self.entries = []
        self._size_bytes = 0
        self._keeping = False

    def _judge(self, timestamp: int) -> bool | None:
        """Does the pack in the probe begin a key frame? None: more bytes are needed."""
        if self._audio_only():
            return True
        codec = self._codec()
        data = self._probe
        position = data.find(_PREFIX, 4)
        mapped = False
        in_video = False
        while position >= 0 and position + 5 <= len(data):
            code = data[position + 3]
            if code == 0xBA and in_video:
                return False
            if code >= 0xB9:
                mapped = mapped or code == _MAP
                in_video = in_video or 0xE0 <= code <= 0xEF
                if in_video and codec not in (None, Codec.H264, Codec.H265):
                    return mapped and timestamp != self._key_timestamp
                if 0xC0 <= code <= 0xDF and not in_video:
                    return False
            elif in_video:
                verdict = _begins(codec, code, data[position + 4])
                if verdict is _Unit.PARAMETERS:
                    end = data.find(_PREFIX, position + 3)
                    if end > 0:
                        self.parameters = data[position:end]
                    return True
                if verdict is _Unit.KEY:
                    return timestamp != self._key_timestamp
                if verdict is _Unit.OTHER:
                    return False
            position = data.find(_PREFIX, position + 3)
        return None


class _Unit(Enum):
    """What a NAL unit tells about the place where it stands."""

    PARAMETERS = "parameters"
    KEY = "key"
    OTHER = "other"
    NOTHING = "nothing"


def _begins(codec: Codec | None, first: int, second: int) -> _Unit:
    """By the two bytes of a NAL unit header; without a codec only parameter sets are believed."""
    if codec is None:
        if first & 0x9F == nal.H264_SPS or (first == nal.H265_VPS << 1 and second == 1):
            return _Unit.PARAMETERS
        return _Unit.NOTHING
    kind = first & 0x1F if codec is Codec.H264 else first >> 1 & 0x3F
    if kind == (nal.H264_SPS if codec is Codec.H264 else nal.H265_VPS):
        return _Unit.PARAMETERS
    if nal.is_key_nal(codec, kind) or (codec is Codec.H265 and kind == nal.H265_SPS):
        return _Unit.KEY
    return _Unit.OTHER if nal.is_vcl(codec, kind) else _Unit.NOTHING
