"""What an upper platform is: its settings as people give them, and its state as they see it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from gb28181gw.errors import GatewayError
from gb28181gw.gb.charset import Charset
from gb28181gw.gb.dialect import DEFAULT, Dialect, Edition
from gb28181gw.gb.ids import is_gb_id, valid_lenient_id

EXPIRES_S: Final = 86_400
"""9.1.1 d."""
KEEPALIVE_S: Final = 60
UPPER_LIMIT: Final = 256
TRANSPORTS: Final = ("udp", "tcp", "tls")

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,252}[A-Za-z0-9])?")


class Tree(StrEnum):
    """How the shared channels are arranged for an upper (docs/how-to/cascade.md)."""

    AUTO = "auto"
    """`devices` while everything is shared, else `flat`."""
    FLAT = "flat"
    """All below the platform itself."""
    DEVICES = "devices"
    """As the devices have them: each device with its own groups and organisations (CS-08)."""
    REGIONS = "regions"
    """Below the regions of their civil codes."""
    GROUPS = "groups"
    """One business group, in it a virtual organisation for each device (CS-07)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upper:
    """Settings of one upper platform; replaced as a whole."""

    id: str
    """Its 20-digit code."""
    domain: str
    host: str
    port: int = 5060
    transport: str = "udp"
    """``udp``, ``tcp`` or ``tls``."""
    tls_ca: str = ""
    """File of the authorities (PEM) that may have signed its certificate; empty: the system's."""
    local_id: str
    """Who we are there: user of From and Contact (CS-10)."""
    username: str = ""
    """Digest user name; empty: `local_id`."""
    password: str = ""
    realm: str = ""
    """The only realm that gets credentials; empty: any."""
    expires_s: int = EXPIRES_S
    keepalive_s: int = KEEPALIVE_S
    edition: str = Edition.V3_0.value
    charset: str = ""
    """Empty: by edition."""
    name: str = ""
    standby: str = ""
    """``host:port`` that is tried when the first address does not serve us."""
    media_advertise: str = ""
    """Our address in the SDP towards it (CS-22); empty: as for devices."""
    media_allow: tuple[str, ...] = ()
    """Networks besides its signalling address that media may be sent to (threat S-11)."""
    control: bool = True
    """It may move and configure devices."""
    drastic: bool = False
    """It may restart, upgrade and format."""
    enabled: bool = True
    tree: str = Tree.AUTO.value
    created_at: float = 0.0

    @property
    def dialect(self) -> Dialect:
        return replace(
            DEFAULT,
            edition=Edition(self.edition),
            charset=Charset.parse(self.charset) if self.charset else None,
        )

    @property
    def gb_version(self) -> str:
        """`X-GB-Ver`; before 2022 nobody sent it (CS-19)."""
        return self.edition if self.edition >= Edition.V3_0 else ""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where to register, in the order of trying."""
        found = [(self.host, self.port)]
        if self.standby:
            host, _, port = self.standby.rpartition(":")
            found.append((host.strip("[]"), int(port)))
        return found

    def __repr__(self) -> str:
        return f"Upper(id={self.id!r}, host={self.host!r})"  # never the password (S-14)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperChange:
    """Settings that people change; None leaves one as it is."""

    domain: str | None = None
    host: str | None = None
    port: int | None = None
    transport: str | None = None
    tls_ca: str | None = None
    local_id: str | None = None
    username: str | None = None
    password: str | None = None
    realm: str | None = None
    expires_s: int | None = None
    keepalive_s: int | None = None
    edition: str | None = None
    charset: str | None = None
    name: str | None = None
    standby: str | None = None
    media_advertise: str | None = None
    media_allow: tuple[str, ...] | None = None
    control: bool | None = None
    drastic: bool | None = None
    enabled: bool | None = None
    tree: str | None = None

    def keys(self) -> list[str]:
        """Names of what is set; never values."""
        return [name for name in self.__slots__ if getattr(self, name) is not None]

    def applied(self, upper: Upper) -> Upper:
        """The changed settings, checked. Raises GatewayError gb.route.invalid naming the field."""
        values: dict[str, object] = {name: getattr(self, name) for name in self.keys()}
        changed = replace(upper, **values)  # type: ignore[arg-type]  # names of the class itself
        check(changed)
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperView:
    """One upper platform as the API shows it."""

    upper: Upper
    registered: bool
    registered_at: float | None
    """Seconds since 1970 UTC."""
    last_error: str
    """Why it is not registered, a sentence; empty while it is."""
    remote_address: str
    """``ip:port`` where we are registered, or try to."""
    shared_channels: int
    share_all: bool
    streams: int
    """Media that are sent to it now."""
    subscriptions: tuple[str, ...] = ()
    """What it subscribed to, by CmdType."""


def check(upper: Upper) -> None:
    """Raises GatewayError gb.route.invalid naming the field."""
    for field in ("id", "local_id"):
        value = getattr(upper, field)
        if not (is_gb_id(value) or (valid_lenient_id(value) and len(value) <= 32)):
            raise _invalid(field, f"{value!r} is neither 20 digits nor 1 to 32 letters and digits")
    if not _is_host(upper.domain):
        raise _invalid("domain", "is not a SIP domain")
    if not _is_host(upper.host):
        raise _invalid("host", "is neither an address nor a name")
    if upper.media_advertise and not _is_host(upper.media_advertise):
        raise _invalid("media_advertise", "is neither an address nor a name")
    if not 0 < upper.port < 65536:
        raise _invalid("port", "is not between 1 and 65535")
    if upper.transport not in TRANSPORTS:
        raise _invalid("transport", f"is not one of {', '.join(TRANSPORTS)}")
    if upper.tls_ca and upper.transport != "tls":
        raise _invalid("tls_ca", "has no effect without transport tls")
    if upper.tls_ca and (not upper.tls_ca.startswith("/") or not upper.tls_ca.isprintable()):
        raise _invalid("tls_ca", "is not the absolute path of a file")
    if upper.standby:
        host, _, port = upper.standby.rpartition(":")
        if not _is_host(host.strip("[]")) or not (
            port.isascii() and port.isdigit() and 0 < int(port) < 65536
        ):
            raise _invalid("standby", "is not of the form HOST:PORT")
    for network in upper.media_allow:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise _invalid("media_allow", f"{network[:64]!r} is no network") from error
    if upper.edition not in tuple(Edition):
        raise _invalid("edition", f"is not one of {', '.join(Edition)}")
    if upper.tree not in tuple(Tree):
        raise _invalid("tree", f"is not one of {', '.join(Tree)}")
    if not 10 <= upper.expires_s <= 2_592_000:
        raise _invalid("expires_s", "is not between 10 and 2592000 seconds")
    if not 1 <= upper.keepalive_s <= 3600:
        raise _invalid("keepalive_s", "is not between 1 and 3600 seconds")
    for field in ("username", "password", "realm"):
        value = getattr(upper, field)
        if not value.isascii() or not value.isprintable() or '"' in value or len(value) > 128:
            raise _invalid(field, "may have at most 128 printable ASCII characters, no quotes")
    if not upper.name.isprintable() or len(upper.name) > 255:
        raise _invalid("name", "may have at most 255 characters, no control characters")
    if upper.charset:
        try:
            Charset.parse(upper.charset)
        except ValueError as error:
            raise _invalid("charset", str(error)) from error


def _is_host(text: str) -> bool:
    if _HOST.fullmatch(text) is not None:
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _invalid(field: str, why: str) -> GatewayError:
    return GatewayError("gb.route.invalid", f"{field}: {why}.")
