"""What an upper platform asks and orders, answered: from the registry, or by the device behind the shared id.

A question about the platform itself (its catalogue, its info) is answered from memory. One about a shared channel goes
down as a command of ours with an SN of ours (`devices.commands`), and its answer goes up with the upper's SN and in
the upper's ids. What may not be done is refused at once with 403, what is not shared is unknown (404; threat S-21).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timezone
from typing import Final, Protocol

from gb28181gw.cascade import tree as trees
from gb28181gw.cascade.link import UpperLink
from gb28181gw.cascade.models import Tree, Upper
from gb28181gw.cascade.paging import TCP_BODY, UDP_BODY, pages, send_all
from gb28181gw.cascade.sharing import ChannelBook, Key, Sharing
from gb28181gw.clock import Clock
from gb28181gw.devices.commands import Outcome
from gb28181gw.errors import GatewayError
from gb28181gw.gb.ids import NodeKind, node_kind
from gb28181gw.gb.manscdp.answers import write_answer, write_result
from gb28181gw.gb.manscdp.catalogue import CatalogItem, CatalogResponse, write_catalog_response
from gb28181gw.gb.manscdp.commands import COMMANDS, Answer, Command
from gb28181gw.gb.manscdp.document import Document
from gb28181gw.gb.manscdp.schema import Value, Values, read_values
from gb28181gw.gb.times import format_time
from gb28181gw.observability.events import EventBus

_OTHER_CHANNEL: Final = "DeviceID2"
"""Of TargetTrack: a second camera of the same device."""


class DeviceCommands(Protocol):
    """`devices.commands.Commands`."""

    async def run(
        self,
        device_id: str,
        name: str,
        values: Values,
        *,
        channel_id: str | None = None,
        force: bool = False,
        key_id: str = "",
    ) -> Outcome: ...


@dataclass(slots=True)
class AnswerCounters:
    """Plain counters for the exporter, summed over all uppers."""

    queries: int = 0
    controls: int = 0
    refused: int = 0
    """Asked for what is not shared or not allowed."""
    failed: int = 0
    """Forwarded and not answered well."""
    catalogues: int = 0
    catalogue_messages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One Query or Control that may be done."""

    command: Command
    sn: int
    asked_id: str
    """DeviceID as the upper wrote it: the answer repeats it."""
    values: Values
    key: Key | None
    """The channel, or the device itself (both ids alike); None: the platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """It is answered with this status, and nothing is done."""

    status: int
    why: str


class Answers:
    """Stateless but for its counters: one for all uppers."""

    def __init__(
        self,
        *,
        book: ChannelBook,
        commands: DeviceCommands,
        bus: EventBus,
        clock: Clock,
        zone: timezone,
        version: str,
    ) -> None:
        self.counters = AnswerCounters()
        self._book = book
        self._commands = commands
        self._bus = bus
        self._clock = clock
        self._zone = zone
        self._version = version

    # -- what is it ----------------------------------------------------------------------------------------

    def judge(self, upper: Upper, sharing: Sharing, document: Document) -> Demand | Refusal:
        """Read a Query or Control: what it wants, and whether this upper may have it."""
        command = _command_of(document)
        if command is None:
            return Refusal(
                status=400, why=f"{document.root} {document.cmd_type[:64]} is none of the standard"
            )
        key = self._target(upper, sharing, document.device_id, command)
        if isinstance(key, Refusal):
            return key
        if command.root == "Control" and (not upper.control or (command.drastic and not upper.drastic)):
            return Refusal(status=403, why=f"{command.name} is not allowed to this upper")
        if command.root == "Control" and key is None:
            return Refusal(status=403, why=f"{command.name} of the platform itself")
        known = {node.name for node in command.fields}
        values = read_values(document.element, command.fields)
        for node in command.fields:
            older = getattr(node, "older", "")
            if older and older in values and node.name not in values:
                values[node.name] = values[older]
        values = {name: value for name, value in values.items() if name in known}
        other = values.get(_OTHER_CHANNEL)
        if isinstance(other, str) and other and isinstance(key, Key):
            second = sharing.key_of(other)
            if second is None or second.device_id != key.device_id:
                return Refusal(status=404, why=f"{other[:64]} is not shared, or is of another device")
            values[_OTHER_CHANNEL] = second.channel_id
        return Demand(
            command=command, sn=document.sn or 0, asked_id=document.device_id, values=values, key=key
        )

    def _target(self, upper: Upper, sharing: Sharing, wanted: str, command: Command) -> Key | Refusal | None:
        if not wanted or wanted == upper.local_id:
            return None
        key = sharing.key_of(wanted)
        if key is not None:
            return key
        if self._told_device(sharing, wanted):
            return Key(wanted, wanted)
        if command.name == "Catalog":
            return None  # of a region, group or organisation: the tree knows
        if node_kind(wanted) is NodeKind.SYSTEM and command.root == "Query":
            # CS-01: it calls us by another code than we registered with.
            self._bus.emit("upper.other_id", upper_id=upper.id, seen=wanted[:64])
            return None
        return Refusal(status=404, why=f"{wanted[:64]} is not shared")

    def _told_device(self, sharing: Sharing, device_id: str) -> bool:
        """A device that the form `devices` tells, because a channel of it is shared."""
        form = sharing.upper.tree
        if form not in (Tree.DEVICES, Tree.AUTO) or (form == Tree.AUTO and not sharing.share_all):
            return False
        device = self._book.get(device_id)
        return device is not None and any(
            sharing.shared_id(device_id, channel_id) for channel_id in device.channels
        )

    # -- do it ---------------------------------------------------------------------------------------------

    async def serve(self, link: UpperLink, sharing: Sharing, demand: Demand) -> None:
        """Answer. Raises GatewayError when the upper cannot be reached; a device's trouble is answered."""
        if demand.command.root == "Control":
            self.counters.controls += 1
        else:
            self.counters.queries += 1
        name = demand.command.name
        if name == "Catalog":
            await self._catalogue(link, sharing, demand)
        elif demand.key is None:
            await self._of_platform(link, sharing, demand)
        else:
            await self._forward(link, sharing, demand, demand.key)

    async def _catalogue(self, link: UpperLink, sharing: Sharing, demand: Demand) -> None:
        upper = link.upper
        tree = await trees.build(sharing, self._book)
        nodes = tree.scope(demand.asked_id or upper.local_id)
        dialect = upper.dialect
        total = len(nodes)
        self.counters.catalogues += 1

        def write(some: Iterable[CatalogItem]) -> bytes:
            return write_catalog_response(
                CatalogResponse(
                    sn=demand.sn,
                    device_id=demand.asked_id or upper.local_id,
                    sum_num=total,
                    items=tuple(some),
                ),
                dialect.charset_used,
                dialect.edition,
            )

        if not total:
            await self._send(link, write(()))
            return
        # What leaves its device while the pages are sent is told as off: the count was told with the first page.
        source = (tree.item(node, self._book) or trees.gone_item(node) for node in nodes)
        self.counters.catalogue_messages += await self._send_pages(
            link, pages(source, write, limit=_limit(link))
        )

    async def _of_platform(self, link: UpperLink, sharing: Sharing, demand: Demand) -> None:
        upper, name = link.upper, demand.command.name
        asked = demand.asked_id or upper.local_id
        fields: dict[str, Value] | None = None
        if name == "DeviceInfo":
            fields = {
                "DeviceName": upper.name or "gb28181gw",
                "Result": "OK",
                "Manufacturer": "gb28181gw",
                "Model": "gb28181gw",
                "Firmware": self._version,
                "Channel": len(sharing),
            }
        elif name == "DeviceStatus":
            fields = {
                "Result": "OK",
                "Online": "ONLINE",
                "Status": "OK",
                "DeviceTime": format_time(self._clock.wall(), self._zone),
                "Encode": "ON",
                "Record": "OFF",
            }
        elif name == "ConfigDownload" and "BasicParam" in str(demand.values.get("ConfigType", "")):
            fields = {
                "Result": "OK",
                "BasicParam": {
                    "Name": upper.name or "gb28181gw",
                    "Expiration": upper.expires_s,
                    "HeartBeatInterval": upper.keepalive_s,
                    "HeartBeatCount": 3,
                },
            }
        if fields is None:
            await self._result(link, demand, asked, ok=False)
            return
        await self._send(
            link,
            write_answer(
                demand.command,
                demand.sn,
                asked,
                fields,
                charset=upper.dialect.charset_used,
                edition=upper.dialect.edition,
            ),
        )

    async def _forward(self, link: UpperLink, sharing: Sharing, demand: Demand, key: Key) -> None:
        command, upper = demand.command, link.upper
        try:
            outcome = await self._commands.run(
                key.device_id,
                command.name,
                demand.values,
                channel_id=None if key.channel_id == key.device_id else key.channel_id,
                key_id=f"upper:{upper.id}",
            )
        except GatewayError as error:
            self.counters.failed += 1
            self._bus.emit(
                "upper.command_failed",
                upper_id=upper.id,
                device_id=key.device_id,
                channel_id=key.channel_id,
                cmd=command.name,
                reason=error.reason,
                detail=error.detail,
            )
            if command.answer is not Answer.NONE:
                await self._result(link, demand, demand.asked_id, ok=False)
            return
        if command.answer is Answer.NONE:
            return
        fields = _translated(outcome.fields, sharing, key, demand.asked_id)
        charset, edition = upper.dialect.charset_used, upper.dialect.edition
        if command.answer is not Answer.PARTS:
            fields.setdefault("Result", "OK")
            body = write_answer(command, demand.sn, demand.asked_id, fields, charset=charset, edition=edition)
            await self._send(link, body)
            return
        listed = fields.get(command.list_name)
        found = listed.get(command.item_name, []) if isinstance(listed, dict) else []
        items = found if isinstance(found, list) else [found]

        def write(some: Iterable[Value]) -> bytes:
            return write_answer(
                command,
                demand.sn,
                demand.asked_id,
                fields,
                charset=charset,
                edition=edition,
                items=list(some),
                total=len(items),
            )

        await self._send_pages(link, pages(items, write, limit=_limit(link)) if items else [write(())])

    async def _result(self, link: UpperLink, demand: Demand, asked: str, *, ok: bool) -> None:
        body = write_result(demand.command, demand.sn, asked, ok=ok, charset=link.upper.dialect.charset_used)
        await self._send(link, body)

    async def _send(self, link: UpperLink, body: bytes) -> None:
        response = await link.send(body)
        if response.status >= 300:
            raise GatewayError(
                "gb.sip.rejected",
                f"Upper platform {link.upper.id} answered {response.status} {response.reason} to our answer.",
                sip_status=response.status,
            )

    async def _send_pages(self, link: UpperLink, bodies: Iterable[bytes]) -> int:
        return await send_all(bodies, lambda body: self._send(link, body))


