"""Every message of the annex: what is written is read as it was; whatever damage raises the documented errors only.

The seeds are the golden files and one answer to each command as a device sends it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gb28181gw.api.command_schemas import ANSWERS
from gb28181gw.devices.assembly import ConfigParts, Parts
from gb28181gw.gb.dialect import Dialect, Edition
from gb28181gw.gb.exceptions import EditionError, GbLocalError, XmlParseError
from gb28181gw.gb.manscdp.alarm import read_alarm_notify
from gb28181gw.gb.manscdp.commands import COMMANDS, Answer, read_answer, says_nothing, write_command
from gb28181gw.gb.manscdp.configs import CONFIG_TYPES
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.keepalive import read_keepalive
from gb28181gw.gb.manscdp.media_status import read_media_status
from gb28181gw.gb.manscdp.messages import read
from gb28181gw.gb.manscdp.position import read_position_notify
from gb28181gw.gb.manscdp.presets import read_preset_response
from gb28181gw.gb.manscdp.schema import Group, Kind, Leaf, Node, Style, differences, read_values, write_values
from gb28181gw.gb.manscdp.writer import Writer
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.gb.quirks import Quirk
from gb28181gw.gb.version import detect_edition
from tests.fuzz.test_fuzz_gb import mutated
from tests.support.gb import body
from tests.support.golden import CHANNEL, SESSION, all_golden

ZONE = timezone(timedelta(hours=8))
WORDS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x9FA5, exclude_categories=("C", "Z")),
    min_size=1,
    max_size=8,
)


# -- values of any shape that a table of nodes allows ------------------------------------------------------------


def leaf_values(node: Leaf) -> st.SearchStrategy[Any]:
    match node.kind:
        case Kind.INT:
            return st.integers(int(node.low or 0), int(min(node.high or 1000, 100_000)))
        case Kind.NUMBER:
            return st.integers(int(node.low or 0), int(node.high or 90)).map(float)
        case Kind.TIME:
            return st.just("2024-05-01T08:30:00")
        case Kind.PTZ:
            return st.just("A50F0001400000F5")
        case Kind.METHODS:
            return st.sampled_from(["0", "1/2", "1/2/5"])
        case Kind.ID:
            return st.just(CHANNEL)
    if node.choices:
        return st.sampled_from(node.choices)
    if node.pattern:
        return st.just("1,2,3,4" if node.name == "Point" else SESSION)
    return WORDS


def group_values(nodes: tuple[Node, ...], edition: Edition, *, told: bool = False) -> st.SearchStrategy[Any]:
    """`told`: of an answer, so what only devices say is there too."""
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for node in nodes:
        if (node.answer_only and not told) or not node.since <= edition <= node.until:
            continue
        if isinstance(node, Leaf) and (node.count_of or node.free):
            continue
        one = leaf_values(node) if isinstance(node, Leaf) else group_values(node.members, edition, told=told)
        made = st.lists(one, min_size=1, max_size=2) if node.many else one
        (required if node.required else optional)[node.name] = made
    return st.fixed_dictionaries(required, optional=optional)


def without_empty(value: Any) -> Any:
    """Groups without members are absent."""
    if isinstance(value, dict):
        cleaned = {name: without_empty(held) for name, held in value.items()}
        return {name: held for name, held in cleaned.items() if held not in ({}, "", [])}
    if isinstance(value, list):
        return [without_empty(held) for held in value]
    return value


def style(edition: Edition) -> Style:
    return Style(edition=edition, zone=ZONE)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), edition=st.sampled_from(list(Edition)))
def test_a2_what_is_written_is_read_in_each_edition(data: st.DataObject, edition: Edition) -> None:
    known = [name for name, row in COMMANDS.items() if row.since <= edition and name != "ConfigDownload"]
    row = COMMANDS[data.draw(st.sampled_from(known))]
    values = without_empty(data.draw(group_values(row.fields, edition)))
    charset = Dialect(edition=edition).charset_used
    try:
        octets = write_command(row, 5, CHANNEL, values, charset=charset, style=style(edition))
    except GbLocalError as error:
        assert not isinstance(error, EditionError)
        assert any(words in str(error) for words in ("at least one", "Manual needs it", "is missing"))
        return
    document = parse(octets)
    assert (document.root, document.cmd_type, document.sn) == (row.root, row.cmd_type, 5)
    assert set(document.quirks) <= {Quirk.CHARSET_BEYOND_GB2312}
    read_back = {_name(row.fields, name): value for name, value in read_values(document.element).items()}
    typed = {**read_back, **read_values(document.element, row.fields)}
    methods = {node.name for node in row.fields if isinstance(node, Leaf) and node.kind is Kind.METHODS}
    plain = {name: value for name, value in values.items() if name not in methods and name != "Info"}
    assert differences(plain, typed) == []


def _name(nodes: tuple[Node, ...], written: str) -> str:
    """The name that callers use of an element which an older edition calls otherwise."""
    for node in nodes:
        if isinstance(node, Leaf) and node.older == written:
            return node.name
    return written


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a26_every_answer_is_read_as_it_was_written(data: st.DataObject) -> None:
    """Answers of a device of 2022, written by the same tables with their `answer_only` members allowed."""
    rows = [row for row in COMMANDS.values() if row.answer is not Answer.NONE]
    row = data.draw(st.sampled_from(rows))
    values = without_empty(data.draw(group_values(row.response, Edition.V3_0, told=True)))
    writer = Writer("Response", row.cmd_type, 7, CHANNEL)
    write_values(writer, _tellable(row.response), values, style(Edition.V3_0))
    document = parse(writer.finish(Dialect(edition=Edition.V3_0).charset_used))
    answer = read_answer(row, document)
    assert differences(values, answer) == []
    ANSWERS[row.name].model_validate({**answer, **OUTCOME, "command": row.name})


def _tellable(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes as a device may write them."""
    return tuple(
        replace(node, answer_only=False, members=_tellable(node.members))
        if isinstance(node, Group)
        else replace(node, answer_only=False)
        for node in nodes
    )


