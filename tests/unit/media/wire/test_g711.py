"""G.711 to linear samples."""

from __future__ import annotations

import pytest

from gb28181gw.media.wire import g711


def test_g711_is_the_inverse_of_the_tables_of_the_recommendation() -> None:
    def samples(codec: str, *codes: int) -> list[int]:
        pcm = g711.decode(bytes(codes), codec)
        return [int.from_bytes(pcm[at : at + 2], "little", signed=True) for at in range(0, len(pcm), 2)]

    assert samples("pcma", 0xD5, 0x55, 0xAA, 0x2A) == [8, -8, 32256, -32256]
    assert samples("pcmu", 0xFF, 0x7F, 0x80, 0x00) == [0, 0, 32124, -32124]


@pytest.mark.parametrize("codec", ["pcma", "pcmu"])
def test_louder_codes_are_louder_and_signs_are_mirrored(codec: str) -> None:
    pcm = g711.decode(bytes(range(256)), codec)
    samples = [int.from_bytes(pcm[at : at + 2], "little", signed=True) for at in range(0, 512, 2)]
    assert sorted(samples) == sorted(-sample for sample in samples)
    assert len(set(samples)) == (256 if codec == "pcma" else 255)
