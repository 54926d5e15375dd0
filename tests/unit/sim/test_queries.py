import random
from datetime import UTC, datetime

import pytest

from gb28181gw.gb.manscdp.xml import parse
from gb28181gw.sim.bodies import Identity, SimChannel
from gb28181gw.sim.queries import Reaction, react
from gb28181gw.sim.state import DeviceState

DEVICE = "34020000001180000001"
CHANNEL = "34020000001320000001"
ME = Identity(
    device_id=DEVICE, name="Test", server_id="34020000002000000001", channels=(SimChannel(CHANNEL, "One"),)
)


def reaction(root: str, command: str, extra: str = "", target: str = DEVICE) -> Reaction:
    body = f"<{root}><CmdType>{command}</CmdType><SN>9</SN><DeviceID>{target}</DeviceID>{extra}</{root}>"
    return react(
        parse(body.encode()),
        ME,
        DeviceState(),
        expires_s=3600,
        keepalive_s=60.0,
        now=datetime(2024, 5, 1, 0, 30, tzinfo=UTC),
        rng=random.Random(1),
        recordings=lambda start, stop: (),
    )


def told(found: Reaction) -> dict[str, str]:
    return {child.name: child.text for child in found.answers[0].children}


@pytest.mark.parametrize("command", ["Catalog", "DeviceInfo", "DeviceStatus", "RecordInfo", "ConfigDownload"])
def test_queries_are_answered_under_their_sn(command: str) -> None:
    found = told(reaction("Query", command))
    assert (found["CmdType"], found["SN"], found["DeviceID"]) == (command, "9", DEVICE)


def test_device_time_is_beijing_time() -> None:
    assert told(reaction("Query", "DeviceStatus"))["DeviceTime"] == "2024-05-01T08:30:00"


def test_unknown_configuration_is_an_error_and_a_known_one_is_told() -> None:
    assert (
        told(reaction("Query", "ConfigDownload", "<ConfigType>AudioParamOpt</ConfigType>"))["Result"]
        == "ERROR"
    )
    assert (
        told(reaction("Query", "ConfigDownload", "<ConfigType>A/BasicParam</ConfigType>"))["Result"] == "OK"
    )


@pytest.mark.parametrize("name", ["IFrameCmd", "IFameCmd"])
def test_key_frame_command_in_both_spellings(name: str) -> None:
    found = reaction("Control", "DeviceControl", f"<{name}>Send</{name}>", CHANNEL)
    assert found == Reaction(key_frame_of=CHANNEL)


@pytest.mark.parametrize("name", ["RecordCmd", "GuardCmd", "AlarmCmd"])
def test_controls_with_a_result(name: str) -> None:
    assert told(reaction("Control", "DeviceControl", f"<{name}>x</{name}>"))["Result"] == "OK"


@pytest.mark.parametrize(
    ("interval", "seconds"), [("30", 30.0), ("0", 1.0), ("-5", None), ("soon", None), ("", None)]
)
def test_interval_of_keepalives_is_set_within_reason(interval: str, seconds: float | None) -> None:
    extra = f"<BasicParam><HeartBeatInterval>{interval}</HeartBeatInterval></BasicParam>"
    found = reaction("Control", "DeviceConfig", extra)
    assert told(found)["Result"] == "OK"
    assert found.keepalive_s == seconds


def test_configuration_that_the_device_lacks() -> None:
    assert told(reaction("Control", "DeviceConfig", "<AudioParamConfig/>"))["Result"] == "ERROR"


def test_broadcast_is_declined() -> None:
    assert told(reaction("Notify", "Broadcast"))["Result"] == "ERROR"


@pytest.mark.parametrize(
    ("root", "command", "extra"),
    [
        ("Query", "VendorQuery", ""),
        ("Control", "DeviceControl", "<PTZCmd>A50F0001400000F5</PTZCmd>"),
        ("Notify", "Alarm", ""),
        ("Response", "Alarm", ""),
    ],
)
def test_what_needs_no_reaction(root: str, command: str, extra: str) -> None:
    assert reaction(root, command, extra) == Reaction()