def _limit(link: UpperLink) -> int:
    return TCP_BODY if link.upper.transport != "udp" else UDP_BODY


def _command_of(document: Document) -> Command | None:
    """The row of the table: by CmdType, and of a DeviceControl by the element that it has."""
    if document.cmd_type != "DeviceControl":
        command = COMMANDS.get(document.cmd_type)
        return command if command is not None and command.root == document.root else None
    for command in COMMANDS.values():
        if command.cmd_type == "DeviceControl" and (
            command.name in document.fields or (command.name == "IFrameCmd" and "IFameCmd" in document.fields)
        ):
            return command
    return None


def _translated(fields: Values, sharing: Sharing, key: Key, asked: str) -> dict[str, Value]:
    """The answer in the upper's ids: ids of other channels of the device that it does not know are left out."""
    found: dict[str, Value] = {}
    for name, value in fields.items():
        if name in ("CmdType", "SN", "DeviceID"):
            continue
        found[name] = _translate(value, sharing, key, asked)
    return found


def _translate(value: Value, sharing: Sharing, key: Key, asked: str) -> Value:
    if isinstance(value, list):
        return [_translate(one, sharing, key, asked) for one in value]
    if not isinstance(value, Mapping):
        return value
    made: dict[str, Value] = {}
    for name, inner in value.items():
        if name == "DeviceID" and isinstance(inner, str):
            made[name] = (
                asked if inner == key.channel_id else sharing.shared_id(key.device_id, inner) or asked
            )
        elif name == "RecorderID" and isinstance(inner, str) and inner != key.channel_id:
            continue  # an id of the inside
        else:
            made[name] = _translate(inner, sharing, key, asked)
    return made
