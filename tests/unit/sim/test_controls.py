"""What a simulated device does about controls, and that it remembers."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.sim.bodies import Element, Identity, SimChannel, render
from gb28181gw.sim.controls import snapshots_finished
from gb28181gw.sim.queries import Reaction, react
from gb28181gw.sim.quirks import Quirk
from gb28181gw.sim.state import CONFIGS_2022, DeviceState

DEVICE = "34020000001180000001"
CHANNEL = "34020000001320000001"
ME = Identity(
    device_id=DEVICE, name="Test", server_id="34020000002000000001", channels=(SimChannel(CHANNEL, "One"),)
)
START = datetime(2024, 5, 1, 0, 30, tzinfo=UTC)


class Sim:
    """A device that is asked."""

    def __init__(self, *quirks: Quirk, edition: str = "3.0") -> None:
        self.me = replace(ME, quirks=frozenset(quirks), edition=edition)
        self.state = DeviceState()
        self.now = START

    def ask(self, root: str, command: str, extra: str = "", target: str = CHANNEL) -> Reaction:
        body = f"<{root}><CmdType>{command}</CmdType><SN>9</SN><DeviceID>{target}</DeviceID>{extra}</{root}>"
        return react(
            parse(body.encode()),
            self.me,
            self.state,
            expires_s=3600,
            keepalive_s=60.0,
            now=self.now,
            rng=random.Random(1),
            recordings=lambda start, stop: (),
        )

    def control(self, extra: str) -> Reaction:
        return self.ask("Control", "DeviceControl", extra)

    def configure(self, extra: str, target: str = DEVICE) -> Reaction:
        return self.ask("Control", "DeviceConfig", extra, target)

    def configs(self, names: str, target: str = DEVICE) -> list[Element]:
        return list(self.ask("Query", "ConfigDownload", f"<ConfigType>{names}</ConfigType>", target).answers)


def outcome(found: Reaction) -> str:
    return next(child.text for child in found.answers[0].children if child.name == "Result")


def text(answer: Element, name: str) -> str:
    """Text of the first element of this name in the answer."""
    element = parse(render(answer, "UTF-8")).element.find(f".//{name}")
    return "" if element is None else (element.text or "")


def test_a2311_motion_takes_time() -> None:
    sim = Sim()
    sim.control("<PTZCmd>A50F0001FF0000B4</PTZCmd>")
    sim.now += timedelta(seconds=1)
    answer = sim.ask("Query", "PTZPosition").answers[0]
    assert (text(answer, "Pan"), text(answer, "Tilt"), text(answer, "Zoom")) == ("60.00", "0.00", "1.00")
    sim.control("<PTZCmd>A50F0000000000B4</PTZCmd>")
    sim.now += timedelta(seconds=9)
    assert text(sim.ask("Query", "PTZPosition").answers[0], "Pan") == "60.00"


def test_a23111_a_precise_position_is_told_again() -> None:
    sim = Sim()
    sim.control("<PTZPreciseCtrl><Pan>120.50</Pan><Tilt>95</Tilt><Zoom>2.00</Zoom></PTZPreciseCtrl>")
    answer = sim.ask("Query", "PTZPosition").answers[0]
    assert (text(answer, "Pan"), text(answer, "Tilt"), text(answer, "Zoom")) == ("120.50", "90.00", "2.00")


def test_a3_cruises_scans_and_switches_are_remembered() -> None:
    sim = Sim()
    for code in ("A50F00840103003C", "A50F0087010F004B", "A50F00880100003D", "A50F008C01000041"):
        sim.control(f"<PTZCmd>{code}</PTZCmd>")
    state = sim.state.of(CHANNEL)
    assert (state.cruises[1], state.running, state.switches) == ([3], "cruise 1", {1})
    track = sim.ask("Query", "CruiseTrackQuery", "<Number>1</Number>").answers[0]
    assert (text(track, "PresetIndex"), text(track, "StayTime"), text(track, "SumNum")) == ("3", "15", "1")
    listed = sim.ask("Query", "CruiseTrackListQuery").answers[0]
    assert text(listed, "SumNum") == "2"
    for code in ("A50F00850103003D", "A50F00890100003E", "A50F008D01000042"):
        sim.control(f"<PTZCmd>{code}</PTZCmd>")
    assert (state.cruises[1], state.running, state.switches) == ([], "scan 1", set())
    sim.control("<PTZCmd>A50F00850100003A</PTZCmd>")
    assert 1 not in state.cruises


def test_a_damaged_code_moves_nothing() -> None:
    sim = Sim()
    sim.control("<PTZCmd>A50F0001FF0000B5</PTZCmd>")
    assert sim.state.of(CHANNEL).motion.is_stop


def test_a23110_home_position() -> None:
    sim = Sim()
    assert (
        outcome(sim.control("<HomePosition><Enabled>1</Enabled><ResetTime>60</ResetTime></HomePosition>"))
        == "OK"
    )
    answer = sim.ask("Query", "HomePositionQuery").answers[0]
    assert (text(answer, "Enabled"), text(answer, "ResetTime"), text(answer, "PresetIndex")) == (
        "1",
        "60",
        "",
    )


def test_recording_and_guard_show_in_the_status() -> None:
    sim = Sim()
    sim.control("<RecordCmd>Record</RecordCmd>")
    sim.control("<GuardCmd>SetGuard</GuardCmd>")
    status = sim.ask("Query", "DeviceStatus").answers[0]
    assert (text(status, "Record"), text(status, "DutyStatus")) == ("ON", "ONDUTY")
    sim.control("<RecordCmd>StopRecord</RecordCmd>")
    sim.control("<GuardCmd>ResetGuard</GuardCmd>")
    status = sim.ask("Query", "DeviceStatus").answers[0]
    assert (text(status, "Record"), text(status, "DutyStatus")) == ("OFF", "")


def test_a23113_a_card_that_was_formatted_is_empty() -> None:
    sim = Sim()
    assert text(sim.ask("Query", "SDCardStatus").answers[0], "FreeSpace") == "32768"
    assert sim.control("<FormatSDCard>0</FormatSDCard>").answers == ()
    assert text(sim.ask("Query", "SDCardStatus").answers[0], "FreeSpace") == "65536"


def test_the_other_controls() -> None:
    sim = Sim()
    assert sim.control("<TeleBoot>Boot</TeleBoot>").answers == ()
    assert sim.control("<TargetTrack>Auto</TargetTrack>").answers == ()
    assert sim.control("<DragZoomIn><Length>1</Length></DragZoomIn>").answers == ()
    assert outcome(sim.control("<AlarmCmd>ResetAlarm</AlarmCmd>")) == "OK"
    assert (sim.state.rebooted, sim.state.of(CHANNEL).tracking) == (1, "Auto")


def test_a259_an_upgrade_is_answered_and_its_end_told() -> None:
    found = Sim().control("<DeviceUpgrade><Firmware>V2</Firmware><SessionID>abc</SessionID></DeviceUpgrade>")
    assert outcome(found) == "OK"
    (later,) = found.later
    told = later(5)
    assert (text(told, "CmdType"), text(told, "SN")) == ("DeviceUpgradeResult", "5")
    assert (text(told, "SessionID"), text(told, "Firmware")) == ("abc", "V2")


@pytest.mark.parametrize("name", [name for name in CONFIGS_2022 if name != "BasicParam"])
def test_a2469_every_configuration_can_be_read(name: str) -> None:
    (answer,) = Sim().configs(name)
    assert [child.name for child in answer.children[:4]] == ["CmdType", "SN", "DeviceID", "Result"]
    assert answer.children[4].name == ("SnapShot" if name == "SnapShotConfig" else name)


def test_a247_a_response_for_each_type() -> None:
    assert [answer.children[4].name for answer in Sim().configs("BasicParam/OSDConfig/Nonsense")] == [
        "BasicParam",
        "OSDConfig",
    ]


def test_a_configuration_that_is_written_is_read() -> None:
    sim = Sim()
    assert outcome(sim.configure("<AlarmReport><FieldDetection>1</FieldDetection></AlarmReport>")) == "OK"
    (answer,) = sim.configs("AlarmReport")
    assert (text(answer, "MotionDetection"), text(answer, "FieldDetection")) == ("0", "1")
    mask = (
        '<PictureMask><On>1</On><SumNum>1</SumNum><RegionList Num="1"><Item><Seq>1</Seq><Point>1,2,3,4</Point>'
        "</Item></RegionList></PictureMask>"
    )
    sim.configure(mask)
    assert text(sim.configs("PictureMask")[0], "Point") == "1,2,3,4"
    sim.configure("<FrameMirror>3</FrameMirror>")
    assert text(sim.configs("FrameMirror")[0], "FrameMirror") == "3"
    sim.configure("<BasicParam><Name>East</Name></BasicParam>")
    assert text(sim.configs("BasicParam")[0], "Name") == "East"


def test_a_snapshot_command_is_an_order_and_has_its_end() -> None:
    config = "<SnapNum>3</SnapNum><Interval>2</Interval><UploadURL>http://x/u</UploadURL><SessionID>abc</SessionID>"
    order = Sim().configure(f"<SnapShotConfig>{config}</SnapShotConfig>").snapshots
    assert order is not None
    assert (order.count, order.interval_s, order.url, order.session) == (3, 2.0, "http://x/u", "abc")
    end = snapshots_finished(order, ["a", "b"])(3)
    assert text(end, "CmdType") == "UploadSnapShotFinished"
    assert [one.text for one in end.children[-1].children] == ["a", "b"]
    assert Sim(edition="2.0").configure(f"<SnapShotConfig>{config}</SnapShotConfig>").snapshots is None
    assert Sim().configure("<SnapShotConfig><SnapNum>3</SnapNum></SnapShotConfig>").snapshots is None


@pytest.mark.parametrize(("edition", "count"), [("1.0", 0), ("1.1", 4), ("2.0", 4), ("3.0", 12)])
def test_configurations_by_edition(edition: str, count: int) -> None:
    found = Sim(edition=edition).configs("/".join(CONFIGS_2022))
    assert sum(text(answer, "Result") == "OK" for answer in found) == count


@pytest.mark.parametrize("edition", ["1.0", "2.0"])
def test_commands_of_2022_are_nothing_to_an_older_device(edition: str) -> None:
    sim = Sim(edition=edition)
    assert sim.ask("Query", "PTZPosition") == Reaction()
    assert sim.control("<DeviceUpgrade><SessionID>a</SessionID></DeviceUpgrade>") == Reaction()


def test_ctl05_moves_nothing() -> None:
    sim = Sim(Quirk.CTL_05)
    sim.control("<PTZCmd>A50F0001FF0000B4</PTZCmd>")
    assert sim.state.of(CHANNEL).motion.is_stop


def test_ctl08_a_configuration_of_a_channel_is_not_answered() -> None:
    sim = Sim(Quirk.CTL_08)
    mirror = "<FrameMirror>1</FrameMirror>"
    assert sim.configure(mirror, CHANNEL).answers == ()
    assert outcome(sim.configure(mirror)) == "OK"


def test_ctl08_ignored_changes_nothing() -> None:
    sim = Sim(Quirk.CTL_08_IGNORED)
    assert outcome(sim.configure("<FrameMirror>1</FrameMirror>")) == "OK"
    assert text(sim.configs("FrameMirror")[0], "FrameMirror") == "0"


def test_ctl09_another_element_than_asked() -> None:
    (answer,) = Sim(Quirk.CTL_09).configs("VideoParamAttribute")
    assert answer.children[4].name == "VideoParamAttributeCfg"
    assert text(answer, "VideoFormat") == "2"


def test_ctl10_default_entries() -> None:
    (answer,) = Sim(Quirk.CTL_10).ask("Query", "PresetQuery").answers
    assert (text(answer, "SumNum"), text(answer, "PresetName")) == ("0", "Gate")
    assert render(answer, "UTF-8").count(b"<Item>") == 255


def test_ctl11_silence_to_what_is_new_in_2022() -> None:
    sim = Sim(Quirk.CTL_11)
    assert sim.ask("Query", "SDCardStatus") == Reaction()
    assert sim.ask("Query", "PresetQuery").answers
