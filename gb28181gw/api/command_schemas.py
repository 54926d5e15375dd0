"""The JSON of commands, made from the table of `gb.manscdp.commands`: a model for each, told apart by `command`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from gb28181gw.api.schemas import Answer, Body
from gb28181gw.devices.commands import Outcome
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, Command
from gb28181gw.gb.manscdp.commands import Answer as Way
from gb28181gw.gb.manscdp.schema import Group, Kind, Leaf, Node
from gb28181gw.gb.ptz import Action, Operation, encode, numbers_of


class CommandBase(Body):
    """`POST …/commands`: the fields of the command stand beside these by their XML names."""

    channel_id: str | None = Field(
        default=None, max_length=64, description="Left out: the command goes to the device itself."
    )
    force: bool = Field(
        default=False,
        description="Send it although the device's edition does not know it, or the device showed so.",
    )


def _note(node: Node) -> str | None:
    parts = [node.meaning] if node.meaning else []
    if node.since is not Edition.V1_0:
        parts.append(f"Since edition {node.since}.")
    if node.until is not Edition.V3_0:
        parts.append(f"Until edition {node.until}.")
    return " ".join(parts) or None


def _leaf_type(node: Leaf) -> Any:
    """The type in a request."""
    if node.kind in (Kind.INT, Kind.NUMBER):
        limits = Field(ge=node.low, le=node.high, allow_inf_nan=False) if node.kind is Kind.NUMBER else None
        return (
            Annotated[float, limits]
            if limits is not None
            else Annotated[int, Field(ge=node.low, le=node.high)]
        )
    return Annotated[_text_type(node), BeforeValidator(_as_text)]


def _as_text(value: object) -> object:
    """A code that was given as a number is text all the same."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _text_type(node: Leaf) -> Any:
    if node.choices:
        return Literal[node.choices]
    if node.kind is Kind.PTZ:
        return Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{16}$")]
    if node.kind is Kind.METHODS:
        return Annotated[str, Field(pattern=r"^[0-7](/?[0-7])*$")]
    if node.kind is Kind.ID:
        return Annotated[str, Field(pattern=r"^[0-9]{2,20}$")]
    if node.kind is Kind.TIME:
        return Annotated[
            str, Field(max_length=40, description="As in 2024-05-01T08:30:00, local to the device.")
        ]
    return Annotated[
        str, Field(max_length=node.max_length, pattern=f"^{node.pattern}$" if node.pattern else None)
    ]


