"""Typed settings: defaults, then a TOML file, then the environment (``GB28181GW_SECTION__KEY``).

Read once by the composition root and handed on as each part's own small config. Every field has a type, a
default, a unit where it is a bare number, and a sentence; `config/default.toml` and
`docs/reference/configuration.md` are checked against this module. Whatever is wrong is told at once, each thing
in a sentence that names the key.
"""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gb28181gw.errors import GatewayError

ENV_PREFIX: Final = "GB28181GW_"
MIN_PASSWORD_CHARS: Final = 8
SAMPLE_PASSWORDS: Final = frozenset(
    {
        "00000000",
        "11111111",
        "12345678",
        "123456789",
        "1234567890",
        "87654321",
        "88888888",
        "abcd1234",
        "admin123",
        "admin12345",
        "admin@123",
        "changeit",
        "changeme",
        "change-me",
        "gb28181gw",
        "gb28181pass",
        "password",
        "password1",
        "passw0rd",
        "qwertyui",
        "test1234",
        "your-password",
        "yourpassword",
    }
)
"""Passwords that manuals and samples show, in lower case: no secret at all (S-08)."""


class HostPort(NamedTuple):
    """Where to listen. Port 0: the host chooses (for tests)."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PortRange(NamedTuple):
    """Ports from `first` to `last`, both inside."""

    first: int
    last: int

    @property
    def pairs(self) -> int:
        """Number of streams that fit: an even port for RTP and the odd one after it for RTCP."""
        return max(0, (self.last + 1 - (self.first + self.first % 2)) // 2)

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last


class SettingsError(GatewayError):
    """The configuration cannot be used; `problems` has one sentence for each thing that is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("gb.config.invalid", " ".join(problems))


class SettingsWarning(NamedTuple):
    """Allowed, but probably not meant."""

    key: str
    sentence: str


# ---------------------------------------------------------------- values


def parse_host(text: str) -> str:
    """An IPv4 or IPv6 address, without brackets. Raises ValueError with the end of a sentence."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address; write for example 0.0.0.0 or 192.0.2.1.") from None


def parse_port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port; a port is a number from 1 to 65535.")
    return int(text)


def parse_listen(text: str) -> HostPort:
    """``host:port`` with an IP address of this host; IPv6 in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is not 'address:port'; write for example 0.0.0.0:5060 or [::]:5060.")
    return HostPort(parse_host(host), parse_port(port))


def parse_port_range(text: str) -> PortRange:
    """``first-last``; it must hold an even port and the odd one after it."""
    first, dash, last = text.partition("-")
    if not dash:
        raise ValueError(f"{text!r} is not a range of ports; write for example 20000-29999.")
    ports = PortRange(parse_port(first.strip()), parse_port(last.strip()))
    if ports.first < 1 or ports.pairs < 1:
        raise ValueError(
            f"{text!r} holds no stream: each needs an even port and the odd one after it, as in 20000-20001."
        )
    return ports


def parse_zone(text: str) -> datetime.timezone:
    """``+08:00``; an offset and never a name: what a device is told must not depend on the host's tables."""
    match = re.fullmatch(r"([+-])(\d{2}):(\d{2})", text, re.ASCII)
    if match is None or int(match[2]) > 14 or int(match[3]) > 59:
        raise ValueError(f"{text!r} is not an offset from UTC; write for example +08:00.")
    offset = datetime.timedelta(hours=int(match[2]), minutes=int(match[3]))
    return datetime.timezone(-offset if match[1] == "-" else offset)


