"""Digest authentication, both directions. The worked examples are those of RFC 2617 3.5 and RFC 7616 3.9.1."""

import hashlib

import pytest

from gb28181gw.sip.digest import Challenge, Credentials, answer, parse_challenge, parse_credentials, verify
from gb28181gw.sip.exceptions import LocalProtocolError

USER = "34020000001320000001"
REALM = "3402000000"
URI = "sip:34020000002000000001@3402000000"


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def credentials(value: str) -> Credentials:
    read = parse_credentials(value)
    assert read is not None
    return read


def test_rfc2617_example() -> None:
    given = credentials(
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", '
        'response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    assert verify(given, "GET", "Circle Of Life")
    assert not verify(given, "GET", "Circle of Life")
    assert not verify(given, "REGISTER", "Circle Of Life")


def test_rfc7616_example_sha256() -> None:
    given = credentials(
        'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=SHA-256, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
        'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
        'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    assert verify(given, "GET", "Circle of Life")
    assert verify(given, "GET", "Circle of Life", algorithm="SHA-256")
    assert not verify(given, "GET", "Circle of Life", algorithm="MD5")


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", ""])
@pytest.mark.parametrize("qop", ["auth", ""])
def test_both_directions_agree(algorithm: str, qop: str) -> None:
    challenge = Challenge(REALM, "abc", algorithm, qop, opaque="op")
    assert parse_challenge(challenge.header()) == challenge
    value = answer(challenge, "REGISTER", URI, USER, "pass", nc=10, cnonce="c0" if qop else "")
    given = credentials(value)
    assert given.nc == ("0000000a" if qop else "")
    assert given.nc_value == (10 if qop else None)
    assert given.opaque == "op"
    assert verify(given, "REGISTER", "pass", algorithm=algorithm or "MD5")
    assert not verify(given, "REGISTER", "Pass")
    assert not verify(given, "INVITE", "pass")


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        "sip:34020000002000000001@192.168.1.10:5060",
        "34020000002000000001@3402000000",
        "sip:X%41 b@h",
        "SIP:A@B",
    ],
)
def test_reg01_uri_hashed_as_received(uri: str) -> None:
    ha1, ha2 = md5(f"{USER}:{REALM}:p"), md5(f"REGISTER:{uri}")
    response = md5(f"{ha1}:n:{ha2}")
    given = credentials(
        f'Digest username="{USER}",realm="{REALM}",nonce="n",uri="{uri}",response="{response}"'
    )
    assert given.uri == uri
    assert verify(given, "REGISTER", "p")


def test_reg02_qop_offered_and_ignored() -> None:
    response = md5(f"{md5(f'{USER}:{REALM}:p')}:n:{md5(f'REGISTER:{URI}')}")
    base = f'Digest username="{USER}",realm="{REALM}",nonce="n",uri="{URI}",response="{response}"'
    assert verify(credentials(base), "REGISTER", "p")
    assert verify(credentials(base + ", algorithm=MD5"), "REGISTER", "p")
    assert verify(credentials(base + ', algorithm="md5"'), "REGISTER", "p")
    # qop named but its parts missing: neither form, so it is wrong
    assert not verify(credentials(base + ", qop=auth"), "REGISTER", "p")


@pytest.mark.parametrize("nc", ["1", "0000000A", "0000000a", "00000001", "10"])
def test_reg03_nc_hashed_literally(nc: str) -> None:
    ha1, ha2 = md5(f"{USER}:{REALM}:p"), md5(f"REGISTER:{URI}")
    response = md5(f"{ha1}:n:{nc}:cn:auth:{ha2}")
    for form in (nc, f'"{nc}"'):
        given = credentials(
            f'Digest username="{USER}", realm="{REALM}", nonce="n", uri="{URI}", response="{response.upper()}", '
            f'qop="auth", nc={form}, cnonce="cn"'
        )
        assert given.nc == nc
        assert given.nc_value == int(nc, 16)
        assert verify(given, "REGISTER", "p")


