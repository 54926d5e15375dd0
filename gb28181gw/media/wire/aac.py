"""AAC: ADTS headers (ISO 13818-7 6.2) and AudioSpecificConfig (ISO 14496-3 1.6.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from gb28181gw.media.wire.exceptions import ParameterSetError

SAMPLES_PER_FRAME = 1024
SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
DEFAULT_CONFIG = bytes.fromhex("1588")
"""AAC-LC, 8 kHz, mono: what GB/T 28181-2022 C.2.7 recommends, and the guess where nothing tells."""
_AAC_LC = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdtsHeader:
    object_type: int
    """Audio object type; 2 is LC."""
    sample_rate_index: int
    channels: int
    """0: told in the stream."""
    header_size: int
    """7, or 9 with a checksum."""
    frame_size: int
    """With the header."""
    blocks: int
    """Raw data blocks in the frame."""

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATES[self.sample_rate_index]

    @property
    def config(self) -> bytes:
        return audio_specific_config(self.sample_rate, self.channels, self.object_type)


def parse_adts(data: bytes, position: int = 0) -> AdtsHeader | None:
    """The ADTS header at `position`; None where there is none or it is cut off. Layer 0 tells AAC from MP2."""
    if position + 7 > len(data) or data[position] != 0xFF or data[position + 1] & 0xF6 != 0xF0:
        return None
    second, third, fourth = data[position + 2], data[position + 3], data[position + 4]
    rate_index = second >> 2 & 0x0F
    header_size = 7 if data[position + 1] & 1 else 9
    frame_size = (third & 3) << 11 | fourth << 3 | data[position + 5] >> 5
    if rate_index >= len(SAMPLE_RATES) or frame_size <= header_size:
        return None
    return AdtsHeader(
        object_type=(second >> 6) + 1,
        sample_rate_index=rate_index,
        channels=(second & 1) << 2 | third >> 6,
        header_size=header_size,
        frame_size=frame_size,
        blocks=(data[position + 6] & 3) + 1,
    )


def is_adts_chain(data: bytes) -> bool:
    """`data` is a whole number of ADTS frames, or at least two and the start of another."""
    position = frames = 0
    while (header := parse_adts(data, position)) is not None:
        position += header.frame_size
        frames += 1
        if position >= len(data):
            return position == len(data) or frames > 2
    return False


def build_adts(config: bytes, size: int) -> bytes:
    """Header of seven bytes for a raw data block of `size` bytes. Raises `ParameterSetError`, ValueError."""
    object_type, sample_rate, channels = parse_audio_specific_config(config)
    if sample_rate not in SAMPLE_RATES or not 1 <= object_type <= 4:
        raise ParameterSetError("this AudioSpecificConfig has no ADTS form")
    frame_size = size + 7
    if frame_size > 0x1FFF:
        raise ValueError("an ADTS frame holds at most 8,191 bytes")
    index = SAMPLE_RATES.index(sample_rate)
    return bytes(
        (
            0xFF,
            0xF1,
            (object_type - 1) << 6 | index << 2 | channels >> 2,
            (channels & 3) << 6 | frame_size >> 11,
            frame_size >> 3 & 0xFF,
            (frame_size & 7) << 5 | 0x1F,
            0xFC,
        )
    )


def audio_specific_config(sample_rate: int, channels: int, object_type: int = _AAC_LC) -> bytes:
    """Two bytes for the rates of the table, else five. `channels` 1-7."""
    if sample_rate in SAMPLE_RATES:
        return (object_type << 11 | SAMPLE_RATES.index(sample_rate) << 7 | channels << 3).to_bytes(2, "big")
    return (object_type << 35 | 0xF << 31 | sample_rate << 7 | channels << 3).to_bytes(5, "big")


def parse_audio_specific_config(config: bytes) -> tuple[int, int, int]:
    """(audio object type, sampling rate, channels). Raises `ParameterSetError`."""
    if len(config) < 2:
        raise ParameterSetError("AudioSpecificConfig is shorter than two bytes")
    value = int.from_bytes(config[:5].ljust(5, b"\x00"), "big")
    object_type = value >> 35
    index = value >> 31 & 0xF
    if index == 0xF:
        if len(config) < 5:
            raise ParameterSetError("AudioSpecificConfig ends inside its sampling rate")
        return object_type, value >> 7 & 0xFFFFFF, value >> 3 & 0xF
    if index >= len(SAMPLE_RATES):
        raise ParameterSetError(f"sampling frequency index {index} is reserved")
    return object_type, SAMPLE_RATES[index], value >> 27 & 0xF


def split_au_headers(data: bytes) -> list[bytes] | None:
    """Access units behind AU headers of 13 bits size and 3 bits index (RFC 3640 3.3.6, AAC-hbr).

    None where the lengths do not add up to the payload exactly, except that one unit may be a fragment.
    """
    if len(data) < 4:
        return None
    bits = data[0] << 8 | data[1]
    count, rest = divmod(bits, 16)
    if rest or not count or 2 + 2 * count > len(data):
        return None
    position = 2 + 2 * count
    units = []
    for index in range(count):
        size = (data[2 + 2 * index] << 8 | data[3 + 2 * index]) >> 3
        if not size or position + size > len(data):
            return None
        units.append(data[position : position + size])
        position += size
    return units if position == len(data) else None
