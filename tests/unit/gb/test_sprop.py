"""Parameter sets of an SDP."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.gb.sprop import MAX_SET_BYTES, MAX_SETS, parameter_sets

SPS, PPS, VPS = b"\x67\x42\xc0\x1e\xda", b"\x68\xce\x3c\x80", b"\x40\x01\x0c\x01"


def text(unit: bytes) -> str:
    return b64encode(unit).decode()


def test_med35_h264_as_rfc6184_writes_it() -> None:
    line = f"98 profile-level-id=42c01e; packetization-mode=1;sprop-parameter-sets={text(SPS)},{text(PPS)}"
    assert parameter_sets([line]) == (SPS, PPS)


def test_med35_h265_in_the_order_that_a_decoder_wants() -> None:
    line = f"100 sprop-pps={text(PPS)}; SPROP-SPS={text(SPS)};sprop-vps={text(VPS)}"
    assert parameter_sets([line]) == (VPS, SPS, PPS)


def test_med35_padding_may_be_missing_and_what_is_no_base64_is_left_out() -> None:
    line = (
        f"98 sprop-parameter-sets={text(SPS).rstrip('=')}, {text(PPS)},?!,,{text(bytes(MAX_SET_BYTES + 1))}"
    )
    assert parameter_sets([line]) == (SPS, PPS)
    assert parameter_sets(["98", "", "98 sprop-parameter-sets", "98 profile-level-id=42e01e"]) == ()


@given(
    st.lists(
        st.text(max_size=200) | st.text(max_size=200).map("98 sprop-parameter-sets={}".format), max_size=5
    )
)
def test_s05_any_text_is_read(lines: list[str]) -> None:
    found = parameter_sets(lines)
    assert len(found) <= MAX_SETS
    assert all(0 < len(unit) <= MAX_SET_BYTES for unit in found)
