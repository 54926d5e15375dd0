import io
import json
import threading

import pytest

from gb28181gw.sim import command
from gb28181gw.sim.display import JsonDisplay, PlainDisplay, TableDisplay, line_of, plain, summary
from gb28181gw.sim.fleet import Fleet, FleetTotals
from gb28181gw.sim.options import DeviceOptions
from gb28181gw.sim.quirks import TABLE, Quirk
from tests.support.sim import Recorder, device_options
from tests.support.sim_platform import MiniPlatform


class Background:
    """A scripted platform on a loop of its own, because `run_device` runs one itself."""

    def __init__(self) -> None:
        self.platform = MiniPlatform()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        import asyncio

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            await self.platform.open()
            self._ready.set()
            await self._end.wait()
            await self.platform.close()

        asyncio.run(serve())

    def __enter__(self) -> MiniPlatform:
        self._thread.start()
        self._ready.wait(10)
        return self.platform

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


def test_a_run_ends_with_0_and_tells_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    with Background() as gateway:
        options = device_options(gateway.address, duration_s=1.0, json=True, channels=1)
        assert command.run_device(options) == 0
        assert gateway.registered == {}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "started"
    assert lines[0]["seed"] == 28181
    assert {"registered", "unregistered"} <= set(events)
    assert lines[-1]["event"] == "totals"
    assert lines[-1]["registrations"] == 1


def test_nobody_there_is_a_sentence_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run_device(device_options("127.0.0.1:9", transport="tcp", duration_s=0.3)) == 1
    error = capsys.readouterr().err
    assert "never registered at 127.0.0.1:9" in error
    assert "password" in error


def test_a_wrong_option_is_a_sentence_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run_device(DeviceOptions(count=0)) == 1
    assert "--count" in capsys.readouterr().err


def test_content_that_cannot_be_made_is_a_sentence_and_1(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("media") / "x.mp4"
    path.write_text("no film")
    assert command.run_device(DeviceOptions(media_file=path, duration_s=1)) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_quirk_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.list_quirks() == 0
    text = capsys.readouterr().out
    assert all(quirk.value in text for quirk in Quirk)
    assert command.list_quirks(as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [{"id": quirk.value, "does": text} for quirk, text in TABLE.items()]


def test_text_of_peers_cannot_control_the_terminal() -> None:
    assert plain("ok\x1b[31m\r") == "ok\\x1b[31m\\x0d"
    assert "\x1b" not in line_of("1", "register_failed", {"error": "\x1b[2J"})


def test_plain_lines_leave_out_the_noise() -> None:
    out = io.StringIO()
    few = PlainDisplay(out, devices=1)
    few.note("1", "keepalive")
    few.note("1", "registered", address="x")
    many = PlainDisplay(out, devices=1000)
    many.note("2", "registered", address="x")
    many.note("2", "stream_started", target="y", empty="")
    many.totals(FleetTotals(devices=1000, registered=999))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("2 stream started target=y")
    assert "registered 999/1000" in lines[2]


async def test_table_shows_devices_and_the_last_events() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    options = device_options("127.0.0.1:5060", count=14)
    fleet = Fleet(options, Recorder())
    table = TableDisplay(console, fleet)
    try:
        table.say("started")
        table.note("1", "stream_started", target="127.0.0.1:5000")
        with console.capture() as captured:
            console.print(table.render(fleet.totals()))
    finally:
        table.close()
        await fleet.stop()
    text = captured.get()
    assert options.device_id(0) in text
    assert "and 2 more devices" in text
    assert "stream started target=127.0.0.1:5000" in text
    assert summary(FleetTotals(devices=14)) in text


def test_json_lines_carry_their_time() -> None:
    out = io.StringIO()
    JsonDisplay(out).note("1", "registered", address="a")
    line = json.loads(out.getvalue())
    assert (line["event"], line["device_id"], line["address"]) == ("registered", "1", "a")
    assert line["time"] > 1_700_000_000
