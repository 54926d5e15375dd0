"""From PES payloads of an audio stream to packets of samples.

What the program stream map declares is checked against the bytes: a payload that is a chain of whole ADTS frames is
AAC whatever was declared (MED-13). Without a declaration the codec stays unknown for a second, then G.711 A-law is
assumed, the one codec that every device must have (MED-02). Audio never holds up video: what cannot be read is
counted and dropped (MED-14).
"""

from __future__ import annotations

from collections.abc import Callable

from gb28181gw.media.tracks import Codec, Track, TrackKind
from gb28181gw.media.wire import aac
from gb28181gw.media.wire.exceptions import ParameterSetError
from gb28181gw.media.wire.stream_types import AUDIO_RATES, CODECS
from gb28181gw.media.wire.units import PTS_MODULUS, DemuxCounters, EsUnit

MAX_PES = 128 * 1024
"""Bytes of one audio PES; more is dropped."""
_ASSUME_AFTER = 25
_GIVE_UP_AFTER = 10


class AudioAssembler:
    """One audio elementary stream."""

    def __init__(
        self,
        stream_id: int,
        counters: DemuxCounters,
        on_quirk: Callable[[str], None],
        *,
        aac_config: bytes = aac.DEFAULT_CONFIG,
    ) -> None:
        self.stream_id = stream_id
        self.track: Track | None = None
        """Known with the first unit."""
        self.version = 0
        self._counters = counters
        self._on_quirk = on_quirk
        self._aac_config = aac_config
        self._declared: int | None = None
        self._packet = bytearray()
        self._pts: int | None = None
        self._started = False
        self._rtp_timestamp: int | None = None
        self._arrival = 0.0
        self._carry = b""  # start of an ADTS frame that goes on in the next PES
        self._next_pts: int | None = None
        self._adts_seen = 0
        self._undeclared = 0
        self._mpeg_audio = 0
        self._unread = 0
        self._damaged = False
        self._out: list[EsUnit] = []

    def declare(self, stream_type: int) -> None:
        """`stream_type` of the program stream map."""
        if stream_type != self._declared:
            self._declared = stream_type
            self._adts_seen = 0
            self._unread = 0

    def start(self, pts: int | None, rtp_timestamp: int | None) -> None:
        """A PES packet begins; the one before is complete."""
        self.finish()
        self._pts = pts
        self._rtp_timestamp = rtp_timestamp
        self._started = True

    def append(self, data: bytes, arrival: float) -> None:
        self._arrival = arrival
        if not self._started:
            return
        if len(self._packet) + len(data) > MAX_PES:
            self._counters.oversized += 1
            self._drop()
            return
        self._packet += data

    def finish(self) -> None:
        """The PES packet is complete."""
        if not self._packet:
            return
        data = bytes(self._packet)
        self._packet.clear()
        self._started = False
        self._read(data)

    def gap(self) -> None:
        """Bytes were lost: drop the packet in work."""
        if self._packet:
            self._counters.dropped_units += 1
        self._drop()
        self._damaged = True

    def _drop(self) -> None:
        self._packet.clear()
        self._carry = b""
        self._next_pts = None
        self._started = False

    def take(self) -> list[EsUnit]:
        out = self._out
        if out:
            self._out = []
        return out

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def _read(self, data: bytes) -> None:
        declared = CODECS.get(self._declared) if self._declared is not None else None
        if self._is_adts(data, declared):
            if declared is not Codec.AAC:
                self._on_quirk("ps.audio_codec_mismatch")
            self._read_adts(data)
            return
        if self._adts_seen and self.track is None:
            # It may be AAC under another name (MED-13): one packet later we know, and nothing wrong was published.
            self._counters.dropped_units += 1
            return
        if declared is Codec.AAC:
            self._read_aac_units(data)
            return
        if declared is None:
            if self._declared is not None:
                self._on_quirk("ps.unsupported_stream_type")
                self._counters.dropped_units += 1
                return
            self._undeclared += 1
            self._mpeg_audio += is_mpeg_audio(data)
            if self._undeclared < _ASSUME_AFTER or self._mpeg_audio > _ASSUME_AFTER // 2:
                self._counters.dropped_units += 1
                if self._undeclared == _ASSUME_AFTER:
                    self._on_quirk("ps.unsupported_stream_type")
                return
            self._on_quirk("ps.audio_codec_assumed")
            declared = Codec.PCMA
        if declared.is_video:
            self._on_quirk("ps.unsupported_stream_type")
            self._counters.dropped_units += 1
            return
        self._emit(self._plain_track(declared), self._pts, data)

    def _is_adts(self, data: bytes, declared: Codec | None) -> bool:
        """AAC by its bytes. Under another declaration two chains in a row are wanted: noise may look like one."""
        if declared is Codec.AAC and (self._carry or aac.parse_adts(data) is not None):
            return True
        if aac.is_adts_chain(data):
            self._adts_seen += 1
        elif self._adts_seen < 2 or aac.parse_adts(data) is None:
            self._adts_seen = 0
        return self._adts_seen >= 2

    def _read_adts(self, data: bytes) -> None:
        carried = len(self._carry)
        data = self._carry + data
        position = 0
        pts = self._next_pts if carried else self._pts
        while position < len(data):
            header = aac.parse_adts(data, position)
            if header is None:
                rest = data[position : position + 7]
                if len(rest) < 7 and rest[0] == 0xFF and (len(rest) < 2 or rest[1] & 0xF6 == 0xF0):
                    break
                following = data.find(b"\xff", position + 1)
                self._counters.skipped_bytes += (len(data) if following < 0 else following) - position
                if following < 0:
                    position = len(data)
                    break
                position = following
                continue
            end = position + header.frame_size
            if end > len(data):
                break
            if carried and position >= carried:
                # The first frame that begins in this PES takes its time.
                carried = 0
                if self._pts is not None:
                    pts = self._pts
            if header.blocks == 1:
                track = self._aac_track(header.config, header.sample_rate, header.channels)
                self._emit(track, pts, data[position + header.header_size : end])
            else:
                self._counters.malformed += 1
            if pts is not None:
                duration = aac.SAMPLES_PER_FRAME * 90000 * header.blocks // header.sample_rate
                pts = (pts + duration) % PTS_MODULUS
            position = end
        self._carry = data[position:] if len(data) - position <= 0x2000 else b""
        self._next_pts = pts
        if carried and self._carry and self._pts is not None and carried <= position:
            self._next_pts = self._pts

    def _read_aac_units(self, data: bytes) -> None:
        """Declared AAC without ADTS: AU headers (MED-14), or not to be read."""
        units = aac.split_au_headers(data)
        if units is None:
            self._counters.dropped_units += 1
            self._unread += 1
            if self._unread == _GIVE_UP_AFTER:
                self._on_quirk("ps.audio_unreadable")
            return
        self._on_quirk("ps.aac_au_headers")
        try:
            _, rate, channels = aac.parse_audio_specific_config(self._aac_config)
        except ParameterSetError:
            self._counters.malformed += 1
            return
        track = self._aac_track(self._aac_config, rate, channels)
        pts = self._pts
        for unit in units:
            self._emit(track, pts, unit)
            if pts is not None:
                pts = (pts + aac.SAMPLES_PER_FRAME * 90000 // rate) % PTS_MODULUS

    def _aac_track(self, config: bytes, sample_rate: int, channels: int) -> Track:
        track = self.track
        if track is None or track.codec is not Codec.AAC or track.parameter_sets != (config,):
            track = Track(
                kind=TrackKind.AUDIO,
                codec=Codec.AAC,
                sample_rate=sample_rate,
                channels=channels,
                parameter_sets=(config,),
            )
        return track

    def _plain_track(self, codec: Codec) -> Track:
        track = self.track
        if track is None or track.codec is not codec:
            track = Track(
                kind=TrackKind.AUDIO, codec=codec, sample_rate=AUDIO_RATES.get(codec, 8000), channels=1
            )
        return track

    def _emit(self, track: Track, pts: int | None, payload: bytes) -> None:
        if track is not self.track:
            self.track = track
            self.version += 1
        self._unread = 0
        self._counters.units += 1
        self._out.append(
            EsUnit(
                track=track,
                stream_id=self.stream_id,
                pts_90k=pts,
                dts_90k=pts,
                key=True,
                payload=payload,
                damaged=self._damaged,
                rtp_timestamp=self._rtp_timestamp,
                arrival=self._arrival,
            )
        )
        self._damaged = False


_LAYER2_KBPS = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LAYER2_HZ = (44100, 48000, 32000)


def is_mpeg_audio(data: bytes) -> bool:
    """Two MPEG-1 layer II headers at the distance that the first tells: what a program stream from a file has."""
    start = data.find(b"\xff")
    while 0 <= start < len(data) - 3:
        if data[start + 1] & 0xFE == 0xFC:
            rate, frequency = data[start + 2] >> 4, data[start + 2] >> 2 & 3
            if 0 < rate < 15 and frequency < 3:
                size = 144_000 * _LAYER2_KBPS[rate] // _LAYER2_HZ[frequency] + (data[start + 2] >> 1 & 1)
                following = data[start + size : start + size + 2]
                if len(following) == 2 and following[0] == 0xFF and following[1] & 0xFE == 0xFC:
                    return True
        start = data.find(b"\xff", start + 1)
    return False
