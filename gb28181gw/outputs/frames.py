"""What outputs in Python do with frames before they send them. Pure."""

from __future__ import annotations

from dataclasses import replace

from gb28181gw.media.tracks import Frame, TrackKind
from gb28181gw.media.wire import nal


def with_parameter_sets(frame: Frame) -> Frame:
    """A key frame with the parameter sets that a viewer needs to begin, where the device sent them apart."""
    track = frame.track
    if not frame.key or track.kind is not TrackKind.VIDEO:
        return frame
    for unit in nal.split_annexb(frame.payload):
        kind = nal.nal_type(track.codec, unit)
        if nal.is_parameter_set(track.codec, kind):
            return frame
        if nal.is_vcl(track.codec, kind):
            break
    return replace(frame, payload=nal.join_annexb(track.parameter_sets) + frame.payload)
