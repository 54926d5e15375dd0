"""What requests say about on whose behalf they are (GB/T 28181-2022 8.3, Annex H)."""

from __future__ import annotations

import pytest

from gb28181gw.ua.passage import PASSAGE, USER, Passage, headers_for, passing

OWN = "34020100002000000001"


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "INFO", "SUBSCRIBE", "REGISTER", "OPTIONS"])
def test_r064_a_user_of_ours_is_named_to_platforms_and_never_to_devices(method: str) -> None:
    token = USER.set("0123456789abcdef")
    try:
        told = headers_for(method, OWN, platform=True)
        named = (("Monitor-User-Identity", f"{OWN}-0123456789abcdef"),)
        assert told == (named if method in ("INVITE", "MESSAGE", "INFO") else ())
        assert headers_for(method, OWN, platform=False) == ()
        with passing(Passage(identity="a-b")):
            assert OWN not in str(headers_for(method, OWN, platform=True)), "the request is another's"
        with passing(Passage()):
            assert headers_for(method, OWN, platform=True) == (), "whose it is was not said"
        assert PASSAGE.get() is None
    finally:
        USER.reset(token)
    assert headers_for(method, OWN, platform=True) == ()
