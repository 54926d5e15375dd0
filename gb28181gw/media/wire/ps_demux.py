"""Program stream demuxer (ISO 13818-1 2.5; GB/T 28181-2022 C.1), by structure.

Theory of operation. The stream is walked header by header: pack, system header, map, PES. Inside a packet of
known length nothing is searched (MED-08, MED-09); only where a header should stand and does not, after a loss, or
in a PES of length 0 (MED-05), is a *plausible* start looked for. PES payloads go to one assembler per stream
(`video`, `audio`), which find access units; this file knows nothing of NAL units.

Input may be cut anywhere: a header that is not complete waits in `_tail` (bounded), payload never waits. Nothing
that a device sends raises; it is counted in `counters` and named in `quirks`.
"""

from __future__ import annotations

from gb28181gw.media.tracks import Codec, Track
from gb28181gw.media.wire import aac
from gb28181gw.media.wire.audio import AudioAssembler
from gb28181gw.media.wire.stream_types import CODECS
from gb28181gw.media.wire.units import DemuxCounters, EsUnit
from gb28181gw.media.wire.video import MAX_UNIT, VideoAssembler

PACK = 0xBA
SYSTEM_HEADER = 0xBB
STREAM_MAP = 0xBC
PRIVATE_1 = 0xBD
PADDING = 0xBE
PRIVATE_2 = 0xBF
END = 0xB9

_PREFIX = b"\x00\x00\x01"
_MAX_MAP = 4096
_MAX_STREAMS = 4
_SOFT_SEARCH = 64
"""Bytes between pack header and next start that may be passed over without calling it a loss (MED-11)."""
_HEADER_SEARCH = 32
_ENDLESS = 1 << 40


