"""The JSON of what moves a channel."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from gb28181gw.api.schemas import Answer, Body, single_line
from gb28181gw.devices.ptz import PresetAction, PresetList

Speed = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class PtzRequest(Body):
    """`POST …/ptz`: pan, tilt and zoom together, or focus and iris together; what is left out is 0."""

    pan: Speed | None = Field(default=None, description="+ is right.")
    tilt: Speed | None = Field(default=None, description="+ is up.")
    zoom: Speed | None = Field(default=None, description="+ is in.")
    focus: Speed | None = Field(default=None, description="+ is far.")
    iris: Speed | None = Field(default=None, description="+ is open.")

    @property
    def is_lens(self) -> bool:
        return self.focus is not None or self.iris is not None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.is_lens and not (self.pan is self.tilt is self.zoom is None):
            raise ValueError("focus and iris are a command of their own: send pan, tilt and zoom in another")
        return self


class PresetAnswer(Answer):
    """One preset of a channel."""

    id: int
    name: str


class PresetsAnswer(Answer):
    """All that the device lists."""

    items: list[PresetAnswer]
    total: int
    partial: bool = Field(description="The device announced more than it sent.")


def presets_answer(found: PresetList) -> PresetsAnswer:
    return PresetsAnswer(
        items=[PresetAnswer(id=preset.number, name=preset.name) for preset in found.presets],
        total=len(found.presets),
        partial=found.partial,
    )


class PresetRequest(Body):
    """`POST …/presets/{n}`."""

    action: PresetAction
    name: Annotated[str, Field(max_length=64), AfterValidator(single_line)] = Field(
        default="", description="With set; only devices of the 2022 edition take a name."
    )
