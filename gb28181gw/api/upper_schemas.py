"""The JSON of upper platforms and of what is shared with them (docs/reference/api.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gb28181gw.api.schemas import Answer, Body, charset_name, iso_time, plain_password, single_line
from gb28181gw.cascade.models import Tree, UpperChange, UpperView
from gb28181gw.cascade.sharing import SHARE_LIMIT, ChannelBook, Key, ShareItem
from gb28181gw.cascade.tree import Finding
from gb28181gw.errors import GatewayError
from gb28181gw.gb.manscdp.catalogue import CatalogItem, Status

_YEARS: Final = {"2011": "1.0", "2014": "1.1", "2016": "2.0", "2022": "3.0"}
_COLUMNS: Final = ("device_id", "channel_id", "shared_id", "name")
UpperId = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9A-Za-z]+$")]
Edition = Annotated[
    Literal["1.0", "1.1", "2.0", "3.0"],
    BeforeValidator(lambda text: _YEARS.get(text, text) if isinstance(text, str) else text),
]


class UpperSettings(Body):
    """`PATCH /api/v1/uppers/{id}`: what is left out stays."""

    name: Annotated[str, Field(max_length=255), AfterValidator(single_line)] | None = None
    domain: str | None = Field(
        default=None, max_length=255, description="Its SIP domain: ten digits or a name."
    )
    host: str | None = Field(default=None, max_length=255, description="Address or name to register at.")
    port: int | None = Field(default=None, ge=1, le=65535)
    transport: Literal["udp", "tcp", "tls"] | None = None
    tls_ca: str | None = Field(
        default=None,
        max_length=1024,
        description="File here of the authorities (PEM) that signed its certificate; empty: the system's.",
    )
    standby: str | None = Field(
        default=None, max_length=262, description="HOST:PORT that is tried when the first does not serve us."
    )
    local_id: str | None = Field(
        default=None, max_length=32, description="Our code there; sip.id by default."
    )
    username: str | None = Field(
        default=None, max_length=128, description="For its challenge; local_id by default."
    )
    password: Annotated[str, Field(max_length=128), AfterValidator(plain_password)] | None = Field(
        default=None, description="Never shown again."
    )
    realm: str | None = Field(
        default=None,
        max_length=128,
        description="The only realm that gets the password; empty: any it asks with.",
    )
    expires_s: int | None = Field(default=None, ge=10, le=2_592_000)
    keepalive_s: int | None = Field(default=None, ge=1, le=3600)
    edition: Edition | None = Field(default=None, description="1.0, 1.1, 2.0 or 3.0, or its year.")
    charset: Annotated[str, Field(max_length=16), AfterValidator(charset_name)] | None = Field(
        default=None, description="GB2312, GB18030 or UTF-8; empty: by edition."
    )
    media_advertise: str | None = Field(
        default=None, max_length=255, description="Our address in SDP towards it; empty: as for devices."
    )
    media_allow: Annotated[list[str], Field(max_length=32)] | None = Field(
        default=None, description="Networks that media may be sent to besides its signalling address."
    )
    control: bool | None = Field(
        default=None, description="It may move and configure devices; true by default."
    )
    drastic: bool | None = Field(
        default=None, description="It may restart, upgrade and format; false by default."
    )
    enabled: bool | None = Field(default=None, description="False: not registered at.")
    tree: Tree | None = Field(default=None, description="How the shared channels are arranged.")

    def change(self) -> UpperChange:
        values = self.model_dump(exclude_none=True, exclude={"id"})
        if "tree" in values:
            values["tree"] = values["tree"].value
        if "media_allow" in values:
            values["media_allow"] = tuple(values["media_allow"])
        return UpperChange(**values)


class NewUpper(UpperSettings):
    """`POST /api/v1/uppers`."""

    id: UpperId


class UpperAnswer(Answer):
    """One upper platform."""

    id: str
    name: str
    domain: str
    host: str
    port: int
    transport: str
    tls_ca: str
    standby: str
    local_id: str
    username: str
    realm: str
    expires_s: int
    keepalive_s: int
    edition: str
    charset: str
    media_advertise: str
    media_allow: list[str]
    control: bool
    drastic: bool
    enabled: bool
    tree: Tree
    registered: bool
    registered_at: str | None
    last_error: str = Field(description="Why it is not registered; empty while it is.")
    remote_address: str | None = Field(description="ip:port")
    shared_channels: int
    share_all: bool
    streams: int = Field(description="Media that are sent to it now.")
    subscriptions: list[str] = Field(description="What it subscribed to, by CmdType.")


def upper_answer(view: UpperView, zone: tzinfo) -> UpperAnswer:
    upper = view.upper
    return UpperAnswer(
        id=upper.id,
        name=upper.name,
        domain=upper.domain,
        host=upper.host,
        port=upper.port,
        transport=upper.transport,
        tls_ca=upper.tls_ca,
        standby=upper.standby,
        local_id=upper.local_id,
        username=upper.username or upper.local_id,
        realm=upper.realm,
        expires_s=upper.expires_s,
        keepalive_s=upper.keepalive_s,
        edition=upper.edition,
        charset=upper.charset,
        media_advertise=upper.media_advertise,
        media_allow=list(upper.media_allow),
        control=upper.control,
        drastic=upper.drastic,
        enabled=upper.enabled,
        tree=Tree(upper.tree),
        registered=view.registered,
        registered_at=iso_time(view.registered_at, zone),
        last_error=view.last_error,
        remote_address=view.remote_address or None,
        shared_channels=view.shared_channels,
        share_all=view.share_all,
        streams=view.streams,
        subscriptions=list(view.subscriptions),
    )


# ---------------------------------------------------------------- sharing


class ShareRequestItem(Body):
    """One channel to share."""

    device_id: str = Field(max_length=64)
    channel_id: str = Field(max_length=64)
    shared_id: str = Field(
        default="",
        max_length=64,
        description="Its id at the upper; by default its own, or a made one if that is taken.",
    )


class ShareRequest(Body):
    """`PUT /api/v1/uppers/{id}/channels`: replaces what the upper sees."""

    all: bool = Field(default=False, description="Every channel, also those that come later.")
    items: Annotated[list[ShareRequestItem], Field(max_length=SHARE_LIMIT)] = Field(
        default=[], description="The channels; with `all` only those that get another id."
    )

    def wanted(self) -> list[ShareItem]:
        return [
            ShareItem(device_id=item.device_id, channel_id=item.channel_id, shared_id=item.shared_id)
            for item in self.items
        ]


class SharedChannel(Answer):
    """One shared channel."""

    device_id: str
    channel_id: str
    shared_id: str
    name: str
    status: Literal["ON", "OFF", "UNKNOWN"]
    present: bool = Field(
        description="False: the device has no such channel now, and the upper is not told of it."
    )


class SharedChannels(Answer):
    """What an upper platform sees."""

    all: bool
    items: list[SharedChannel]
    total: int


def shared_channel(key: Key, shared_id: str, book: ChannelBook) -> SharedChannel:
    device = book.get(key.device_id)
    channel = device.channels.get(key.channel_id) if device is not None else None
    if device is None or channel is None or channel.gone:
        return SharedChannel(
            device_id=key.device_id,
            channel_id=key.channel_id,
            shared_id=shared_id,
            name="",
            status="UNKNOWN",
            present=False,
        )
    return SharedChannel(
        device_id=key.device_id,
        channel_id=key.channel_id,
        shared_id=shared_id,
        name=channel.name,
        status=device.status_of(channel).value,
        present=True,
    )


def share_csv(rows: Sequence[tuple[Key, str]], book: ChannelBook) -> Iterator[str]:
    """Lines of a table with a head."""
    yield _line(_COLUMNS)
    for key, shared_id in rows:
        yield _line((key.device_id, key.channel_id, shared_id, shared_channel(key, shared_id, book).name))


def _line(values: Sequence[str]) -> str:
    out = io.StringIO()
    # A name that a spreadsheet would take for a formula is text.
    csv.writer(out).writerow(
        [f"'{value}" if value[:1] in ("=", "+", "-", "@") else value for value in values]
    )
    return out.getvalue()


def read_share_csv(data: bytes) -> list[ShareItem]:
    """The table back; columns by their head, `shared_id` and others may be missing. Raises GatewayError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("gb18030", "replace")  # as a spreadsheet in China saves it
    reader = csv.DictReader(io.StringIO(text))
    if not {"device_id", "channel_id"} <= set(reader.fieldnames or ()):
        raise GatewayError(
            "gb.route.invalid", "The first line must name the columns device_id and channel_id."
        )
    return [
        ShareItem(
            device_id=(row.get("device_id") or "").strip(),
            channel_id=(row.get("channel_id") or "").strip(),
            shared_id=(row.get("shared_id") or "").strip(),
        )
        for row in reader
    ]