class PsDemuxer:
    """Program stream in, access units out. One instance per SSRC."""

    def __init__(self, *, max_unit: int = MAX_UNIT, aac_config: bytes = aac.DEFAULT_CONFIG) -> None:
        self.counters = DemuxCounters()
        self.quirks: dict[str, int] = {}
        """Tolerances that fired, by name, and how often."""
        self.stream_types: dict[int, int] = {}
        """The last program stream map: stream id -> stream_type."""
        self._max_unit = max_unit
        self._aac_config = aac_config
        self._preset: tuple[Codec, tuple[bytes, ...]] | None = None
        self._videos: dict[int, VideoAssembler] = {}
        self._audios: dict[int, AudioAssembler] = {}
        self._video: VideoAssembler | None = None  # the one that is given out
        self._audio: AudioAssembler | None = None
        # Where the walk stands
        self._tail = b""
        self._remaining = 0  # bytes of the open packet
        self._unbounded = False  # the open PES has length 0
        self._hunting = False
        self._soft = 0  # bytes that the search may still pass without loss
        self._after_pack = False
        self._mpeg1 = False
        self._sink: VideoAssembler | AudioAssembler | None = None
        self._rtp_timestamp: int | None = None
        self._now = 0.0

    # ------------------------------------------------------------ interface

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Tracks known so far, video first; audio may come later or never (MED-16, MED-17)."""
        found = (self._video, self._audio)
        return tuple(item.track for item in found if item is not None and item.track is not None)

    @property
    def tracks_version(self) -> int:
        """Grows whenever `tracks` changes."""
        return (self._video.version if self._video else 0) + (self._audio.version if self._audio else 0)

    def preset(self, codec: Codec, parameter_sets: tuple[bytes, ...]) -> None:
        """Video parameter sets that the SDP gave (MED-35)."""
        self._preset = (codec, parameter_sets)
        for video in self._videos.values():
            video.preset(codec, parameter_sets)

    def feed(
        self, payload: bytes, rtp_timestamp: int | None = None, marker: bool = False, now: float = 0.0
    ) -> list[EsUnit]:
        """Take the next bytes; `now` is their arrival. Returns the units that they completed."""
        self._now = now
        self._rtp_timestamp = rtp_timestamp
        size = len(payload)
        if self._remaining > size:  # within one packet: most calls
            sink = self._sink
            self._remaining -= size
            if sink is not None:
                if sink.__class__ is VideoAssembler:
                    sink.append(payload, now, rtp_timestamp)
                else:
                    self._append(sink, payload)
        elif size:
            self._walk(self._tail + payload if self._tail else payload)
        if marker and self._video is not None:
            between = not self._remaining and not self._tail and not self._hunting
            self._video.marker(now, between=between)
        return self._collect()

    def gap(self) -> None:
        """Packets were lost between the last `feed` and the next."""
        self.counters.gaps += 1
        self._drop_open()
        self._hunting = True
        self._soft = 0

    @property
    def deadline(self) -> float | None:
        """When `flush_after` will give something out if nothing comes; None: nothing waits."""
        video = self._video
        if video is None or self._remaining or self._hunting:
            return None
        return video.deadline

    def flush_after(self, now: float) -> list[EsUnit]:
        """Give out a picture that is whole by all that is known and has waited one frame interval."""
        deadline = self.deadline
        if deadline is None or now < deadline or self._video is None:
            return []
        self._video.flush()
        return self._collect()

    def flush(self) -> list[EsUnit]:
        """The stream has ended: give out what is whole."""
        if self._unbounded and self._tail and self._sink is not None and self._tail[:3] != _PREFIX:
            self._append(self._sink, self._tail)
            self._tail = b""
        if not self._remaining and not self._hunting:
            for audio in self._audios.values():
                audio.finish()
            if self._video is not None:
                self._video.flush()
        return self._collect()

    # ------------------------------------------------------------- the walk

    def _walk(self, data: bytes) -> None:
        self._tail = b""
        position = 0
        size = len(data)
        while position < size:
            if self._remaining:
                take = min(self._remaining, size - position)
                sink = self._sink
                if sink is not None:
                    self._append(sink, data[position : position + take] if take < size else data)
                position += take
                self._remaining -= take
                if not self._remaining:
                    self._close()
                continue
            if self._unbounded:
                following = self._until_start(data, position)
            elif self._hunting:
                following = self._hunt(data, position)
            else:
                following = self._header(data, position)
            if following < 0:
                return
            position = following

    def _append(self, sink: VideoAssembler | AudioAssembler, data: bytes) -> None:
        if isinstance(sink, VideoAssembler):
            sink.append(data, self._now, self._rtp_timestamp)
        else:
            sink.append(data, self._now)

    def _close(self) -> None:
        """The open packet is complete."""
        sink = self._sink
        self._sink = None
        if isinstance(sink, AudioAssembler):
            sink.finish()

    def _wait(self, data: bytes, position: int) -> int:
        self._tail = data[position:]
        return -1

    def _skip(self, length: int) -> None:
        self._sink = None
        self._remaining = length

    def _header(self, data: bytes, position: int) -> int:
        """Read the header at `position`; returns where to go on, -1 when more bytes are needed."""
        size = len(data)
        head = data[position : position + 4]
        if head[:3] != _PREFIX[: len(head)]:
            return self._misplaced(data, position)
        if len(head) < 4:
            return self._wait(data, position)
        code = head[3]
        if code == PACK:
            return self._pack(data, position)
        self._after_pack = False
        if code == END:
            return position + 4
        if code < END:
            return self._lose(position)
        if position + 6 > size:
            return self._wait(data, position)
        length = data[position + 4] << 8 | data[position + 5]
        if 0xC0 <= code <= 0xEF:
            return self._pes(data, position, code, length)
        if code == STREAM_MAP and length <= _MAX_MAP:
            if position + 6 + length > size:
                return self._wait(data, position)
            self._map(data[position + 6 : position + 6 + length])
            return position + 6 + length
        # System header, private data (MED-08), padding and all else: nothing of use, by length.
        if code == STREAM_MAP:
            self.counters.oversized += 1
        self._skip(length)
        return position + 6

    def _misplaced(self, data: bytes, position: int) -> int:
        """No start code where one should be: zeros are stuffing, the rest is a loss."""
        end = position
        size = len(data)
        while end < size and data[end] == 0:
            end += 1
        zeros = end - position
        if zeros >= 2 and (end == size or data[end] == 1):
            if end == size:
                self._count_skipped(zeros - 2)
                return self._wait(data, size - 2)
            self._count_skipped(zeros - 2)
            return end - 2
        if end == size:
            return self._wait(data, position)
        if self._after_pack:
            self._quirk("ps.pack_stuffing")
            self._hunting = True
            self._soft = _SOFT_SEARCH
            return position
        return self._lose(position)

    def _pack(self, data: bytes, position: int) -> int:
        size = len(data)
        if position + 7 > size:
            return self._wait(data, position)
        first = data[position + 4]
        self._after_pack = True
        self._choose()
        for video in self._videos.values():
            video.pack()
        self._choose()
        if data[position + 4 : position + 7] == _PREFIX:
            self._quirk("ps.short_pack_header")  # MED-10
            return position + 4
        if first >> 6 == 1:
            if position + 14 > size:
                return self._wait(data, position)
            end = position + 14 + (data[position + 13] & 7)
        elif first >> 4 == 2:
            self._mpeg1 = True
            end = position + 12
        else:
            self.counters.malformed += 1
            return self._lose(position + 4)
        # The stuffing is passed over by its length, whatever it holds (MED-11).
        if end > size:
            return self._wait(data, position)
        return end

    def _pes(self, data: bytes, position: int, code: int, length: int) -> int:
        size = len(data)
        limit = position + 6 + length if length else position + _ENDLESS
        if position + 9 > size:
            if length < 3 and limit <= size:
                self._skip(length)
                self.counters.malformed += bool(length)
                return position + 6
            return self._wait(data, position)
        if 0 < length < 3:
            self.counters.malformed += 1
            self._skip(length)
            return position + 6
        pts: int | None = None
        dts: int | None = None
        if data[position + 6] >> 6 == 2:
            flags = data[position + 7] >> 6
            header = data[position + 8]
            wanted = (0, 0, 5, 10)[flags]
            start = position + 9 + header
            if header < wanted or start > limit:
                # MED-07: the header's length contradicts its flags or its packet.
                look = min(position + 9 + wanted + _HEADER_SEARCH, limit)
                if look > size:
                    return self._wait(data, position)
                self._quirk("ps.pes_header_length")
                start = self._payload_start(data, position + 9, look, limit, wanted)
            elif start > size:
                return self._wait(data, position)
            if wanted and start - position - 9 >= 5:
                pts = _timestamp(data, position + 9)
                if wanted == 10 and start - position - 9 >= 10:
                    dts = _timestamp(data, position + 14)
        elif self._mpeg1:
            if position + 6 + 16 + 12 > size and limit > size:
                return self._wait(data, position)
            start, pts, dts = _mpeg1_header(data, position + 6, min(limit, size))
        else:
            self.counters.malformed += 1
            self._quirk("ps.pes_marker_bits")
            start = min(position + 9, limit)
        self._open(code, pts, dts)
        if length:
            self._remaining = limit - start
            if not self._remaining:
                self._close()
        else:
            self._unbounded = True
            self._quirk("ps.pes_length_zero")
        return start

    @staticmethod
    def _payload_start(data: bytes, first: int, look: int, limit: int, wanted: int) -> int:
        """Where the payload of a PES with a senseless header length begins: at a start code if there is one."""
        found = data.find(_PREFIX, first, look)
        if found >= 0:
            return found - 1 if found > first and data[found - 1] == 0 else found
        return min(first + wanted, limit, look)

    def _open(self, code: int, pts: int | None, dts: int | None) -> None:
        """Find the assembler of a stream id and tell it that a PES begins."""
        self._sink = None
        self._choose()
        if code >= 0xE0:
            video = self._videos.get(code)
            if video is None:
                video = self._new_video(code)
            if video is None or (self._video is not video and self._is_settled(self._video)):
                self._quirk("ps.second_video_stream")
                return
            self._video = video if video.track is not None or self._video is None else self._video
            video.mark(pts, dts)
            self._sink = video
            return
        audio = self._audios.get(code)
        if audio is None:
            audio = self._new_audio(code)
        if audio is None or (self._audio is not audio and self._is_settled(self._audio)):
            self._quirk("ps.second_audio_stream")
            return
        self._audio = audio if audio.track is not None or self._audio is None else self._audio
        audio.start(pts, self._rtp_timestamp)
        self._sink = audio

    @staticmethod
    def _is_settled(assembler: VideoAssembler | AudioAssembler | None) -> bool:
        return assembler is not None and assembler.track is not None

    def _new_video(self, code: int) -> VideoAssembler | None:
        if len(self._videos) >= _MAX_STREAMS:
            return None
        video = VideoAssembler(code, self.counters, self._quirk, max_unit=self._max_unit)
        self._videos[code] = video
        declared = CODECS.get(self.stream_types.get(code, -1))
        if declared is not None and declared.is_video:
            video.declare(declared)
        elif not self.stream_types:
            self._quirk("ps.no_stream_map")
        if self._preset is not None:
            video.preset(*self._preset)
        return video

    def _new_audio(self, code: int) -> AudioAssembler | None:
        if len(self._audios) >= _MAX_STREAMS:
            return None
        audio = AudioAssembler(code, self.counters, self._quirk, aac_config=self._aac_config)
        self._audios[code] = audio
        declared = self.stream_types.get(code)
        if declared is not None:
            audio.declare(declared)
        return audio

    # ------------------------------------------------------------------ map

    def _map(self, body: bytes) -> None:
        """Program stream map (2.5.4), bounded by its own length alone; the checksum is not looked at (MED-04)."""
        size = len(body)
        if size < 6:
            self.counters.malformed += 1
            return
        position = 4 + (body[2] << 8 | body[3])
        if position + 2 > size:
            self._quirk("ps.psm_lengths")
            position = 4
        declared = body[position] << 8 | body[position + 1]
        position += 2
        end = position + declared
        if not declared or end > size - 4:
            end = size - 4 if declared == 0 or end > size else end
            self._quirk("ps.psm_lengths")
        types: dict[int, int] = {}
        while position + 4 <= end and len(types) < 16:
            stream_type, stream_id = body[position], body[position + 1]
            if 0xBC <= stream_id <= 0xEF:
                types[stream_id] = stream_type
            position += 4 + (body[position + 2] << 8 | body[position + 3])
        if position > end:
            self._quirk("ps.psm_lengths")
        if not types or types == self.stream_types:
            return
        self.stream_types = types
        for stream_id, stream_type in types.items():
            if (video := self._videos.get(stream_id)) is not None:
                codec = CODECS.get(stream_type)
                if codec is not None and codec.is_video:
                    video.declare(codec)
            if (audio := self._audios.get(stream_id)) is not None:
                audio.declare(stream_type)

    # --------------------------------------------------------------- search

    def _lose(self, position: int) -> int:
        """The structure is lost at `position`."""
        self.counters.resyncs += 1
        self._quirk("ps.structure_lost")
        self._drop_open()
        self._hunting = True
        self._soft = 0
        return position

    def _drop_open(self) -> None:
        for video in self._videos.values():
            video.gap()
        for audio in self._audios.values():
            audio.gap()
        self._tail = b""
        self._remaining = 0
        self._unbounded = False
        self._sink = None
        self._after_pack = False

    def _hunt(self, data: bytes, position: int) -> int:
        """Search a plausible start from `position` on."""
        size = len(data)
        start = position
        while True:
            found = data.find(_PREFIX, start)
            if found < 0:
                keep = max(position, size - 2)
                self._pass_over(keep - position)
                return self._wait(data, keep)
            verdict = self._is_start(data, found)
            if verdict is None:
                self._pass_over(found - position)
                return self._wait(data, found)
            if verdict:
                self._pass_over(found - position)
                self._hunting = False
                return found
            start = found + 3

    def _pass_over(self, count: int) -> None:
        self._count_skipped(count)
        if self._soft:
            self._soft -= count
            if self._soft <= 0:
                self._lose(0)

    def _count_skipped(self, count: int) -> None:
        self.counters.skipped_bytes += count

    def _until_start(self, data: bytes, position: int) -> int:
        """Payload of a PES of length 0: up to the next plausible start (MED-05)."""
        size = len(data)
        sink = self._sink
        start = position
        while True:
            found = data.find(_PREFIX, start)
            if found < 0:
                end = size - 2 if data.endswith(b"\x00\x00") else size - 1 if data[-1] == 0 else size
                end = max(end, position)
                verdict: bool | None = None
            else:
                end = found
                verdict = self._is_start(data, found)
                if verdict is False:
                    start = found + 3
                    continue
            if sink is not None and end > position:
                self._append(sink, data[position:end])
            if verdict is None:
                return self._wait(data, end)
            self._unbounded = False
            self._close()
            return found

    def _is_start(self, data: bytes, position: int) -> bool | None:
        """A unit of the program stream plausibly starts at the prefix at `position`; None: more bytes needed."""
        size = len(data)
        if position + 4 > size:
            return None
        code = data[position + 3]
        if code < END or code > 0xEF:  # NAL units have codes below 0x80
            return False
        if code in (END, PRIVATE_1, PADDING, PRIVATE_2) and self._unbounded:
            return True
        if code in (END, PADDING, PRIVATE_2):
            return False  # nothing behind them can be checked
        if position + 9 > size:
            return None
        if code == PACK:
            first = data[position + 4]
            return first >> 6 == 1 or first >> 4 == 2 or data[position + 4 : position + 7] == _PREFIX
        length = data[position + 4] << 8 | data[position + 5]
        if code == SYSTEM_HEADER:
            return 6 <= length <= 512
        if code == STREAM_MAP:
            return 6 <= length <= _MAX_MAP
        if length in (1, 2):
            return False
        return data[position + 6] >> 6 == 2 or self._mpeg1

    # --------------------------------------------------------------- output

    def _choose(self) -> None:
        """The first stream of a kind with a unit is the one that is given out.

        Decided where the stream has its joints and not only where a `feed` ends, so that it does not depend on how the
        bytes came.
        """
        for video in self._videos.values():
            if video.has_output and self._video is not video and not self._is_settled(self._video):
                self._video = video
        for audio in self._audios.values():
            if audio.has_output and self._audio is not audio and not self._is_settled(self._audio):
                self._audio = audio

    def _collect(self) -> list[EsUnit]:
        self._choose()
        units: list[EsUnit] = []
        for video in self._videos.values():
            if video.has_output:
                taken = video.take()
                if self._video is video:
                    units += taken
        for audio in self._audios.values():
            if audio.has_output:
                taken = audio.take()
                if self._audio is audio:
                    units += taken
        return units

    def _quirk(self, name: str) -> None:
        self.quirks[name] = self.quirks.get(name, 0) + 1


def _timestamp(data: bytes, position: int) -> int:
    """33 bits of PTS or DTS; the marker bits are not looked at."""
    return (
        (data[position] >> 1 & 7) << 30
        | data[position + 1] << 22
        | data[position + 2] >> 1 << 15
        | data[position + 3] << 7
        | data[position + 4] >> 1
    )


def _mpeg1_header(data: bytes, position: int, limit: int) -> tuple[int, int | None, int | None]:
    """(payload, pts, dts) of an ISO 11172-1 packet header; `position` is behind its length."""
    while position < limit and data[position] == 0xFF:
        position += 1
    if position + 2 <= limit and data[position] >> 6 == 1:
        position += 2
    if position >= limit:
        return limit, None, None
    kind = data[position] >> 4
    if kind == 2 and position + 5 <= limit:
        return position + 5, _timestamp(data, position), None
    if kind == 3 and position + 10 <= limit:
        return position + 10, _timestamp(data, position), _timestamp(data, position + 5)
    return min(position + 1, limit), None, None
