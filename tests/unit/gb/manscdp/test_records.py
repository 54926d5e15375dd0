"""RecordInfo (GB/T 28181-2022 A.2.4.5, A.2.6.7): order of elements, zones, what devices get wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.records import (
    Record,
    RecordInfoQuery,
    RecordInfoResponse,
    read_record_info_query,
    read_record_info_response,
    write_record_info_query,
    write_record_info_response,
)
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk

CHANNEL = "34020000001320000001"
START, END = datetime(2024, 5, 1, 0, 0, tzinfo=UTC), datetime(2024, 5, 1, 0, 30, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))


def query(**changes: object) -> RecordInfoQuery:
    values: dict[str, object] = {"sn": 54, "device_id": CHANNEL, "start": START, "end": END, **changes}
    return RecordInfoQuery(**values)  # type: ignore[arg-type]


def test_pb03_a_query_in_the_order_of_the_standard_with_its_type() -> None:
    body = write_record_info_query(query(), Charset.GB2312, Edition.V2_0).decode()
    assert "".join(body.split("\r\n")[1:]) == (
        f"<Query><CmdType>RecordInfo</CmdType><SN>54</SN><DeviceID>{CHANNEL}</DeviceID>"
        "<StartTime>2024-05-01T08:00:00</StartTime><EndTime>2024-05-01T08:30:00</EndTime>"
        "<Secrecy>0</Secrecy><Type>all</Type></Query>"
    )


def test_pb02_times_are_in_the_zone_of_the_device() -> None:
    body = write_record_info_query(query(), Charset.GB2312, Edition.V2_0, TOKYO)
    assert b"<StartTime>2024-05-01T09:00:00</StartTime>" in body
    assert read_record_info_query(parse(body), TOKYO) == query()


def test_a_fuzzy_query_only_for_editions_that_have_it() -> None:
    assert b"IndistinctQuery" in write_record_info_query(query(fuzzy=True), Charset.GB2312, Edition.V2_0)
    assert b"IndistinctQuery" not in write_record_info_query(query(fuzzy=True), Charset.GB2312, Edition.V1_0)


def test_a_query_without_a_span_is_not_written() -> None:
    with pytest.raises(GbLocalError):
        write_record_info_query(query(end=None), Charset.GB2312, Edition.V2_0)


def test_an_answer_both_ways() -> None:
    answer = RecordInfoResponse(
        sn=54,
        device_id=CHANNEL,
        name="东门",
        total=9,
        records=(
            Record(
                device_id=CHANNEL,
                name="东门",
                start=START,
                end=END,
                kind="time",
                size=1234,
                file_path="/a&b/<1>",
                recorder_id="admin",
                location=CHANNEL,
            ),
            Record(device_id=CHANNEL, name="x"),
        ),
    )
    read = read_record_info_response(parse(write_record_info_response(answer, Charset.GB18030)))
    assert read == answer


def test_nothing_found_has_no_list() -> None:
    body = write_record_info_response(RecordInfoResponse(sn=1, device_id=CHANNEL, name="x"), Charset.GB18030)
    assert b"RecordList" not in body
    assert b"<SumNum>0</SumNum>" in body


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-05-01T08:00:00", 0),
        ("2024-5-1 8:0:0", 0),
        ("2024-05-01T08:00:00.500", 0.5),
        ("2024-05-01T00:00:00Z", 0),
        ("2024-05-01T09:00:00+09:00", 0),
    ],
)
def test_pb01_times_in_every_form(text: str, seconds: float) -> None:
    item = f"<Item><DeviceID>{CHANNEL}</DeviceID><StartTime>{text}</StartTime></Item>"
    body = f"<Response><CmdType>RecordInfo</CmdType><SN>1</SN><RecordList>{item}</RecordList></Response>"
    found = read_record_info_response(parse(body.encode()))
    assert found.records[0].start == START + timedelta(seconds=seconds)
    assert found.total is None


def test_pb18_odd_values_are_tolerated_and_named() -> None:
    item = "<Item><Name> n </Name><Secrecy> 0 </Secrecy><Type>3</Type><FileSize>many</FileSize></Item>"
    body = (
        f"<Response><CmdType>RecordInfo</CmdType><SN>1</SN><DeviceID>{CHANNEL}</DeviceID><SumNum>-3</SumNum>"
        f"<RecordList Num='1'>{item}</RecordList></Response>"
    )
    found = read_record_info_response(parse(body.encode()))
    record = found.records[0]
    assert (record.device_id, record.name, record.kind, record.size) == (CHANNEL, "n", "time", None)
    assert found.total is None
    assert Quirk.RECORD_FORM in found.quirks