_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def parse_name_or_address(text: str) -> str:
    """A host name or an IP address that peers can use, without port."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        if _HOST_NAME.fullmatch(text) and not text.replace(".", "").isdecimal():
            return text
        raise ValueError(f"{text!r} is neither a host name nor an IP address.") from None
    if address.is_unspecified:
        raise ValueError(f"{text!r} cannot be told to anybody: it means 'every address of this host'.")
    return str(address)


def _listen(text: str) -> str:
    return str(parse_listen(text))


def _listen_tls(text: str) -> str:
    return str(parse_listen(text)) if text else text


def _advertised_address(text: str) -> str:
    if not text:
        return text
    address = parse_host(text)
    if ipaddress.ip_address(address).is_unspecified:
        raise ValueError(f"{text!r} cannot be told to a device: give the address that devices reach.")
    return address


def _advertised_host(text: str) -> str:
    return parse_name_or_address(text) if text else text


def _advertised_authority(text: str) -> str:
    if not text:
        return text
    host, colon, port = text.rpartition(":")
    if colon and (":" not in host or host.startswith("[")):
        parse_port(port)
        parse_name_or_address(host)
    else:
        parse_name_or_address(text)
    return text


def _ports(text: str) -> str:
    ports = parse_port_range(text)
    return f"{ports.first}-{ports.last}"


def _zone(text: str) -> str:
    parse_zone(text)
    return text


def _platform_id(text: str) -> str:
    if not re.fullmatch(r"\d{20}", text, re.ASCII):
        raise ValueError(f"{text!r} is not an id; an id of the standard is 20 digits (Annex E).")
    return text


def _domain(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.-]{0,63}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a domain; usually it is the first 10 digits of sip.id.")
    return text


def _password(text: str) -> str:
    if text in ("", "-"):
        return text
    if not text.isprintable() or not text.isascii():
        raise ValueError("use printable ASCII characters only: devices cannot enter others.")
    if text.lower() in SAMPLE_PASSWORDS or len(set(text)) < 3:
        raise ValueError(
            "this password is shown in manuals and tried first by attackers; choose another, "
            "or leave it empty and one is made."
        )
    if len(text) < MIN_PASSWORD_CHARS:
        raise ValueError(f"a shared password has at least {MIN_PASSWORD_CHARS} characters.")
    return text


def _allow(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not re.fullmatch(r"[0-9A-Za-z*?]{1,32}", pattern, re.ASCII):
            raise ValueError(f"{pattern!r} is not a pattern of ids; write digits with * or ?, as in '3402*'.")
    return patterns


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", origin):
            raise ValueError(f"{origin!r} is not an origin; write for example https://video.example.org.")
    return origins


def _plane(plane: str) -> str:
    if plane == "native":
        # Not before somebody asks: loading the native plane costs a start that does not serve.
        from gb28181gw.media import native

        if not native.is_built():
            raise ValueError(
                f"the native plane was not built here ({native.why_not()}); install g++ and python3-dev and "
                "install gb28181gw again, or use auto or python."
            )
    return plane


def _storage_url(url: str) -> str:
    if url.startswith(("postgresql:", "postgres:", "postgresql+")):
        raise ValueError("PostgreSQL comes with a later version; leave it empty for SQLite in data_dir.")
    if url:
        raise ValueError("only SQLite in data_dir is supported: leave it empty.")
    return url


def _bucket(text: str) -> str:
    if text and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text, re.ASCII):
        raise ValueError(
            f"{text!r} is not the name of a bucket: 3 to 63 small letters, digits, dots and hyphens."
        )
    return text


def _endpoint(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^\s/?#@]+/?", url):
        raise ValueError(f"{url!r} is not an endpoint; write for example https://s3.example.org.")
    return url


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[\w.=-]*(/[\w.=-]+)*/?", text, re.ASCII) or text.startswith("/"):
        raise ValueError(f"{text!r} is not a prefix; write for example cameras/.")
    return text


Listen = Annotated[str, AfterValidator(_listen)]


def _number(default: int, description: str, *, low: int, high: int, unit: str = "") -> Any:
    return Field(default=default, description=description, ge=low, le=high, json_schema_extra={"unit": unit})


def _switch(default: bool, description: str) -> Any:
    return Field(default=default, description=description)


def _text(default: str, description: str) -> Any:
    return Field(default=default, description=description)


# ---------------------------------------------------------------- sections


class Section(BaseModel):
    """What all sections share: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SipSettings(Section):
    """Signalling: who the platform is, where it listens, whom it lets in."""

    id: Annotated[str, AfterValidator(_platform_id)] = _text(
        "34020000002000000001", "The id of this platform, 20 digits (GB/T 28181-2022 Annex E)."
    )
    domain: Annotated[str, AfterValidator(_domain)] = _text(
        "3402000000",
        "The realm of the digest and domain of the SIP URIs; usually the first 10 digits of id.",
    )
    listen: Listen = _text(
        "0.0.0.0:5060",
        "The address and port where SIP is bound, UDP and TCP; an address of this host or 0.0.0.0.",
    )
    listen_tls: Annotated[str, AfterValidator(_listen_tls)] = _text(
        "", "The address and port of SIP over TLS, as in 0.0.0.0:5061; empty: none."
    )
    advertise: Annotated[str, AfterValidator(_advertised_host)] = _text(
        "", "The host told to peers, without port; empty: chosen for each peer from the route to it."
    )
    tls_cert: str = _text("", "The file of the certificate chain (PEM) for listen_tls.")
    tls_key: str = _text("", "The file of the private key (PEM) for listen_tls.")
    password: Annotated[str, AfterValidator(_password)] = Field(
        default="",
        description=(
            "The password shared by devices without one of their own; empty: a random one is made at the first "
            'start and kept in data_dir/secrets.toml; "-": none is accepted.'
        ),
        repr=False,
    )
    enrolment: Literal["open", "approve", "closed"] = Field(
        default="approve",
        description=(
            "What happens to devices that are not provisioned and know the shared password: let in (open), "
            "kept waiting for approval (approve), or refused (closed)."
        ),
    )
    allow: Annotated[tuple[str, ...], AfterValidator(_allow)] = Field(
        default=(), description='Patterns of ids that may register, as in ["3402*"]; empty: all.'
    )
    keepalive_s: int = _number(
        60,
        "The keepalive interval expected until a device's own is learnt.",
        low=5,
        high=3600,
        unit="seconds",
    )
    keepalive_misses: int = _number(
        3, "After so many intervals without a message the device is probed, and then offline.", low=1, high=20
    )
    date: Literal["auto", "on", "off"] = Field(
        default="auto",
        description=(
            "The Date header of answers to REGISTER, which sets a device's clock: auto sends it unless the "
            "host's clock stepped or is known to be wrong."
        ),
    )
    timezone: Annotated[str, AfterValidator(_zone)] = _text(
        "+08:00", "The offset from UTC of times told to and by devices without their own; never the host's."
    )

    subscribe: tuple[Literal["catalog", "alarm", "position", "ptz"], ...] = Field(
        default=("catalog", "alarm", "position"),
        description=(
            "What is subscribed at devices: changes of the catalogue, alarms, positions, and where cameras look "
            "(ptz, edition 2022). A device may have its own choice; [] is nothing."
        ),
    )
    subscribe_s: int = _number(
        600,
        "A subscription is asked for so long, and renewed at half of it.",
        low=60,
        high=86400,
        unit="seconds",
    )
    position_interval_s: int = _number(
        5, "The interval of positions that a subscription asks for.", low=1, high=3600, unit="seconds"
    )

    @property
    def address(self) -> HostPort:
        return parse_listen(self.listen)

    @property
    def tls_address(self) -> HostPort | None:
        return parse_listen(self.listen_tls) if self.listen_tls else None

    @property
    def zone(self) -> datetime.timezone:
        return parse_zone(self.timezone)


