"""What a device may upload, and how: paths, names, forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.errors import GatewayError
from gb28181gw.outputs.uploads import Upload, picture_of, safe_name

TOKEN = "t" * 32


class Ticket:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: list[tuple[str, bytes]] = []
        self.released = 0

    async def take(self, name: str, data: bytes) -> None:
        self.taken.append((name, data))

    def release(self) -> None:
        self.released += 1


class Taker:
    def __init__(self, limit: int = 100) -> None:
        self.ticket = Ticket(limit)
        self.asked: list[tuple[str, str]] = []

    def admit(self, token: str, client: str) -> Ticket:
        self.asked.append((token, client))
        return self.ticket


def form(*parts: tuple[str, bytes], boundary: str = "B") -> bytes:
    joined = b"".join(
        b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts
    )
    return joined + b"--%b--\r\n" % boundary.encode()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/upload/{TOKEN}", ""),
        (f"/upload/{TOKEN}/", ""),
        (f"/upload/{TOKEN}/a.jpg", "a.jpg"),
        (f"/upload/{TOKEN}/%2e%2e", ""),
    ],
)
async def test_paths_that_are_uploads(path: str, name: str) -> None:
    taker = Taker()
    upload = Upload(taker, path, "", 3, "192.0.2.1:5")
    assert taker.asked == [(TOKEN, "192.0.2.1:5")] and upload.fits
    upload.feed(b"ab")
    upload.feed(b"c")
    await upload.finish()
    assert taker.ticket.taken == [(name, b"abc")]


@pytest.mark.parametrize(
    "path",
    [
        "/upload/",
        "/upload/short",
        f"/upload/{TOKEN}/a/b",
        f"/upload/{TOKEN}?x",
        f"/upload/{'t' * 65}",
        "/upload/../x",
    ],
)
def test_s09_other_paths_ask_nobody(path: str) -> None:
    taker = Taker()
    with pytest.raises(GatewayError) as caught:
        Upload(taker, path, "", 3, "c")
    assert caught.value.code == "gb.route.not_found" and taker.asked == []


async def test_s05_what_is_too_large_is_not_kept() -> None:
    taker = Taker(limit=10)
    assert not Upload(taker, f"/upload/{TOKEN}", "", 1 << 30, "c").fits
    upload = Upload(taker, f"/upload/{TOKEN}", "", 0, "c")
    for _ in range(3):
        upload.feed(b"x" * 16_000)
    assert not upload.fits and not upload._body
    # Beyond the picture's own limit, within that of a form.
    other = Upload(taker, f"/upload/{TOKEN}", "", 0, "c")
    other.feed(b"x" * 11)
    with pytest.raises(GatewayError):
        await other.finish()
    other.close()
    assert taker.ticket.taken == [] and taker.ticket.released == 1


def test_of_a_form_the_file_is_taken() -> None:
    field = ('Content-Disposition: form-data; name="long"', b"y" * 50)
    file = (
        'Content-Disposition: form-data; name="f"; filename="gate.jpg"\r\nContent-Type: image/jpeg',
        b"\r\n--x\r\n\r\n",
    )
    assert picture_of(form(field, file), 'multipart/form-data; boundary="B"') == (file[1], "gate.jpg")
    assert picture_of(form(field), "Multipart/Form-Data;boundary=B") == (field[1], "")
    assert picture_of(b"raw", "multipart/form-data") == (b"raw", "")
    assert picture_of(b"nothing", "multipart/form-data; boundary=B") == (b"", "")


@given(st.binary(max_size=400).filter(lambda data: b"--B" not in data))
def test_a_picture_in_a_form_comes_out_as_it_went_in(data: bytes) -> None:
    head = 'Content-Disposition: form-data; name="f"; filename="a.jpg"'
    assert picture_of(form((head, data)), "multipart/form-data; boundary=B") == (data, "a.jpg")


@given(st.binary(max_size=400), st.text(max_size=80))
def test_whatever_comes_is_bytes_and_a_name(body: bytes, content_type: str) -> None:
    data, name = picture_of(body, content_type)
    assert len(data) <= len(body) and name == safe_name(name)


@given(st.text(max_size=200))
def test_s17_names_are_harmless(text: str) -> None:
    name = safe_name(text)
    assert len(name) <= 64 and not name.startswith(".") and not set(name) & set("/\\<>\"'&\0\r\n ")
