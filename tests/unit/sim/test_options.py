from pathlib import Path

import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.options import DeviceOptions, OptionError, count_up


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("127.0.0.1:5060", ("127.0.0.1", 5060)),
        ("gateway.example", ("gateway.example", 5060)),
        ("[::1]:5070", ("::1", 5070)),
        ("[::1]", ("::1", 5060)),
        ("fe80::1", ("fe80::1", 5060)),
    ],
)
def test_server_address(server: str, address: tuple[str, int]) -> None:
    assert DeviceOptions(server=server).server_address == address


def test_ids_count_up_over_devices_and_channels() -> None:
    options = DeviceOptions(count=3, channels=4)
    assert options.device_id(2) == "34020000001180000003"
    assert options.first_channel_id(0) == "34020000001320000001"
    assert options.first_channel_id(2) == "34020000001320000009"
    assert DeviceOptions(channel_id="34020000001310000005").first_channel_id(0) == "34020000001310000005"
    assert count_up("34020000001180009999", 1) == "34020000001180010000"


def test_derived_values() -> None:
    options = DeviceOptions(size="640x360", video="h265", audio="none")
    assert (options.width, options.height) == (640, 360)
    assert options.video_codec is Codec.H265
    assert options.audio_codec is None


def test_defaults_are_valid() -> None:
    DeviceOptions().validate()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"server": "host:port"}, "--server"),
        ({"server": "host:99999"}, "--server"),
        ({"id": "123"}, "--id"),
        ({"channel_id": "abc"}, "--channel-id"),
        ({"count": 0}, "--count"),
        ({"channels": -1}, "--channels"),
        ({"count": 1000, "channels": 10_000}, "--count"),
        ({"size": "large"}, "--size"),
        ({"size": "641x360"}, "--size"),
        ({"fps": 0}, "--fps"),
        ({"gop": 0}, "--gop"),
        ({"b_frames": 3}, "--b-frames"),
        ({"loop_s": 0}, "--loop"),
        ({"bitrate_kbps": 1}, "--bitrate"),
        ({"keepalive_s": 0}, "--keepalive"),
        ({"media_file": Path("/nonexistent.mp4")}, "--media"),
        ({"rtp_loss": 1.0}, "--rtp-loss"),
        ({"sip_reorder": -0.1}, "--sip-reorder"),
        ({"quirks": ("REG-99",)}, "REG-99"),
    ],
)
def test_wrong_options_name_themselves(changes: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        DeviceOptions(**changes).validate()  # type: ignore[arg-type]