class MediaSettings(Section):
    """Media: ports of RTP, the listener of the play URLs, and the life of streams."""

    listen: Annotated[str, AfterValidator(parse_host)] = _text(
        "0.0.0.0",  # noqa: S104 - media comes from the devices' networks
        "The address where RTP is bound; an address of this host or 0.0.0.0.",
    )
    advertise: Annotated[str, AfterValidator(_advertised_address)] = _text(
        "", "The IP address told to devices in SDP; empty: chosen for each device from the route to it."
    )
    ports: Annotated[str, AfterValidator(_ports)] = _text(
        "20000-29999", "The ports of RTP, two for each stream; open them in the firewall for UDP and TCP."
    )
    port_rest_s: int = _number(
        30, "A released port is not used again for so long.", low=0, high=3600, unit="seconds"
    )
    http: Listen = _text(
        "0.0.0.0:18081",
        "The address and port of the play URLs; a listener of its own, so that the API can stay on loopback.",
    )
    http_advertise: Annotated[str, AfterValidator(_advertised_authority)] = _text(
        "", "The host, or host:port, in play URLs; empty: the host name that the API request was made with."
    )
    origins: Annotated[tuple[str, ...], AfterValidator(_origins)] = Field(
        default=(),
        description='Web origins that may play besides the console, as in ["https://video.example.org"].',
    )
    token_s: int = _number(300, "A play URL may be opened for so long.", low=5, high=86400, unit="seconds")
    shared_port: int = _number(
        0,
        "One UDP and TCP port for all that is received, with RTCP on the port above it; 0: each its own. "
        "Broadcasts to loudspeakers keep media.ports.",
        low=0,
        high=65534,
    )
    transport: Literal["auto", "udp", "tcp-passive", "tcp-active"] = Field(
        default="auto",
        description=(
            "How media travels, as seen from the gateway's offer; auto: the way that worked, "
            "else tcp-passive, udp, tcp-active."
        ),
    )
    plane: Annotated[Literal["auto", "native", "python"], AfterValidator(_plane)] = Field(
        default="auto", description="Which media engine runs; auto: native where it was built, else python."
    )
    workers: int = _number(
        0, "Threads of the native plane; 0: as many as cores. The python plane has none.", low=0, high=256
    )
    on_loss: Literal["go_on", "freeze"] = Field(
        default="go_on",
        description=(
            "What viewers see after a lost packet: all pictures but the broken one, which may smear until the next "
            "key frame (go_on), or the last whole one until then (freeze)."
        ),
    )
    merge_ms: int = _number(
        0,
        "Pictures of so long are written to a viewer together, which costs less CPU and delays them; 0: each at once.",
        low=0,
        high=1000,
        unit="milliseconds",
    )
    webrtc_sessions: int = _number(
        100,
        "WebRTC viewers and microphones at the same time; a viewer costs far more CPU than one over HTTP.",
        low=0,
        high=10000,
    )
    transcode: int = _number(
        0,
        "H.265 streams that may be made into H.264 at the same time, for WebRTC viewers that ask with ?video=h264; "
        "each costs a third of a CPU core and more. 0: none.",
        low=0,
        high=256,
    )
    push_ca: str = _text(
        "",
        "The file (PEM) of who signs the certificates of rtmps and rtsps peers, or of such a certificate itself; "
        'empty: the host\'s authorities; "-": certificates are not checked.',
    )
    idle_stop_s: int = _number(
        30, "A stream ends so long after its last consumer left.", low=0, high=86400, unit="seconds"
    )
    source_timeout_s: int = _number(
        10,
        "After so long without media the device's dialog ends; with consumers the stream is invited again.",
        low=2,
        high=600,
        unit="seconds",
    )

    @property
    def port_range(self) -> PortRange:
        return parse_port_range(self.ports)

    @property
    def http_address(self) -> HostPort:
        return parse_listen(self.http)