# ---------------------------------------------------------------- dry run


class ToldItem(Answer):
    """One catalogue item as the upper gets it."""

    id: str
    parent_id: str
    name: str
    status: Literal["ON", "OFF", ""]
    civil_code: str
    business_group_id: str
    manufacturer: str
    model: str
    ptz_type: str
    longitude: float | None
    latitude: float | None
    device_id: str | None = Field(description="Whose it is here; null: made for the tree.")
    channel_id: str | None


class LintFinding(Answer):
    """Something that upper platforms stumble over."""

    id: str
    problem: str


class ToldCatalogue(Answer):
    """`GET /api/v1/uppers/{id}/catalog`: exactly what a Catalog query of the upper is answered with."""

    items: list[ToldItem]
    total: int
    findings: list[LintFinding]


_STATES: Final[dict[Status, Literal["ON", "OFF", ""]]] = {
    Status.ON: "ON",
    Status.OFF: "OFF",
    Status.UNKNOWN: "",
}


def told_item(item: CatalogItem, key: Key | None) -> ToldItem:
    return ToldItem(
        id=item.device_id,
        parent_id=item.parent_id,
        name=item.name,
        status=_STATES[item.status],
        civil_code=item.civil_code,
        business_group_id=item.business_group_id,
        manufacturer=item.manufacturer,
        model=item.model,
        ptz_type=item.ptz_type,
        longitude=item.longitude,
        latitude=item.latitude,
        device_id=key.device_id if key is not None else None,
        channel_id=key.channel_id if key is not None else None,
    )


def lint_finding(finding: Finding) -> LintFinding:
    return LintFinding(id=finding.id, problem=finding.problem)
