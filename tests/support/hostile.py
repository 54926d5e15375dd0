"""What attackers send, and how a gateway under attack is looked at from outside."""

from __future__ import annotations

import itertools
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av

from gb28181gw.media.tracks import Codec
from gb28181gw.media.wire.ps_mux import PsMuxer
from tests.support.gateway import DEADLINE_SCALE, GatewayProcess, wait_until
from tests.support.media import video_clip
from tests.support.plane import RtpSource
from tests.support.raw_sip import catalogue, fresh_host, keepalive, request

GOOD = "34020000001180000001"
WIDTH, HEIGHT = 640, 360
FORGED_WIDTH, FORGED_HEIGHT = 320, 240
SEED = 4475
AT_ONCE = {"analyzeduration": "100000"}
"""ffmpeg looks at five seconds of a stream without sound before it gives the first picture."""


# ---- looking at the gateway


class Viewer:
    """Reads the good device's stream from beginning to end and notes each picture."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.times_ms: list[int] = []
        self.odd: list[str] = []
        """Pictures that are not those of the device, and the end of the stream."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with av.open(self._url, timeout=20 * DEADLINE_SCALE, options=AT_ONCE) as source:
                for packet in source.demux(video=0):
                    if self._closing:
                        return
                    if packet.dts is None:
                        break
                    for picture in packet.decode():
                        if (picture.width, picture.height) != (WIDTH, HEIGHT) or picture.is_corrupt:
                            self.odd.append(f"{picture.width}x{picture.height} at {packet.dts}")
                    self.times_ms.append(packet.dts)
        except Exception as error:
            self.odd.append(repr(error))
        self.odd.append("the stream ended")

    def check(self) -> None:
        """Pictures go on, and since the beginning each came 40 ms after the one before."""
        seen = len(self.times_ms)
        wait_until(lambda: self.odd or len(self.times_ms) >= seen + 3, "the next pictures of the device")
        assert self.odd == []
        times = list(self.times_ms)
        steps = {after - before for before, after in itertools.pairwise(times)}
        assert steps == {40}, steps

    def close(self) -> None:
        self._closing = True
        self._thread.join(10 * DEADLINE_SCALE)


def metric(gateway: GatewayProcess, *names: str) -> float:
    """Sum of these metrics (without the prefix) over all their labels."""
    answer = gateway.api.get("/metrics")
    assert answer.status_code == 200
    total = 0.0
    for name in names:
        found = re.findall(rf"(?m)^gb28181gw_{re.escape(name)}(?:{{.*}})? (\S+)$", answer.text)
        assert found, name
        total += sum(map(float, found))
    return total


@contextmanager
def counted(gateway: GatewayProcess, *names: str, at_least: int = 1) -> Iterator[None]:
    """These metrics grow together by at least so much."""
    before = metric(gateway, *names)
    yield
    grown = metric(gateway, *names) - before
    assert grown >= at_least, (names, grown)


def resident_kb(gateway: GatewayProcess) -> int:
    assert gateway.process is not None
    text = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1])


def media_ports(gateway: GatewayProcess) -> list[int]:
    """Even ports of the media range that the gateway has bound for UDP."""
    assert gateway.process is not None
    first, last = map(int, str(gateway.settings["media"]["ports"]).split("-"))
    own = {link.readlink().name for link in Path(f"/proc/{gateway.process.pid}/fd").iterdir()}
    bound = []
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        port = int(fields[1].rpartition(":")[2], 16)
        if first <= port <= last and port % 2 == 0 and f"socket:[{fields[9]}]" in own:
            bound.append(port)
    return bound


def sizes_of(url: str, count: int = 10) -> set[tuple[int, int]]:
    """Sizes of the first pictures of a play URL."""
    sizes: set[tuple[int, int]] = set()
    seen = 0
    with av.open(url, timeout=20 * DEADLINE_SCALE, options=AT_ONCE) as source:
        for picture in source.decode(video=0):
            sizes.add((picture.width, picture.height))
            seen += 1
            if seen >= count:
                break
    return sizes


# ---- SIP and XML


def mutations(rng: random.Random, sound: bytes, count: int) -> Iterator[bytes]:
    """The message with a few octets changed, cut out, doubled, or cut short."""
    for _ in range(count):
        data = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 20)]
            elif kind == 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            else:
                data[at:at] = rng.choice((b"\r\n", b"\0", b",", b";", b"<", b'"', b"\xff\xfe", b"%", b" "))
            if not data:
                break
        yield bytes(data[: rng.randint(1, len(data))] if data and rng.random() < 0.2 else data)


