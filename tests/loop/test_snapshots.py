"""Pictures that a device takes and uploads: ordered over the API, received by the media listener, read over the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gb28181gw.access.roles import Role
from gb28181gw.devices import snapshots
from gb28181gw.devices.snapshots import PictureFilter
from gb28181gw.media.reference.plane import ReferencePlane
from gb28181gw.outputs.listener import ListenerConfig, MediaListener
from tests.support.commanding import Bench, bench
from tests.support.devices import until
from tests.support.outputs import Guard, Source

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40 + b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 64


@asynccontextmanager
async def uploads(path: Path, **options: Any) -> AsyncIterator[Bench]:
    """A device, and a media listener that takes its pictures."""
    async with bench(path, **options) as made:
        engine = ReferencePlane()
        listener = MediaListener(
            engine, Source(), Guard(), made.running.bus, ListenerConfig(host="127.0.0.1", port=0)
        )
        listener.uploads = made.running.snapshots
        await listener.start()
        made.running.upload_port[0] = listener.port
        try:
            yield made
        finally:
            await listener.close()
            await engine.close()


async def ordered(made: Bench, status: int = 202, **body: Any) -> dict[str, Any]:
    answer = await made.client.post(f"{made.channel_path}/snapshots", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def settled(made: Bench, order_id: str) -> dict[str, Any]:
    """The order once it does not wait any more."""
    await until(lambda: made.running.snapshots.session(order_id).state.value != "waiting")
    found: dict[str, Any] = (await made.client.get(f"/api/v1/snapshots/orders/{order_id}")).json()
    return found


async def http(port: int, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request as it stands; status and answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head += "" if "Connection" in head else "Connection: close\n"
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
    try:
        async with asyncio.timeout(5):
            line = await reader.readline()
            rest = await reader.read()
    finally:
        writer.close()
    return int(line.split()[1]), rest


def hold(made: Bench, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Any:
    """Orders that the device agreed to and does nothing about; returns the token of the latest."""

    async def agree(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(made.running.snapshots._commands, "run", agree)

    async def order() -> str:
        view = await made.running.snapshots.order(made.id, made.channel, **asked)
        return made.running.snapshots._sessions[view.id].token

    return order


async def test_r139_pictures_are_ordered_uploaded_listed_and_read(tmp_path: Path) -> None:
    async with uploads(tmp_path) as made:
        order = await ordered(made, count=2, interval_s=1)
        assert (order["state"], order["asked"], order["channel_id"]) == ("waiting", 2, made.channel)
        done = await settled(made, order["id"])
        assert (done["state"], done["received"], len(done["pictures"])) == ("complete", 2, 2)
        found = (await made.client.get(f"/api/v1/snapshots?order_id={order['id']}")).json()
        assert found["total"] == 2
        picture = found["items"][0]
        assert picture["name"].startswith(f"{made.channel}02") and picture["content_type"] == "image/jpeg"
        image = await made.client.get(picture["path"])
        assert image.headers["content-type"] == "image/jpeg"
        assert image.content[:3] == b"\xff\xd8\xff" and len(image.content) == picture["size"]
        await until(lambda: made.running.bus.of("device.snapshots"))
        (told,) = made.running.bus.of("device.snapshots")
        assert told["session"] == order["id"] and len(told["files"]) == 2
        assert len(made.running.bus.of("snapshot.received")) == 2
        for query, total in (
            (f"device_id={made.id}", 2), (f"channel_id={made.channel}&size=1", 2), ("device_id=x", 0),
            ("start=2099-01-01T00:00:00", 0), ("end=2099-01-01T00:00:00", 2),
        ):  # fmt: skip
            assert (await made.client.get(f"/api/v1/snapshots?{query}")).json()["total"] == total, query


async def test_a257_a_device_whose_uploads_fail_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:  # nobody listens
        order = await ordered(made)
        assert (await settled(made, order["id"]))["state"] == "failed"
        assert made.sim.noted("snapshot_lost")


async def test_an_older_device_has_no_snapshots(tmp_path: Path) -> None:
    async with uploads(tmp_path, edition="2.0") as made:
        problem = await ordered(made, 409)
        assert problem["code"] == "gb.route.edition"
        assert not made.running.snapshots._by_token


@pytest.mark.parametrize("body", [{"count": 0}, {"count": 11}, {"interval_s": 0}, {"other": 1}])
async def test_a2124_one_to_ten_pictures(tmp_path: Path, body: dict[str, int]) -> None:
    async with uploads(tmp_path) as made:
        await ordered(made, 422, **body)


@pytest.mark.parametrize("form", ["put", "post", "named", "chunked", "multipart", "continue"])
async def test_r140_every_way_of_uploading_by_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    async with uploads(tmp_path) as made:
        token = await hold(made, monkeypatch)()
        port = made.running.upload_port[0]
        head, body, name = f"Host: x\nContent-Length: {len(JPEG)}\nConnection: close\n", JPEG, ""
        line = f"PUT /upload/{token} HTTP/1.1\n"
        if form == "post":
            line = f"POST /upload/{token}?time=1 HTTP/1.1\n"
        elif form == "named":
            line, name = f"PUT /upload/{token}/..%2f..%2fgate%20one.jpg HTTP/1.1\n", "gate_one.jpg"
        elif form == "chunked":
            head = "Host: x\nTransfer-Encoding: chunked\nConnection: close\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(JPEG), JPEG)
        elif form == "multipart":
            text = b'--B1\r\nContent-Disposition: form-data; name="t"\r\n\r\n1\r\n--B1\r\n'
            text += b'Content-Disposition: form-data; name="f"; filename="C:\\p\\gate.jpg"\r\n\r\n'
            body, name = text + JPEG + b"\r\n--B1--\r\n", "gate.jpg"
            line = f"POST /upload/{token} HTTP/1.1\n"
            head = f"Host: x\nContent-Type: multipart/form-data; boundary=B1\nContent-Length: {len(body)}\n"
            head += "Connection: close\n"
        elif form == "continue":
            head += "Expect: 100-continue\n"
        status, rest = await http(port, line + head, body)
        if form == "continue":
            assert status == 100 and b"HTTP/1.1 200" in rest
        else:
            assert status == 200
        (picture,), _ = await made.running.snapshots.pictures(PictureFilter())
        assert picture.name == name
        assert (await made.running.snapshots.picture(picture.id))[1] == JPEG


async def test_s09_without_a_live_session_nothing_is_written_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_PICTURE_BYTES", 20_000)
    async with uploads(tmp_path) as made:
        order = hold(made, monkeypatch)
        token, port = await order(), made.running.upload_port[0]

        async def put(path: str, body: bytes, method: str = "PUT") -> int:
            return (
                await http(port, f"{method} {path} HTTP/1.1\nHost: x\nContent-Length: {len(body)}\n", body)
            )[0]

        assert await put(f"/upload/{'A' * 32}", JPEG) == 404
        assert await put("/upload/", JPEG) == 404
        assert await put(f"/upload/{token}/a/b", JPEG) == 404
        assert await put("/live/x_y.flv", JPEG) == 413
        assert await put(f"/upload/{token}", JPEG, "PATCH") == 413
        assert await put(f"/upload/{token}", b"<html>" + JPEG) == 422
        assert await put(f"/upload/{token}", b"MZ") == 422
        assert await put(f"/upload/{token}", JPEG * 4) == 413
        # The secret of an upload reads nothing.
        assert (await http(port, f"GET /upload/{token} HTTP/1.1\nHost: x\n"))[0] == 404
        assert (await made.running.snapshots.pictures(PictureFilter()))[1] == 0
        assert not (tmp_path / "snapshots").exists()
        # It is good for what was asked for, and no longer than the session lives.
        assert await put(f"/upload/{token}", PNG) == 200
        assert await put(f"/upload/{token}", JPEG) == 404
        late = await order()
        for session in made.running.snapshots._by_token.values():
            session.until = 0.0
        assert await put(f"/upload/{late}", JPEG) == 404
        assert {event["reason"] for event in made.running.bus.of("snapshot.refused")} == {
            "no_session", "too_many", "no_picture",
        }  # fmt: skip
        assert made.running.snapshots._uploads == 0


async def test_i2_an_upload_that_breaks_off_gives_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with uploads(tmp_path) as made:
        token, port = await hold(made, monkeypatch)(), made.running.upload_port[0]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"PUT /upload/{token} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".encode() + JPEG[:99]
        )
        await until(lambda: made.running.snapshots._uploads == 1)
        writer.close()
        await until(lambda: made.running.snapshots._uploads == 0)
        assert (
            await http(port, f"PUT /upload/{token} HTTP/1.1\nHost: x\nContent-Length: {len(JPEG)}\n", JPEG)
        )[0] == 200


async def test_only_so_many_bodies_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "UPLOADS_AT_ONCE", 1)
    async with uploads(tmp_path) as made:
        order = hold(made, monkeypatch, count=2)
        token = await order()
        ticket = made.running.snapshots.admit(token, "x")
        head = f"PUT /upload/{token} HTTP/1.1\nHost: x\nContent-Length: {len(JPEG)}\n"
        assert (await http(made.running.upload_port[0], head, JPEG))[0] == 429
        ticket.release()
        ticket.release()
        assert (await http(made.running.upload_port[0], head, JPEG))[0] == 200


async def test_s03_only_the_ordered_device_finishes_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with uploads(tmp_path) as made:
        await hold(made, monkeypatch)()
        (session,) = made.running.snapshots._sessions.values()
        made.running.snapshots.finished("34020000001180000099", session.id, [])
        assert made.running.snapshots.session(session.id).state.value == "waiting"
        made.running.snapshots.finished(made.id, session.id, [])
        assert made.running.snapshots.session(session.id).state.value == "failed"


async def test_pictures_are_forgotten_by_age_and_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with uploads(tmp_path) as made:
        token = await hold(made, monkeypatch, count=3)()
        head = f"PUT /upload/{token} HTTP/1.1\nHost: x\nContent-Length: {len(JPEG)}\nConnection: close\n"
        for _ in range(3):
            assert (await http(made.running.upload_port[0], head, JPEG))[0] == 200
        store = made.running.snapshots._store
        assert await store.prune_pictures(before=0.0, max_bytes=2 * len(JPEG)) == 1
        assert len(list((tmp_path / "snapshots").iterdir())) == 2
        assert await store.prune_pictures(before=4e9, max_bytes=1 << 30) == 2
        assert not list((tmp_path / "snapshots").iterdir())
        assert (await made.running.snapshots.pictures(PictureFilter()))[1] == 0


async def test_viewers_look_and_do_not_order(tmp_path: Path) -> None:
    async with uploads(tmp_path, role=Role.VIEWER) as made:
        await ordered(made, 403)
        assert (await made.client.get("/api/v1/snapshots")).status_code == 200
        assert (await made.client.get(f"/api/v1/snapshots/{'0' * 32}/image")).status_code == 404
