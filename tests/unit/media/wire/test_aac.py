"""ADTS, AudioSpecificConfig and AU headers."""

from __future__ import annotations

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire import aac
from gb28181gw.media.wire.exceptions import ParameterSetError
from tests.support.media import audio_clip


@pytest.mark.parametrize("rate", aac.SAMPLE_RATES)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_config_round_trip(rate: int, channels: int) -> None:
    config = aac.audio_specific_config(rate, channels)
    assert aac.parse_audio_specific_config(config) == (2, rate, channels)


def test_config_of_the_standard() -> None:
    assert aac.audio_specific_config(8000, 1) == aac.DEFAULT_CONFIG
    assert aac.parse_audio_specific_config(aac.DEFAULT_CONFIG) == (2, 8000, 1)


def test_config_with_an_explicit_rate() -> None:
    config = aac.audio_specific_config(12345, 2)
    assert len(config) == 5
    assert aac.parse_audio_specific_config(config) == (2, 12345, 2)
    with pytest.raises(ParameterSetError):
        aac.parse_audio_specific_config(config[:4])


@pytest.mark.parametrize("config", [b"", b"\x15", b"\x16\xe8"])
def test_config_that_cannot_be_read(config: bytes) -> None:
    """Too short, or a reserved frequency index."""
    with pytest.raises(ParameterSetError):
        aac.parse_audio_specific_config(config)


def test_config_of_an_encoder() -> None:
    clip = audio_clip(Codec.AAC, rate=16000)
    assert aac.parse_audio_specific_config(clip[0].track.parameter_sets[0]) == (2, 16000, 1)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_adts_round_trip(rate: int) -> None:
    config = aac.audio_specific_config(rate, 2)
    data = aac.build_adts(config, 300) + bytes(300)
    header = aac.parse_adts(data)
    assert header is not None
    assert (header.sample_rate, header.channels, header.header_size, header.frame_size) == (rate, 2, 7, 307)
    assert (header.config, header.blocks) == (config, 1)
    assert aac.is_adts_chain(data * 3)


def test_adts_limits() -> None:
    with pytest.raises(ValueError, match="8,191"):
        aac.build_adts(aac.DEFAULT_CONFIG, 8185)
    with pytest.raises(ParameterSetError):
        aac.build_adts(aac.audio_specific_config(12345, 1), 10)
    assert aac.parse_adts(b"\xff\xf1\x50\x80\x02\x1f") is None
    assert aac.parse_adts(b"\xff\xfd\x50\x80\x02\x1f\xfc") is None  # layer 2: MPEG audio
    assert aac.parse_adts(b"\xff\xf1\x7c\x80\x02\x1f\xfc") is None  # frequency index 15
    assert aac.parse_adts(b"\xff\xf1\x50\x80\x00\x1f\xfc") is None  # shorter than its header
    assert not aac.is_adts_chain(b"\xd5" * 320)
    assert not aac.is_adts_chain(b"")


def test_med14_au_headers() -> None:
    data = b"\x00\x20" + (5 << 3).to_bytes(2, "big") + (3 << 3).to_bytes(2, "big") + b"abcdefgh"
    assert aac.split_au_headers(data) == [b"abcde", b"fgh"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x10\x00",
        b"\x00\x00\x00\x28abcde",
        b"\x00\x11\x00\x28abcde",
        b"\x00\x10\x00\x28abcd",
        b"\x00\x10\x00\x28abcdef",
        b"\x00\x10\x00\x00",
        b"\xff\xf0\x00\x28abc",
    ],
)
def test_med14_au_headers_must_add_up(data: bytes) -> None:
    assert aac.split_au_headers(data) is None