class HttpSettings(Section):
    """The listener of the API and the metrics."""

    listen: Listen = _text(
        "127.0.0.1:18080",
        "The address and port of the API and the metrics; beyond loopback give a certificate.",
    )
    cert: str = _text("", "The file of the certificate chain (PEM); empty: plain HTTP.")
    key: str = _text("", "The file of the private key (PEM) of cert.")

    @property
    def address(self) -> HostPort:
        return parse_listen(self.listen)


class RtspSettings(Section):
    """The RTSP output."""

    listen: Listen = _text(
        "0.0.0.0:8554",
        "The address and port of RTSP.",
    )

    @property
    def address(self) -> HostPort:
        return parse_listen(self.listen)


class StorageSettings(Section):
    """Where what was acknowledged is kept."""

    url: Annotated[str, AfterValidator(_storage_url)] = _text(
        "", "The database; empty: SQLite in data_dir (PostgreSQL comes with a later version)."
    )
    alarm_days: int = _number(
        90, "Alarms are kept for so long, at most a million of them.", low=1, high=3650, unit="days"
    )
    position_days: int = _number(
        7, "Positions are kept for so long, at most a million of them.", low=1, high=3650, unit="days"
    )
    snapshot_days: int = _number(
        30, "Pictures that devices uploaded are kept for so long.", low=1, high=3650, unit="days"
    )
    snapshot_mb: int = _number(
        1024,
        "Pictures that devices uploaded take at most so much; the oldest go first.",
        low=10,
        high=10_000_000,
        unit="MB",
    )
    still_mb: int = _number(
        512,
        "The last picture that the gateway itself took of each channel, all together; the oldest go first.",
        low=1,
        high=10_000_000,
        unit="MB",
    )