def _members(owner: str, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """Fields of a request model, for `create_model`."""
    fields: dict[str, Any] = {}
    for node in nodes:
        if node.answer_only:
            continue
        kind: Any = _leaf_type(node) if isinstance(node, Leaf) else _group_model(owner, node)
        if node.many:
            most = node.most if isinstance(node, Group) else 16
            kind = Annotated[list[kind], Field(max_length=most)]
        counted = isinstance(node, Leaf) and bool(node.count_of)
        if node.required and not counted:
            fields[node.name] = (kind, Field(description=_note(node)))
        else:
            fields[node.name] = (kind | None, Field(default=None, description=_note(node)))
    return fields


def _group_model(owner: str, node: Group) -> type[BaseModel]:
    name = f"{owner}{node.name}"
    return create_model(name, __base__=Body, **_members(name, node.members))


class PtzOperation(Body):
    """A PTZ code in words: presets, cruises, scans and switches (A.3.4 to A.3.7)."""

    action: Action
    preset: int | None = Field(default=None, ge=1, le=255, description="preset-*, cruise-add, cruise-remove.")
    group: int | None = Field(default=None, ge=0, le=255, description="cruise-*, scan-*: which one.")
    value: int | None = Field(
        default=None, ge=0, le=4095, description="cruise-speed, scan-speed: the speed; cruise-stay: seconds."
    )
    switch: int | None = Field(default=None, ge=0, le=255, description="aux-on, aux-off: 1 is the wiper.")

    @model_validator(mode="after")
    def _its_numbers(self) -> Self:
        wanted = set(numbers_of(self.action))
        given = {name for name in ("preset", "group", "value", "switch") if getattr(self, name) is not None}
        if wanted != given:
            raise ValueError(f"{self.action.value} takes {' and '.join(sorted(wanted))}")
        return self

    def code(self) -> str:
        """The 16 digits."""
        numbers = {name: getattr(self, name) for name in numbers_of(self.action)}
        return encode(Operation(action=self.action, **numbers))


class PtzCommandBase(CommandBase):
    """PTZCmd is given as the code, or in words."""

    operation: PtzOperation | None = Field(default=None, description="In place of PTZCmd: the code in words.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.operation is None) == (getattr(self, "PTZCmd", None) is None):
            raise ValueError("give either PTZCmd or operation")
        return self


def _model(command: Command) -> type[CommandBase]:
    since = "" if command.since is Edition.V1_0 else f" Since edition {command.since}."
    fields: dict[str, Any] = {
        "command": (Literal[command.name], ...),
        **_members(command.name, command.fields),
    }
    base: type[CommandBase] = CommandBase
    if command.name == "PTZCmd":
        base = PtzCommandBase
        kind, info = fields["PTZCmd"]
        fields["PTZCmd"] = (kind | None, Field(default=None, description=info.description))
    return create_model(
        f"{command.name}Command",
        __base__=base,
        __doc__=f"{command.meaning} ({command.clause}.{since})",
        **fields,
    )


MODELS: Final = {name: _model(command) for name, command in COMMANDS.items()}

if TYPE_CHECKING:
    CommandRequest = CommandBase
else:
    CommandRequest = Annotated[Union[tuple(MODELS.values())], Field(discriminator="command")]  # noqa: UP007


def command_values(body: CommandBase) -> tuple[str, dict[str, Any]]:
    """Name and fields of a request."""
    values = body.model_dump(exclude_none=True, exclude={"channel_id", "force", "operation"})
    if isinstance(body, PtzCommandBase) and body.operation is not None:
        values["PTZCmd"] = body.operation.code()
    return values.pop("command"), values


class DifferenceAnswer(Answer):
    """A field of a configuration that reads otherwise than it was written."""

    field: str
    written: str | int | float
    read: str | int | float | None


class CommandAnswerBase(Answer):
    """How the command ended; the device's answer stands beside these fields by its XML names.

    Numbers are numbers where the device sent numbers, else its text; times are local to the device, as it sent them;
    elements that the standard does not know are there as they came.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    command: str
    device_id: str
    channel_id: str | None
    answered: bool = Field(description="false: the standard has no answer to it; the device took it.")
    partial: bool = Field(description="Parts of the answer did not come.")
    missing: list[str] = Field(description="Configurations that were asked for and not told.")
    applied: bool | None = Field(
        description="DeviceConfig: whether the device tells the written values now; null: it cannot be read back."
    )
    differences: list[DifferenceAnswer]
    note: str


class _Told(Answer):
    """A group of an answer; a vendor may add members."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _told_type(owner: str, node: Node) -> Any:
    """The type in an answer: what `schema.read_values` makes of the element."""
    kind: Any
    if isinstance(node, Group):
        name = f"{owner}{node.name}"
        kind = create_model(name, __base__=_Told, **_told_members(name, node.members))
    elif node.free:
        kind = Any
    else:
        kind = {Kind.INT: int | str, Kind.NUMBER: float | str}.get(node.kind, str)
    return list[kind] if node.many else kind


def _told_members(owner: str, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """Fields of an answer model, for `create_model`: a device may leave any of them out."""
    return {
        node.name: (_told_type(owner, node) | None, Field(default=None, description=_note(node)))
        for node in nodes
    }


_HEAD: Final[dict[str, Any]] = {
    "CmdType": (str | None, None),
    "SN": (int | str | None, None),
    "DeviceID": (str | None, None),
}


def _answer_model(command: Command) -> type[CommandAnswerBase]:
    fields: dict[str, Any] = (
        {}
        if command.answer is Way.NONE
        else {**_HEAD, **_told_members(f"{command.name}CommandAnswer", command.response)}
    )
    fields["command"] = (Literal[command.name], ...)
    return create_model(
        f"{command.name}CommandAnswer",
        __base__=CommandAnswerBase,
        __doc__=f"How {command.name} ended ({command.clause}), with what the device answered.",
        **fields,
    )


ANSWERS: Final = {name: _answer_model(command) for name, command in COMMANDS.items()}

if TYPE_CHECKING:
    CommandAnswer = CommandAnswerBase
else:
    CommandAnswer = Annotated[Union[tuple(ANSWERS.values())], Field(discriminator="command")]  # noqa: UP007


def command_answer(outcome: Outcome) -> CommandAnswerBase:
    """Only what is set is meant to be written: what a device left out is left out."""
    return ANSWERS[outcome.command].model_validate(
        {
            **outcome.fields,
            "command": outcome.command,
            "device_id": outcome.device_id,
            "channel_id": outcome.channel_id or None,
            "answered": outcome.answered,
            "partial": outcome.partial,
            "missing": outcome.missing,
            "applied": outcome.applied,
            "differences": [
                DifferenceAnswer(field=one.field, written=one.written, read=one.read)
                for one in outcome.differs
            ],
            "note": outcome.note,
        }
    )