@pytest.mark.parametrize("nc", ["", "x", "-1", "1" * 17, "1 "])
def test_reg03_nc_without_a_number(nc: str) -> None:
    assert Credentials("u", "r", "n", "x", "y", nc=nc).nc_value is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Digest",
        "Digest ",
        "Basic dTpw",
        "NoOneKnowsThisScheme opaque-data=here",
        'Digest realm="r", nonce="n", uri="u", response="x"',
        'Digest username="u", nonce="n", uri="u", response="x"',
        'Digest username="u", realm="r", uri="u", response="x"',
        'Digest username="u", realm="r", nonce="n", response="x"',
        'Digest username="u", realm="r", nonce="n", uri="u"',
        'Digest username="u", realm="r", nonce="n", uri="u", response=""',
        'Digest username="u realm=r',
        "Digest ,,,,",
        "Digest =",
        'Digest "',
    ],
)
def test_reg04_incomplete_credentials_are_none(value: str) -> None:
    assert parse_credentials(value) is None


def test_credentials_are_read_leniently() -> None:
    given = credentials(
        f'dIGEST  Username={USER} ,realm = "{REALM}",, nonce="n" uri="{URI}",response=abc,'
        'algorithm="MD5",response="second"'
    )
    assert (given.username, given.realm, given.nonce, given.uri) == (USER, REALM, "n", URI)
    assert given.response == "abc"
    assert "abc" not in repr(given)


def test_s02_no_silent_downgrade() -> None:
    value = answer(Challenge(REALM, "n", "MD5", ""), "REGISTER", URI, USER, "p")
    given = credentials(value)
    assert verify(given, "REGISTER", "p", algorithm="MD5")
    assert not verify(given, "REGISTER", "p", algorithm="SHA-256")
    unknown = credentials(value.replace("algorithm=MD5", "algorithm=SM3"))
    assert not verify(unknown, "REGISTER", "p")
    auth_int = credentials(value + ", qop=auth-int, nc=00000001, cnonce=x")
    assert not verify(auth_int, "REGISTER", "p")


def test_verify_takes_any_text() -> None:
    assert not verify(Credentials("用户", "r", "n", "u", "响应\ud800"), "REGISTER", "密码\ud800")


def test_challenge_header() -> None:
    assert Challenge("r", "n").header() == 'Digest realm="r", nonce="n", algorithm=MD5, qop="auth"'
    assert Challenge("r", "n", "", "").header() == 'Digest realm="r", nonce="n"'
    assert "stale=true" in Challenge("r", "n", stale=True).header()


@pytest.mark.parametrize(
    "challenge",
    [
        Challenge('r"x', "n"),
        Challenge("r", 'n"'),
        Challenge("r\r\nX: y", "n"),
        Challenge("r\0", "n"),
        Challenge("r", "n", "SM3"),
        Challenge("r", "n", qop="auth-int"),
    ],
)
def test_challenge_that_cannot_be_written(challenge: Challenge) -> None:
    with pytest.raises(LocalProtocolError):
        challenge.header()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Digest realm="64010000",nonce="6fe9ba44"', Challenge("64010000", "6fe9ba44", "", "")),
        (
            'Digest realm="r", nonce="n", algorithm=sha-256, qop="auth,auth-int", stale=TRUE',
            Challenge("r", "n", "SHA-256", "auth", "", True),
        ),
        ('digest nonce="n", realm=""', Challenge("", "n", "", "")),
        ('Digest realm="a\\"b", nonce="n"', Challenge('a\\"b', "n", "", "")),
        ('Digest realm="r"', None),
        ('Digest nonce="n"', None),
        ('Digest realm="r", nonce="n", algorithm=SM3', None),
        ('Digest realm="r", nonce="n", qop="auth-int"', None),
        ('Basic realm="r"', None),
        ("", None),
    ],
)
def test_parse_challenge(value: str, expected: Challenge | None) -> None:
    assert parse_challenge(value) == expected


def test_escapes_stay_as_they_are_on_the_wire() -> None:
    challenge = parse_challenge('Digest realm="a\\"b", nonce="n"')
    assert challenge is not None
    value = answer(challenge, "REGISTER", URI, "u", "p")
    assert 'realm="a\\"b"' in value
    assert verify(credentials(value), "REGISTER", "p")


def test_answer_refuses_what_cannot_be_written() -> None:
    with pytest.raises(LocalProtocolError):
        answer(Challenge("r", "n"), "REGISTER", URI, "u", "p")
    with pytest.raises(LocalProtocolError):
        answer(Challenge("r", "n", "SM3", ""), "REGISTER", URI, "u", "p")
    with pytest.raises(LocalProtocolError):
        answer(Challenge("r", "n", qop=""), "REGISTER", URI, 'u"', "p")