class DownloadSettings(Section):
    """Recordings that are copied from devices into data_dir/downloads."""

    at_once: int = _number(4, "Downloads that run at the same time.", low=1, high=64)
    per_device: int = _number(
        1,
        "Downloads that run at the same time from one device; many recorders have one session.",
        low=1,
        high=16,
    )
    keep_days: int = _number(7, "Finished files are kept for so long.", low=1, high=3650, unit="days")
    max_gb: int = _number(
        50, "When all finished files together are larger, the oldest go.", low=1, high=1_000_000, unit="GB"
    )


class S3Settings(Section):
    """S3-compatible storage for what the gateway records; with an empty bucket nothing is brought there."""

    bucket: Annotated[str, AfterValidator(_bucket)] = _text(
        "", "The bucket, which must be there; empty: no object store is used."
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] = _text(
        "", "The URL of the store without the bucket, as in https://s3.example.org."
    )
    region: str = _text("us-east-1", "The region that the store expects in signatures.")
    prefix: Annotated[str, AfterValidator(_prefix)] = _text(
        "",
        "What the names of all objects begin with, as in cameras/; behind it come device, channel, day and time.",
    )
    access_key: str = _text("", "The id of the access key.")
    secret_key: str = Field(
        default="",
        description=(
            "The secret of the access key; taken from the environment only "
            "(GB28181GW_RECORDING__S3__SECRET_KEY), never from this file."
        ),
        repr=False,
    )
    secret_key_file: str = _text(
        "", "A file with nothing but the secret of the access key, in place of the environment; mode 0600."
    )
    virtual_host: bool = _switch(
        False, "The bucket is a part of the host's name, not of the path; some public clouds want it."
    )
    allow_http: bool = _switch(
        False, "An endpoint without TLS may be used; then everybody on the way sees the recordings."
    )
    ca_file: str = _text("", "A file of certificates (PEM) that are trusted beside those of the system.")
    parallel: int = _number(2, "Files that are uploaded at the same time.", low=1, high=32)
    keep_local: bool = _switch(
        True, "Files stay here as well for their time; false: they go when the store has them, unless locked."
    )

    def secret(self) -> str:
        """From the environment or the file. Raises ValueError with a sentence."""
        if self.secret_key:
            return self.secret_key
        path = Path(self.secret_key_file)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ValueError(
                        f"{path} can be read by other users of this host; run 'chmod 600 {path}'."
                    )
                text = file.read(4096).decode("ascii").strip()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} holds more than the secret of a key.") from error
        if not text or len(text.split()) != 1:
            raise ValueError(f"{path} must hold the secret of the key and nothing else.")
        return text

    def certificates(self) -> str:
        """Of `ca_file`; empty: there is none. Raises OSError, ValueError."""
        return Path(self.ca_file).read_text(encoding="utf-8") if self.ca_file else ""


class RecordingSettings(Section):
    """What the gateway records itself; which channels, people say over the API."""

    directory: str = _text("", "Where the files are kept; empty: data_dir/recordings.")
    segment_s: int = _number(60, "A file is about so long.", low=2, high=3000, unit="seconds")
    keep_days: int = _number(
        30,
        "Files are kept for so long, unless a channel's plan says otherwise.",
        low=1,
        high=36500,
        unit="days",
    )
    max_gb: int = _number(
        0,
        "When all files together are larger, the oldest go; 0: no limit.",
        low=0,
        high=10_000_000,
        unit="GB",
    )
    min_free_mb: int = _number(
        1024,
        "So much of the disk is left free: the oldest files go, and when none may go nothing more is recorded.",
        low=1,
        high=100_000_000,
        unit="MB",
    )
    s3: S3Settings = S3Settings()


