"""Controls that the gateway sends by itself or at once (GB/T 28181-2022 A.2.3.1): answered by SIP alone (9.3.1 d)."""

from __future__ import annotations

from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.writer import Writer


def write_key_frame_control(sn: int, device_id: str, charset: Charset, edition: Edition) -> bytes:
    """Control/DeviceControl that asks a channel for a key frame (A.2.3.1.7).

    The 2016 print misspells the element, and its devices know no other spelling.
    """
    writer = Writer("Control", "DeviceControl", sn, device_id)
    writer.leaf("IFrameCmd" if edition >= Edition.V3_0 else "IFameCmd", "Send")
    return writer.finish(charset)


def write_ptz_control(
    sn: int, device_id: str, code: str, charset: Charset, edition: Edition, *, preset_name: str = ""
) -> bytes:
    """Control/DeviceControl with a `PTZCmd` (A.2.3.1.2); `preset_name` goes only to devices of 2022."""
    writer = Writer("Control", "DeviceControl", sn, device_id)
    writer.leaf("PTZCmd", code)
    if preset_name and edition >= Edition.V3_0:
        with writer.group("PTZCmdParams"):
            writer.leaf("PresetName", preset_name)
    return writer.finish(charset)
