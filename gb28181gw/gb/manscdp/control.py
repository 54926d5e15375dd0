"""Controls that the gateway sends by itself or at once (GB/T 28181-2022 A.2.3.1): answered by SIP alone (9.3.1 d).

Their bytes are those of the table of commands; no edition refuses them, because a picture or a stop cannot wait.
"""

from __future__ import annotations

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, write_command
from gb28181gw.gb.manscdp.schema import Style, Value
from gb28181gw.gb.times import BEIJING


def write_key_frame_control(sn: int, device_id: str, charset: Charset, edition: Edition) -> bytes:
    """Control/DeviceControl that asks a channel for a key frame (A.2.3.1.7)."""
    return _write("IFrameCmd", sn, device_id, {"IFrameCmd": "Send"}, charset, edition)


def write_ptz_control(
    sn: int, device_id: str, code: str, charset: Charset, edition: Edition, *, preset_name: str = ""
) -> bytes:
    """Control/DeviceControl with a `PTZCmd` (A.2.3.1.2); `preset_name` goes only to devices of 2022."""
    values: dict[str, Value] = {"PTZCmd": code}
    if preset_name and edition >= Edition.V3_0:
        values["PTZCmdParams"] = {"PresetName": preset_name}
    return _write("PTZCmd", sn, device_id, values, charset, edition)


def _write(
    name: str, sn: int, device_id: str, values: dict[str, Value], charset: Charset, edition: Edition
) -> bytes:
    style = Style(edition=edition, zone=BEIJING, forced=True)
    return write_command(COMMANDS[name], sn, device_id, values, charset=charset, style=style)