class LogSettings(Section):
    """The log on stderr."""

    format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or lines for a person at a terminal."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level that is written."
    )


class Settings(Section):
    """All settings. Build them with `load_settings`."""

    data_dir: Path = Field(
        default=Path("data"),
        description=(
            "The directory of the database and the secrets, relative to the working directory; "
            "it is made when missing."
        ),
    )
    sip: SipSettings = SipSettings()
    media: MediaSettings = MediaSettings()
    http: HttpSettings = HttpSettings()
    rtsp: RtspSettings = RtspSettings()
    storage: StorageSettings = StorageSettings()
    downloads: DownloadSettings = DownloadSettings()
    recording: RecordingSettings = RecordingSettings()
    log: LogSettings = LogSettings()

    @property
    def database_path(self) -> Path:
        return self.data_dir / "gb28181gw.db"

    @property
    def recording_directory(self) -> Path:
        return Path(self.recording.directory) if self.recording.directory else self.data_dir / "recordings"

    @property
    def secrets_path(self) -> Path:
        return self.data_dir / "secrets.toml"

    def warnings(self) -> tuple[SettingsWarning, ...]:
        """What is allowed and probably not meant; told at start as `config.warning`."""
        return tuple(_warnings(self))


# ---------------------------------------------------------------- loading


def default_toml() -> str:
    """The annotated default configuration that comes with the package."""
    return resources.files("gb28181gw").joinpath("config/default.toml").read_text(encoding="utf-8")


def load_settings(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the file and the environment. `overrides` (nested like the file) win over both; for tests and tools.

    Raises `SettingsError` with every problem found.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        found = _read_file(path)
        problems += _secrets_in(found)
        _merge(values, found)
    for name, keys, value in _environment(os.environ if environ is None else environ, problems):
        sources[".".join(keys)] = name
        _merge(values, _nested(keys, value))
    if overrides:
        _merge(values, overrides)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_sentence(item, sources) for item in error.errors(include_url=False)]
    else:
        problems += _conflicts(settings)
        if not problems:
            return settings
    raise SettingsError(tuple(problems))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"The configuration file {path} cannot be read: {error.strerror}."
    except UnicodeDecodeError:
        problem = f"The configuration file {path} is not UTF-8 text."
    except tomllib.TOMLDecodeError as error:
        problem = f"The configuration file {path} is not valid TOML: {error}."
    raise SettingsError((problem,))


def _secrets_in(found: Mapping[str, Any]) -> Iterator[str]:
    """What may not stand in a configuration file, which is copied, shown and kept in version control."""
    section: Any = found
    for name in ("recording", "s3", "secret_key"):
        section = section.get(name) if isinstance(section, Mapping) else None
    if section:
        yield (
            "recording.s3.secret_key: a secret does not belong into this file; give it in the environment as "
            "GB28181GW_RECORDING__S3__SECRET_KEY, or write it into a file of its own and name that in secret_key_file."
        )


def _environment(
    environ: Mapping[str, str], problems: list[str]
) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """Variables of ours as (variable, path of the key, value); a list is separated by commas."""
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        keys = tuple(name[len(ENV_PREFIX) :].lower().split("__"))
        key = ".".join(keys)
        if key not in known_keys():
            problems.append(f"The environment variable {name} names no key.{_nearest(key)}")
            continue
        text = environ[name]
        if known_keys()[key].is_list:
            items = [item.strip().strip("\"'") for item in text.strip().strip("[]").split(",")]
            yield name, keys, [item for item in items if item]
        else:
            yield name, keys, text


def _nested(keys: tuple[str, ...], value: object) -> dict[str, Any]:
    return {keys[0]: value} if len(keys) == 1 else {keys[0]: _nested(keys[1:], value)}


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


class KeyInfo(NamedTuple):
    """What the reference says about one key."""

    type: str
    unit: str
    default: object
    description: str
    is_list: bool


_KEYS: dict[str, KeyInfo] = {}


def known_keys() -> Mapping[str, KeyInfo]:
    """Every key by its dotted name, in the order of the file."""
    if not _KEYS:
        _KEYS.update(_keys_of(Settings, ""))
    return _KEYS