OUTCOME: dict[str, Any] = {
    "device_id": CHANNEL,
    "channel_id": None,
    "answered": True,
    "partial": False,
    "missing": [],
    "applied": None,
    "differences": [],
    "note": "",
}


# -- damage -------------------------------------------------------------------------------------------------------


def answers() -> list[bytes]:
    """One answer to each command, with everything in it."""
    item = "<Item><DeviceID>1</DeviceID><Name>n</Name><PresetID>1</PresetID><ID>1</ID></Item>"
    inner = (
        "<Result>OK</Result><Reason>r</Reason><SumNum>2</SumNum><Online>ONLINE</Online><Pan>1.5</Pan><Number>0</Number>"
        f'<DeviceList Num="1">{item}</DeviceList><RecordList Num="1">{item}</RecordList><PresetList>{item}</PresetList>'
        f'<SDCardStatusInfo>{item}</SDCardStatusInfo><Alarmstatus Num="1">{item}</Alarmstatus>'
        "<CruiseTrackList><CruiseTrack><Number>0</Number></CruiseTrack></CruiseTrackList>"
        "<CruisePointList><CruisePoint><PresetIndex>1</PresetIndex></CruisePoint></CruisePointList>"
        "<HomePosition><Enabled>1</Enabled></HomePosition><BasicParam><Name>x</Name></BasicParam>"
        "<FrameMirror>1</FrameMirror><ExtraInfo><V>1</V></ExtraInfo><ExtraInfo>two</ExtraInfo>"
    )
    return [body(inner, cmd_type=row.cmd_type) for row in COMMANDS.values()]


NOTIFIES = [
    body(
        "<AlarmPriority>1</AlarmPriority><AlarmMethod>5</AlarmMethod><AlarmTime>2024-05-01T08:30:00</AlarmTime>"
        "<Info><AlarmType>6</AlarmType><AlarmTypeParam><EventType>1</EventType></AlarmTypeParam></Info>",
        root="Notify",
        cmd_type="Alarm",
    ),
    body(
        "<Time>2024-05-01T08:30:05</Time><SumNum>1</SumNum><DeviceList Num='1'><Item><DeviceID>1</DeviceID>"
        "<CaptureTime>2024-05-01T08:30:04</CaptureTime><Longitude>117.3</Longitude><Latitude>31.8</Latitude></Item>"
        "</DeviceList>",
        root="Notify",
        cmd_type="MobilePosition",
    ),
    body("<Longitude>117.3</Longitude><Latitude>31.8</Latitude>", root="Notify", cmd_type="MobilePosition"),
    body("<Status>OK</Status>", root="Notify", cmd_type="Keepalive"),
    body("<NotifyType>121</NotifyType>", root="Notify", cmd_type="MediaStatus"),
]


def read_everything(document: Document) -> None:
    """Every reader there is, whatever the document calls itself."""
    read(document)
    detect_edition(document)
    read_keepalive(document)
    read_media_status(document)
    read_alarm_notify(document)
    read_position_notify(document)
    read_preset_response(document)
    for name, row in COMMANDS.items():
        answer = read_answer(row, document)
        says_nothing(row, answer)
        # The typed answer of the API takes whatever the reader made of it.
        ANSWERS[name].model_validate({**answer, **OUTCOME, "command": name})
        if row.answer is Answer.PARTS:
            parts = Parts(row)
            parts.take(read_answer(row, document))
            assert isinstance(parts.fields, dict)
    configs = ConfigParts(COMMANDS["ConfigDownload"], list(CONFIG_TYPES))
    configs.add(document)
    assert set(configs.missing) <= set(CONFIG_TYPES)


@settings(max_examples=250, deadline=None)
@given(data=mutated([*answers(), *NOTIFIES, *(golden.written() for golden in all_golden())]))
def test_xml06_every_reader_takes_any_damage(data: bytes) -> None:
    try:
        document = parse(data)
    except XmlParseError as error:
        assert error.reason
        return
    for part in (document, *document.following):
        read_everything(part)


def test_every_reader_takes_the_sound_ones() -> None:
    for octets in (*answers(), *NOTIFIES):
        read_everything(parse(octets))
