"""The JSON of commands, made from the table of `gb.manscdp.commands`: a model for each, told apart by `command`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from gb28181gw.api.schemas import Answer, Body
from gb28181gw.devices.commands import Outcome
from gb28181gw.gb.dialect import Edition
from gb28181gw.gb.manscdp.commands import COMMANDS, Command
from gb28181gw.gb.manscdp.schema import Group, Kind, Leaf, Node


class CommandBase(Body):
    """`POST …/commands`: the fields of the command stand beside these by their XML names."""

    channel_id: str | None = Field(
        default=None, max_length=64, description="Left out: the command goes to the device itself."
    )
    force: bool = Field(default=False, description="Send it although the device's edition does not know it.")


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


def _model(command: Command) -> type[CommandBase]:
    since = "" if command.since is Edition.V1_0 else f" Since edition {command.since}."
    fields: dict[str, Any] = {
        "command": (Literal[command.name], ...),
        **_members(command.name, command.fields),
    }
    return create_model(
        f"{command.name}Command",
        __base__=CommandBase,
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
    values = body.model_dump(exclude_none=True, exclude={"channel_id", "force"})
    return values.pop("command"), values


class DifferenceAnswer(Answer):
    """A field of a configuration that reads otherwise than it was written."""

    field: str
    written: str | int | float
    read: str | int | float | None


class CommandAnswer(Answer):
    """How the command ended; the device's answer stands beside these fields by its XML names.

    A list is `{"PresetList": {"Item": […]}}`; numbers are numbers where the device sent numbers, else its text; times
    are local to the device, as it sent them.
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


def command_answer(outcome: Outcome) -> CommandAnswer:
    return CommandAnswer(
        command=outcome.command,
        device_id=outcome.device_id,
        channel_id=outcome.channel_id or None,
        answered=outcome.answered,
        partial=outcome.partial,
        missing=outcome.missing,
        applied=outcome.applied,
        differences=[
            DifferenceAnswer(field=one.field, written=one.written, read=one.read) for one in outcome.differs
        ],
        note=outcome.note,
        **outcome.fields,
    )