def _keys_of(section: type[Section], before: str) -> Iterator[tuple[str, KeyInfo]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys_of(field.annotation, f"{before}{name}.")
        else:
            yield before + name, _key_info(field)


def _key_info(field: Any) -> KeyInfo:
    annotation = field.annotation
    extra = field.json_schema_extra or {}
    is_list = "tuple" in str(annotation)
    if is_list:
        kind = "list of strings"
    elif annotation is int:
        kind = "integer"
    elif annotation is bool:
        kind = "true or false"
    elif "Literal" in str(annotation):
        kind = "one of " + ", ".join(annotation.__args__)
    else:
        kind = "string"
    default = field.default
    if isinstance(default, tuple):
        default = list(default)
    elif isinstance(default, Path):
        default = str(default)
    return KeyInfo(kind, str(extra.get("unit", "")), default, field.description, is_list)


def _nearest(key: str) -> str:
    """`` Did you mean x?`` by the whole name, else by its last part anywhere."""
    names = list(known_keys())
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if not close:
        last = key.rpartition(".")[2]
        close = [name for name in names if name.rpartition(".")[2] == last][:1]
    if not close:
        tails = {name.rpartition(".")[2]: name for name in names}
        close = [tails[tail] for tail in difflib.get_close_matches(last, list(tails), n=1, cutoff=0.6)]
    return f" Did you mean {close[0]}?" if close else " See docs/reference/configuration.md."


def _key_of(location: tuple[str, ...]) -> str:
    """The key that an error is about; what follows it is a place in its value."""
    names = known_keys()
    for length in range(1, len(location)):
        if ".".join(location[:length]) in names:
            return ".".join(location[:length])
    return ".".join(location)


def _sentence(item: Any, sources: Mapping[str, str]) -> str:
    """One error of pydantic as a sentence that names the key, or the variable that it came from."""
    location = tuple(str(part) for part in item["loc"])
    key = _key_of(location)
    name = sources.get(key)
    subject = f"{key} (environment variable {name})" if name else key
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    shown = "the value" if "password" in key or "key" in key.rpartition(".")[2] else repr(value)
    if kind == "extra_forbidden":
        return f"{key} is not a known key.{_nearest(key)}"
    if kind == "value_error":
        return f"{subject}: {context['error']}"
    if kind == "literal_error":
        return f"{subject}: {shown} is not allowed; use {context['expected']}."
    if kind in ("greater_than_equal", "less_than_equal"):
        info = known_keys()[key]
        bound = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return f"{subject}: {shown} must be {bound}{' ' + info.unit if info.unit else ''}."
    if kind.startswith("bool"):
        return f"{subject}: {shown} must be true or false without quotes."
    if kind.startswith("int"):
        return f"{subject}: {shown} must be a whole number without quotes."
    if kind in ("model_type", "model_attributes_type"):
        return f"{key} is a section: write [{key}] on a line of its own and its keys below it."
    if kind in ("tuple_type", "list_type"):
        return f'{subject}: {shown} must be a list, as in ["…", "…"].'
    return f"{subject}: {shown} must be a string in quotes."


def _conflicts(settings: Settings) -> Iterator[str]:
    """What is wrong between keys that are right by themselves."""
    ports = settings.media.port_range
    listeners = {
        "sip.listen": settings.sip.address,
        "media.http": settings.media.http_address,
        "http.listen": settings.http.address,
        "rtsp.listen": settings.rtsp.address,
    }
    if settings.sip.tls_address is not None:
        listeners["sip.listen_tls"] = settings.sip.tls_address
    seen: dict[int, str] = {}
    for key, address in listeners.items():
        if address.port == 0:
            continue
        if address.port in seen:
            yield f"{key}: port {address.port} is that of {seen[address.port]} already; give each its own."
        seen[address.port] = key
        if address.port in ports:
            yield f"{key}: port {address.port} lies within media.ports {settings.media.ports}; move one."
    shared = settings.media.shared_port
    for port in (shared, shared + 1) if shared else ():
        if port in ports:
            yield f"media.shared_port: port {port} lies within media.ports {settings.media.ports}; move one."
        if port in seen:
            yield f"media.shared_port: port {port} is that of {seen[port]} already; give each its own."
    if bool(settings.http.cert) != bool(settings.http.key):
        missing = "http.key" if settings.http.cert else "http.cert"
        yield f"{missing}: a certificate and its key go together; give both or neither."
    if settings.media.push_ca not in ("", "-") and not Path(settings.media.push_ca).is_file():
        yield f"media.push_ca: there is no file {settings.media.push_ca}."
    sip = settings.sip
    if sip.listen_tls:
        for key, file in (("sip.tls_cert", sip.tls_cert), ("sip.tls_key", sip.tls_key)):
            if not file:
                yield f"{key}: sip.listen_tls needs a certificate and its key; give sip.tls_cert and sip.tls_key."
            elif not Path(file).is_file():
                yield f"{key}: there is no file {file}."
    for key, file in (("http.cert", settings.http.cert), ("http.key", settings.http.key)):
        if file and not Path(file).is_file():
            yield f"{key}: there is no file {file}."

    yield from _store_conflicts(settings.recording.s3)


def _store_conflicts(s3: S3Settings) -> Iterator[str]:
    if not s3.bucket:
        return
    if not s3.endpoint:
        yield "recording.s3.endpoint: a bucket needs the URL of its store, as in https://s3.example.org."
    elif s3.endpoint.startswith("http:") and not s3.allow_http:
        yield (
            "recording.s3.endpoint: http:// sends recordings in the clear; use https://, or set "
            "recording.s3.allow_http if the way there is safe."
        )
    if not s3.access_key:
        yield "recording.s3.access_key: a bucket needs a key; it is never used without one."
    if bool(s3.secret_key) == bool(s3.secret_key_file):
        yield (
            "recording.s3.secret_key: give the secret of the key in the environment as "
            "GB28181GW_RECORDING__S3__SECRET_KEY, or name a file with it in secret_key_file; one of the two."
        )
    elif s3.secret_key_file:
        try:
            s3.secret()
        except ValueError as error:
            yield f"recording.s3.secret_key_file: {error}"
    if s3.ca_file and not Path(s3.ca_file).is_file():
        yield f"recording.s3.ca_file: there is no file {s3.ca_file}."


def _warnings(settings: Settings) -> Iterator[SettingsWarning]:
    sip, media, http = settings.sip, settings.media, settings.http
    if not sip.id.startswith(sip.domain):
        yield SettingsWarning(
            "sip.domain", f"sip.domain {sip.domain} is not the beginning of sip.id {sip.id}."
        )
    if sip.advertise and not _is_address(sip.advertise):
        yield SettingsWarning(
            "sip.advertise",
            f"sip.advertise is the name {sip.advertise}: most devices cannot look names up; give an IP address.",
        )
    if media.push_ca == "-":
        yield SettingsWarning(
            "media.push_ca",
            "Certificates of rtmps and rtsps peers are not checked: name a file with theirs instead.",
        )
    if not http.address.is_loopback and not http.cert:
        yield SettingsWarning(
            "http.listen",
            f"http.listen {http.listen} can be reached from other hosts and keys travel in the clear: "
            "give http.cert and http.key, or put a TLS proxy in front.",
        )
    if sip.enrolment == "open":
        yield SettingsWarning(
            "sip.enrolment",
            "sip.enrolment is open: who knows the shared password is let in under any free id.",
        )
    if sip.password == "-" and sip.enrolment != "closed":  # noqa: S105 - the sign for "no shared password"
        yield SettingsWarning(
            "sip.password", 'sip.password is "-": only devices with a password of their own can register.'
        )
    if "*" in media.origins:
        yield SettingsWarning(
            "media.origins", "media.origins has *: every web page may play with a URL it knows."
        )
    if (sip.tls_cert or sip.tls_key) and not sip.listen_tls:
        yield SettingsWarning(
            "sip.tls_cert", "sip.tls_cert and sip.tls_key have no effect without listen_tls."
        )
    if media.port_range.pairs < 20:
        yield SettingsWarning(
            "media.ports",
            f"media.ports {media.ports} holds {media.port_range.pairs} streams at a time, "
            "and released ports rest before they are used again.",
        )
