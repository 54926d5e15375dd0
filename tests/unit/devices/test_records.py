"""Searches for recordings: joined, queued, complete, partial, silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gb28181gw.devices.queries import Waits
from gb28181gw.devices.records import Location, RecordLimits, RecordList, Records
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.observability.events import EventBus
from tests.support.api_services import CAMERA, NVR, make_device

START = datetime(2024, 5, 1, tzinfo=UTC)
END = START + timedelta(hours=1)


def part(*minutes: int, total: int | None = None) -> Document:
    items = "".join(
        f"<Item><DeviceID>{CAMERA}</DeviceID><StartTime>2024-05-01T08:{minute:02d}:00</StartTime></Item>"
        for minute in minutes
    )
    count = "" if total is None else f"<SumNum>{total}</SumNum>"
    return parse(
        f"<Response><CmdType>RecordInfo</CmdType><SN>1</SN>{count}<RecordList>{items}</RecordList></Response>".encode()
    )


class FakeRegistry:
    def __init__(self) -> None:
        self.device = make_device()
        self.quirks: list[str] = []

    def require(self, device_id: str) -> object:
        return self.device

    def target(self, device_id: str, channel_id: str | None = None) -> None:
        return None

    def add_quirk(self, device: object, name: str, *, row: str = "") -> None:
        self.quirks.append(name)


class FakeQueries:
    """Answers with `parts`, then the last word: complete, quiet, or an error."""

    def __init__(self) -> None:
        self.parts: list[Document] = []
        self.error: GatewayError | None = None
        self.asked: list[tuple[str | None, bytes]] = []
        self.running = 0
        self.most = 0
        self.gate: asyncio.Event | None = None
        self.late_is_whole = False

    async def gather(
        self,
        device: object,
        cmd_type: str,
        write: Callable[[int], bytes],
        collect: Callable[[Document], bool],
        *,
        waits: Waits,
        channel_id: str | None = None,
        after: Callable[[], float],
    ) -> bool:
        self.asked.append((channel_id, write(7)))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            for document in self.parts:
                if collect(document) and not after():
                    return True
            return self.late_is_whole
        finally:
            self.running -= 1


def rig(
    limits: RecordLimits | None = None, registry: FakeRegistry | None = None
) -> tuple[Records, FakeQueries, EventBus]:
    queries, bus = FakeQueries(), EventBus()
    records = Records(
        registry=registry or FakeRegistry(),  # type: ignore[arg-type]  # a stand-in
        queries=queries,  # type: ignore[arg-type]  # a stand-in
        bus=bus,
        timezone="+08:00",
        limits=limits,
    )
    return records, queries, bus


async def test_parts_in_any_order_and_twice_are_one_sorted_list() -> None:
    records, queries, bus = rig()
    queries.parts = [part(30, 40, total=5), part(0, 10, total=5), part(0, 10, total=5), part(20, total=5)]
    found = await records.search(NVR, CAMERA, START, END)
    assert [record.start and record.start.minute for record in found.items] == [0, 10, 20, 30, 40]
    assert (found.partial, found.sum_num, found.answered) == (False, 5, True)
    assert bus.counts["records.partial"] == 0


async def test_missing_parts_are_said() -> None:
    records, queries, bus = rig()
    queries.parts = [part(0, total=5)]
    found = await records.search(NVR, CAMERA, START, END)
    assert (len(found.items), found.partial, found.sum_num) == (1, True, 5)
    assert bus.counts["records.partial"] == 1


async def test_pb14_what_is_recorded_is_told_where_the_list_is_whole() -> None:
    records, queries, _ = rig()
    first, last = int(START.timestamp()), int(END.timestamp())
    times = "<StartTime>2024-05-01T08:05:00</StartTime><EndTime>2024-05-01T08:15:00</EndTime>"

    def listed(total: int) -> Document:
        return parse(
            f"<Response><CmdType>RecordInfo</CmdType><SN>1</SN><SumNum>{total}</SumNum><RecordList><Item>"
            f"<DeviceID>{CAMERA}</DeviceID>{times}</Item></RecordList></Response>".encode()
        )

    queries.parts, queries.late_is_whole = [listed(1)], True
    assert await records.spans(NVR, CAMERA, first, last, centre=False) == [(first + 300.0, first + 900.0)]
    queries.parts, queries.late_is_whole = [listed(2)], False
    assert await records.spans(NVR, CAMERA, first, last, centre=True) == []
    queries.error = GatewayError("gb.sip.no_answer")
    assert await records.spans(NVR, CAMERA, first, last + 1, centre=False) == []


async def test_cat02_a_count_of_one_message_does_not_end_a_search() -> None:
    registry = FakeRegistry()
    records, queries, bus = rig(registry=registry)
    queries.parts, queries.late_is_whole = (
        [part(0, 10, total=2), part(20, 30, total=2), part(40, total=1)],
        True,
    )
    found = await records.search(NVR, CAMERA, START, END)
    assert (len(found.items), found.partial) == (5, False)
    assert "answer.more_than_announced" in registry.quirks
    assert bus.counts["records.partial"] == 0


async def test_an_answer_that_cannot_be_read_is_not_an_empty_list() -> None:
    records, queries, _ = rig()
    queries.error = GatewayError("gb.sip.bad_answer", taken=True)
    with pytest.raises(GatewayError) as caught:
        await records.search(NVR, CAMERA, START, END)
    assert caught.value.code == "gb.sip.bad_answer"


@pytest.mark.parametrize(
    ("location", "to"), [(Location.FRONT_END, CAMERA), (Location.CENTRE, None), (Location.BOTH, None)]
)
async def test_the_to_id_says_whose_recordings(location: Location, to: str | None) -> None:
    records, queries, _ = rig()
    queries.parts = [part(total=0)]
    await records.search(NVR, CAMERA, START, END, location=location)
    asked_of, body = queries.asked[0]
    assert asked_of == to
    assert f"<DeviceID>{CAMERA}</DeviceID>".encode() in body
    assert (b"IndistinctQuery" in body) is (location is Location.BOTH)


async def test_pb06_no_answer_to_a_question_that_was_taken_is_an_empty_list() -> None:
    records, queries, _ = rig()
    queries.error = GatewayError("gb.sip.no_answer", taken=True)
    found = await records.search(NVR, CAMERA, START, END)
    assert (found.items, found.answered, found.partial) == ((), False, False)
    queries.error = GatewayError("gb.sip.no_answer", taken=False)
    with pytest.raises(GatewayError):
        await records.search(NVR, CAMERA, START, END)


async def test_pb05_equal_searches_are_one_and_others_wait() -> None:
    records, queries, _ = rig()
    queries.parts, queries.gate = [part(0, total=1)], asyncio.Event()
    queries.late_is_whole = True
    same = [asyncio.create_task(records.search(NVR, CAMERA, START, END)) for _ in range(3)]
    other = asyncio.create_task(records.search(NVR, CAMERA, START, END, kind="alarm"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(queries.asked) == 1
    same[0].cancel()  # who leaves takes nothing from the others
    queries.gate.set()
    found = await asyncio.gather(same[1], same[2], other)
    assert [len(one.items) for one in found] == [1, 1, 1]
    assert (len(queries.asked), queries.most) == (2, 1)


async def test_pb05_who_comes_while_another_waits_waits_behind_it() -> None:
    records, queries, _ = rig()
    queries.parts, queries.gate = [part(0, 10, total=3), part(20, total=3)], asyncio.Event()
    late: list[asyncio.Task[RecordList]] = []

    def third(_: object) -> None:
        # The turn is given back in this moment, and the second one's.
        late.append(asyncio.create_task(records.search(NVR, CAMERA, START, END, kind="manual")))

    first = asyncio.create_task(records.search(NVR, CAMERA, START, END))
    second = asyncio.create_task(records.search(NVR, CAMERA, START, END, kind="alarm"))
    first.add_done_callback(third)
    for _ in range(5):
        await asyncio.sleep(0)
    queries.gate.set()
    await asyncio.gather(first, second)
    await asyncio.gather(*late)
    assert (len(queries.asked), queries.most) == (3, 1)


async def test_a_turn_that_never_comes_is_busy() -> None:
    records, queries, _ = rig(RecordLimits(all_s=0.05))
    queries.gate = asyncio.Event()
    first = asyncio.create_task(records.search(NVR, CAMERA, START, END))
    await asyncio.sleep(0)
    with pytest.raises(GatewayError) as caught:
        await records.search(NVR, CAMERA, START, END, kind="alarm")
    assert caught.value.code == "gb.route.busy"
    await records.close()
    assert first.cancelled() or isinstance(
        (await asyncio.gather(first, return_exceptions=True))[0], BaseException
    )
