"""Dialects: files, what is learnt, what wins, and what is kept over a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gb28181gw.devices.dialects import dialect_of, learnable, origins_of
from gb28181gw.devices.learning import Learning
from gb28181gw.devices.models import Device, Refusal
from gb28181gw.devices.registry import DeviceChange, Registry
from gb28181gw.dialect_files import load_dialects, parse_dialect
from gb28181gw.gb.charset import Charset
from gb28181gw.gb.datum import Datum, to_wgs84
from gb28181gw.gb.dialect import DateForm, Edition, PayloadSet
from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.settings import SettingsError
from gb28181gw.storage.database import Database
from gb28181gw.storage.sqlite import SqliteDeviceStore
from tests.support.devices import FakeClock, RecordingBus, device_id

ACME = """
[match]
manufacturer = ["acme*"]

[dialect]
edition = "2.0"
qop = false
payloads = "ps-only"
"""
ID = device_id(1)


def registry_of(store: SqliteDeviceStore, *texts: str) -> tuple[Registry, RecordingBus]:
    bus = RecordingBus()
    profiles = tuple(parse_dialect(f"file{number}", text) for number, text in enumerate(texts))
    return Registry(store=store, bus=bus, clock=FakeClock(), profiles=profiles), bus


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteDeviceStore]:
    database = Database(tmp_path / "a.db")
    database.start()
    yield SqliteDeviceStore(database)
    await database.close()


# -- files ------------------------------------------------------------------------------------------------------


def test_a_file_is_read_and_fits_by_maker_or_agent_without_case() -> None:
    profile = parse_dialect("acme", ACME + "\n")
    assert profile.fits("ACME Ltd", "")
    assert not profile.fits("", "acme")
    by_agent = parse_dialect("x", '[match]\nuser_agent = ["*IPC*"]\n[dialect]\nqop = false\n')
    assert by_agent.fits("", "Acme ipc/1.0")
    assert not by_agent.fits("", "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[match", "is not TOML"),
        ("[match]\n[dialect]\nqop = false\n", "give manufacturer or user_agent"),
        ('[match]\nmanufacturer = ["**"]\n[dialect]\nqop = false\n', "would fit every device"),
        ('[match]\nmanufacturer = ["acme"]\n[dialect]\n', "dialect"),
        ('[match]\nmanufacturer = ["acme"]\n[dialect]\nspeed = "fast"\n', "has no switch 'speed'"),
        ('[match]\nmanufacturer = ["acme"]\n[dialect]\nedition = "9"\n', "'edition' cannot be '9'"),
        ('[match]\nmodel = ["acme"]\n[dialect]\nqop = false\n', "match.model"),
    ],
)
def test_a_wrong_file_is_told_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse_dialect("acme", text)


def test_the_operators_files_come_first_and_replace_packaged_ones(tmp_path: Path) -> None:
    packaged = load_dialects(tmp_path)
    assert "tp-link" in [profile.name for profile in packaged]
    folder = tmp_path / "dialects"
    folder.mkdir()
    (folder / "tp-link.toml").write_text(ACME)
    (folder / "acme.toml").write_text(ACME)
    found = load_dialects(tmp_path)
    assert [profile.name for profile in found][:2] == ["acme", "tp-link"]
    assert [profile.manufacturers for profile in found if profile.name == "tp-link"] == [("acme*",)]


def test_every_wrong_file_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "dialects"
    folder.mkdir()
    (folder / "a.toml").write_text("[match")
    (folder / "b.toml").write_bytes(b"\xff\xfe")
    (folder / "c.toml").write_text("#" * 70_000)
    with pytest.raises(SettingsError) as caught:
        load_dialects(tmp_path)
    assert [name for name in ("a.toml", "b.toml", "c.toml") if name in " ".join(caught.value.problems)] == [
        "a.toml",
        "b.toml",
        "c.toml",
    ]


def test_the_shown_files_are_those_of_the_package() -> None:
    root = Path(__file__).resolve().parents[3]
    shown = {file.name: file.read_text() for file in (root / "config/dialects").glob("*.toml")}
    packaged = {file.name: file.read_text() for file in (root / "gb28181gw/config/dialects").glob("*.toml")}
    assert shown == packaged


# -- what wins --------------------------------------------------------------------------------------------------


async def test_person_before_file_before_learnt_before_told(store: SqliteDeviceStore) -> None:
    registry, bus = registry_of(store, ACME)
    device = await registry.provision(ID, DeviceChange())
    device.detected_edition = "3.0"
    assert (dialect_of(device).edition, origins_of(device)["edition"]) == (Edition.V3_0, "learnt")
    registry.learn(device, "payloads", "extended", "test")
    assert dialect_of(device).payloads is PayloadSet.EXTENDED
    device.manufacturer = "Acme"
    registry.match_profile(device)
    assert (dialect_of(device).edition, dialect_of(device).payloads) == (Edition.V2_0, PayloadSet.PS_ONLY)
    assert origins_of(device)["payloads"] == "file"
    await registry.change(ID, DeviceChange(dialect={"edition": "1.1"}, charset="UTF-8"))
    assert (dialect_of(device).edition, dialect_of(device).charset_used) == (Edition.V1_1, Charset.UTF8)
    assert (origins_of(device)["edition"], origins_of(device)["charset"]) == ("set", "set")
    assert origins_of(device)["date"] == "default"
    (event,) = bus.of("device.profile")
    assert event["file"] == "file0"
    device.manufacturer = "Other"
    registry.match_profile(device)
    assert (device.profile, dialect_of(device).payloads) == (None, PayloadSet.EXTENDED)


async def test_what_was_learnt_is_there_after_a_restart(store: SqliteDeviceStore) -> None:
    registry, _ = registry_of(store)
    device = await registry.provision(ID, DeviceChange())
    registry.learn(device, "charset", "utf-8", "test")
    device.refused["PTZPosition@1"] = Refusal(times=2, at=12.5, by="a|b", why="silent")
    await store.save_device(device)
    again, _ = registry_of(store)
    await again.load()
    loaded = again.require(ID)
    assert (loaded.learnt, loaded.refused) == (device.learnt, device.refused)
    assert dialect_of(loaded).charset_used is Charset.UTF8


def test_switches_of_another_version_are_left_out() -> None:
    assert learnable({"charset": "utf-8", "colour": "red", "date": "soon"}) == {"charset": "utf-8"}


# -- learning ---------------------------------------------------------------------------------------------------


def document(label: str, cmd_type: str = "DeviceStatus", inner: str = "<Result>OK</Result>") -> bytes:
    return (
        f'<?xml version="1.0" encoding="{label}"?><Response><CmdType>{cmd_type}</CmdType><SN>1</SN>'
        f"<DeviceID>{ID}</DeviceID>{inner}</Response>"
    ).encode()


async def test_xml02_a_device_is_answered_in_the_character_set_that_it_writes(
    store: SqliteDeviceStore,
) -> None:
    registry, bus = registry_of(store)
    learning = Learning(registry)
    device = await registry.provision(ID, DeviceChange())
    for _ in range(2):
        learning.heard(device, parse(document("UTF-8")))
    assert dialect_of(device).charset_used is Charset.GB2312
    learning.heard(device, parse(document("GBK")))  # the label that we write: the count begins again
    for _ in range(3):
        assert not device.learnt
        learning.heard(device, parse(document("utf8")))
    assert dialect_of(device).charset_used is Charset.UTF8
    (event,) = bus.of("device.learnt")
    assert (event["switch"], event["value"]) == ("charset", "utf-8")
    for _ in range(3):
        learning.heard(device, parse(document("GB2312")))
    assert device.learnt == {}


async def test_xml02_a_label_that_lies_teaches_nothing(store: SqliteDeviceStore) -> None:
    registry, _ = registry_of(store)
    learning = Learning(registry)
    device = await registry.provision(ID, DeviceChange())
    body = document("UTF-8", inner="<Reason>东门</Reason>").decode().encode("gb18030")
    for _ in range(5):
        learning.heard(device, parse(body))
    assert device.learnt == {}


async def test_the_edition_is_learnt_from_positions_and_presets_too(store: SqliteDeviceStore) -> None:
    registry, _ = registry_of(store)
    device = await registry.provision(ID, DeviceChange())
    Learning(registry).heard(device, parse(document("GB2312", "PresetQuery", "<SumNum>0</SumNum>")))
    assert device.edition == "3.0"


async def test_inv13_the_accepted_payloads_are_remembered(store: SqliteDeviceStore) -> None:
    registry, _ = registry_of(store)
    device = await registry.provision(ID, DeviceChange())
    registry.remember_payloads(ID, PayloadSet.PS_ONLY)
    assert registry.payload_set(ID) is PayloadSet.PS_ONLY
    registry.remember_payloads(ID, PayloadSet.DEFAULT)
    assert device.learnt == {}


# -- positions --------------------------------------------------------------------------------------------------


def test_ctl04_gcj02_becomes_wgs84() -> None:
    longitude, latitude = to_wgs84(116.41024449916938, 39.91640428150164, Datum.GCJ02)
    assert (round(longitude, 6), round(latitude, 6)) == (116.404, 39.915)
    assert to_wgs84(116.4, 39.9, Datum.WGS84) == (116.4, 39.9)
    assert to_wgs84(2.35, 48.85, Datum.GCJ02) == (2.35, 48.85)  # there is no shift there


def test_ctl04_the_datum_is_a_switch() -> None:
    device = Device(id=ID, dialect={"datum": "gcj02"})
    assert dialect_of(device).datum is Datum.GCJ02
    assert dialect_of(Device(id=ID)).date is DateForm.ISO