def notify(inside: str, head: str = '<?xml version="1.0" encoding="GB2312"?>\r\n') -> bytes:
    return f"{head}<Notify><CmdType>Alarm</CmdType><SN>7</SN><DeviceID>1</DeviceID>{inside}</Notify>".encode()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMBS: dict[str, bytes] = {
    "doctype": notify("", "<!DOCTYPE Notify [<!ELEMENT Notify ANY>]>"),
    "doctype_in_capitals_with_blanks": notify("", "<! dOcTyPe Notify>"),
    "external_doctype": notify("", '<!DOCTYPE Notify SYSTEM "http://127.0.0.1/x.dtd">'),
    "external_entity": notify("&x;", '<!DOCTYPE Notify [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    "parameter_entity": notify("", '<!DOCTYPE Notify [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]>'),
    "billion_laughs": notify("&l9;", f'<!DOCTYPE Notify [<!ENTITY l0 "lol">{LAUGHS}]>'),
    "quadratic": notify("&q;" * 8_000, f'<!DOCTYPE Notify [<!ENTITY q "{"q" * 20_000}">]>'),
    "doctype_behind_the_document": notify("") + b'<!DOCTYPE x [<!ENTITY y "z">]><x>&y;</x>',
    "doctype_between_zeros": b"\0".join(
        bytes((octet,)) for octet in notify("", "<!DOCTYPE Notify [<!ENTITY x 'y'>]>")
    ),
    "17_levels": notify("<a>" * 16 + "</a>" * 16),
    "9,000_levels": notify("<a>" * 9_000),
    "40,001_raw_angles": notify("<" * 40_001),
    "20,001_bare_ampersands": notify("&" * 20_001 + "<"),
    "tag_of_40_KB": notify("<a " + "b" * 40_000 + ">"),
    "no_xml": b"\xff" * 60_000,
    "no_root": b"<a/>" * 10_000,
    "open_comment": b"<!--" + b"-" * 50_000,
    "open_cdata": b"<Notify><![CDATA[" + b"]" * 50_000,
    "only_zeros": b"\0" * 50_000,
}
"""From the bound path: 400 and `message.invalid`, over UDP and TCP."""
HARMLESS: dict[str, bytes] = {
    "overlong_utf8_angle": notify("<Info>").replace(b"<Info>", b"\xc0\xbcInfo\xc0\xbe"),
    "overlong_utf8_doctype": b"\xc0\xbc!DOCTYPE x>" + notify(""),
    "surrogates": notify("<Info>\\</Info>").replace(b"\\", b"\xed\xa0\x80\xed\xb0\x80"),
    "declared_utf16": notify("", '<?xml version="1.0" encoding="UTF-16"?>'),
    "declared_nonsense": notify("", '<?xml version="1.0" encoding="../../etc/passwd"?>'),
    "half_gb18030": notify("<Info>\\</Info>").replace(b"\\", b"\x81\x30\x81"),
    "10,000_attributes": notify("<a " + " ".join(f'a{n}="1"' for n in range(5_000)) + "/>"),
    "numeric_references": notify("<Info>&#0;&#x1F;&#xD800;&#9999999;&#xFFFFFFFF;</Info>"),
    "unclosed": notify("<a><b><c>")[:-20],
}
"""Odd, and read as far as they can be: 200."""
BIG: dict[str, bytes] = {
    "100,000_levels": notify("<a>" * 100_000),
    "30,000_elements": notify("<a/>" * 50_000),
    "megabyte_of_angles": notify("<" * 1_000_000),
    "megabyte_of_references": notify("&#65;" * 200_000 + "<"),
    "megabyte_of_laughs": notify("&l9;" * 200_000, f'<!DOCTYPE Notify [<!ENTITY l0 "lol">{LAUGHS}]>'),
}
"""Over 128 KB, by TCP: taken with 200, read apart, and refused there."""


def forged_bodies(device_id: str, channel: str) -> list[bytes]:
    """What a device may say, with content that would show."""
    stolen = "34020000001320009999"
    head = f"<SN>1</SN><DeviceID>{device_id}</DeviceID>"
    texts = [
        f"<Notify><CmdType>MediaStatus</CmdType>{head}<NotifyType>121</NotifyType></Notify>",
        f"<Notify><CmdType>Alarm</CmdType>{head}<AlarmPriority>1</AlarmPriority></Notify>",
        f"<Notify><CmdType>Catalog</CmdType>{head}<SumNum>1</SumNum><DeviceList Num='1'><Item><DeviceID>{channel}"
        "</DeviceID><Event>DEL</Event></Item></DeviceList></Notify>",
        f"<Response><CmdType>DeviceInfo</CmdType>{head}<Manufacturer>Forged</Manufacturer></Response>",
        f"<Response><CmdType>DeviceStatus</CmdType>{head}<Online>OFFLINE</Online></Response>",
        f"<Notify><CmdType>MobilePosition</CmdType>{head}<Longitude>1</Longitude></Notify>",
        f"<Control><CmdType>DeviceControl</CmdType>{head}<TeleBoot>Boot</TeleBoot></Control>",
    ]
    return [
        keepalive(device_id),
        keepalive(device_id).replace(b"OK", b"ERROR"),
        catalogue(device_id, [stolen], 1, total=2**31),
        *(text.encode() for text in texts),
    ]


# ---- media


class Camera:
    """Sends a clip at 25 pictures a second until it is closed."""

    def __init__(self, send: Callable[[bytes], object], ssrc: int) -> None:
        self._send = send
        self._rtp = RtpSource(ssrc=ssrc, sequence=30_000, muxer=PsMuxer(video=Codec.H264))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        clip = video_clip(width=WIDTH, height=HEIGHT, gop=25)
        due = time.monotonic()
        while True:
            for frame in clip:
                with suppress(OSError):
                    for packet in self._rtp.packets(frame):
                        self._send(packet)
                due += 0.04
                if self._closing.wait(max(0.0, due - time.monotonic())):
                    return
            self._rtp.start_90k += 3600 * len(clip)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(5 * DEADLINE_SCALE)

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forged_rtp(ssrc: int, *, sequence: int = 1, count: int = 0) -> list[bytes]:
    """Sound RTP of other pictures."""
    clip = video_clip(width=FORGED_WIDTH, height=FORGED_HEIGHT, gop=5, frames=25)
    packets = RtpSource(ssrc=ssrc, sequence=sequence).all(list(clip))
    return packets[:count] if count else packets


def rtcp(ssrc: int) -> list[bytes]:
    """Sender report, BYE and nonsense with the right SSRC."""
    ours = ssrc.to_bytes(4, "big")
    report = b"\x80\xc8\x00\x06" + ours + bytes(20)
    return [
        report,
        b"\x81\xcb\x00\x01" + ours,
        report + b"\x81\xcb\x00\x01" + ours,
        b"\x9f\xc9\xff\xff" + ours,
        b"\x80\xc8",
    ]


def loopback_udp(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def nothing_came(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        sock.recv(2_000)
    except BlockingIOError:
        return True
    return False


# ---- web


def loopback_tcp(host: str, port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), source_address=(host, 0))
    connection.settimeout(5 * DEADLINE_SCALE)
    return connection


def half_http(port: int, head: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), source_address=(fresh_host(), 0))
    connection.sendall(head)
    connection.settimeout(0.01)
    return connection


def recv_or_reset(connection: socket.socket) -> bytes:
    """Empty at the end of the connection, however it ended. Raises TimeoutError."""
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def ask(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((line + b" HTTP/1.1", b"Host: a", *fields, b"", b"")) + body


WEB: dict[str, bytes] = {
    "head_of_100_KB": ask(b"GET /live/a_b.flv", b"X: " + b"a" * 100_000),
    "10,000_fields": ask(b"GET /live/a_b.flv", *[b"X: y"] * 10_000),
    "path_of_100_KB": ask(b"GET /" + b"a" * 100_000),
    "no_http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    "sip": request("OPTIONS", GOOD),
    "bad_method": ask(b"G\0T /"),
    "bad_version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "zero_in_a_value": ask(b"GET /", b"X: a\0b"),
    "two_lengths": ask(b"POST /", b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "negative_length": ask(b"POST /", b"Content-Length: -1"),
    "bad_chunk": ask(b"POST /", b"Transfer-Encoding: chunked", body=b"zz\r\nab\r\n0\r\n\r\n"),
    "length_and_chunks": ask(
        b"GET /live/x", b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "traversal": ask(b"GET /live/..%2f..%2f..%2fetc%2fpasswd"),
    "not_utf8": ask(b"GET /live/%ff%fe%00.flv?token=%ff&audio=%00"),
    "absolute": ask(b"GET http://169.254.169.254/live/a.flv"),
    "strange_target": ask(b"GET *"),
    "connect": ask(b"CONNECT 127.0.0.1:22"),
    "websocket_without_key": ask(b"GET /live/a_b.flv", b"Upgrade: websocket", b"Connection: Upgrade"),
    "upgrade_to_nothing": ask(
        b"GET /x", b"Upgrade: h2c", b"Connection: Upgrade", body=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    ),
    "bad_origin": ask(b"GET /live/a_b.flv", b"Origin: http://[::1"),
    "bad_key": ask(b"GET /live/a_b.flv", b"Authorization: Bearer \xff\xfe"),
    "pipelined": ask(b"GET /nothing") * 200 + b"\xff\xff\r\n\r\n",
}


def answer_of(port: int, data: bytes) -> bytes:
    """What a web client gets that sends this and then no more."""
    with loopback_tcp(fresh_host(), port) as connection:
        with suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := recv_or_reset(connection):
            answer += piece
        return answer
