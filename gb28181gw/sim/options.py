"""What the user asks of simulated devices: one frozen value, filled by the command line and by tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Literal

from gb28181gw.media.tracks import Codec

SipTransport = Literal["udp", "tcp"]
AudioChoice = Literal["pcma", "pcmu", "aac", "none"]
VideoChoice = Literal["h264", "h265"]
TalkCodec = Literal["pcma", "pcmu", "aac", "ps"]
TalkTransport = Literal["udp", "tcp-active", "tcp-passive"]
EditionChoice = Literal["1.0", "1.1", "2.0", "3.0"]


class OptionError(ValueError):
    """An option that cannot be used; the text is a sentence for the person who typed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Everything about a run of `gb28181gw simulate device`. Call `validate()` before use."""

    server: str = "127.0.0.1:5060"
    """``host:port`` of the platform's SIP service; an IPv6 host in brackets."""
    server_id: str = "34020000002000000001"
    domain: str = "3402000000"
    """Realm: the first ten digits of the platform's id, unless it was configured otherwise."""
    password: str = ""
    id: str = "34020000001180000001"
    """Device id; with `count` > 1 the id of the first, the others count up."""
    username: str = ""
    """Digest user name; empty: the device id."""
    count: int = 1
    channels: int = 1
    channel_id: str = ""
    """Id of the first channel of the first device; empty: the device id with type 132 (132: network camera),
    numbered through over all devices."""
    name: str = "Simulated NVR"
    """Device name; channels are called ``<name> <device>-<channel>``. Chinese names are fine."""
    transport: SipTransport = "udp"
    bind: str = ""
    """Local address of SIP and media; empty: the one that the host's routing picks."""
    video: VideoChoice = "h264"
    audio: AudioChoice = "pcma"
    size: str = "1280x720"
    fps: int = 25
    bitrate_kbps: int = 2000
    gop: int = 50
    """Frames from key frame to key frame."""
    b_frames: int = 0
    loop_s: int = 10
    """Length of the pre-encoded loop in seconds; rounded up to whole GOPs."""
    live_clock: bool = False
    """Encode while sending, with the wall clock in the picture: for a few channels, not for load."""
    media_file: FilePath | None = None
    """Play this file (H.264 or H.265 in any container) in a loop in place of the made pictures.

    A program stream is sent as it is, byte for byte, with the sound that it has.
    """
    keepalive_s: float = 60.0
    expires_s: int = 3600
    edition: EditionChoice = "3.0"
    """Value of X-GB-Ver; only "3.0" devices send the header (GB/T 28181-2022 Annex I)."""
    charset: str = "GB2312"
    """Declared in XML; text is encoded in GB18030 for the GB names, else in UTF-8."""
    catalog_page: int = 2
    """Channels in one Catalog message."""
    talk_codec: TalkCodec = "pcma"
    """What a simulated loudspeaker asks for."""
    talk_transport: TalkTransport = "udp"
    """Of its audio, as the device says of itself: tcp-active dials the platform."""
    speakers: int = 0
    """Audio outputs (type 137) in the catalogue, beside the channels."""
    hear_dir: FilePath | None = None
    """Write what loudspeakers heard into this directory, one WAV file a talk."""
    quirks: tuple[str, ...] = ()
    """Row ids of the quirk table, see `gb28181gw.sim.quirks.TABLE`."""
    seed: int | None = None
    """Of every random choice; None: chosen at start and printed."""
    sip_loss: float = 0.0
    """Probability that a sent SIP datagram is lost (UDP only); likewise the following."""
    sip_duplicate: float = 0.0
    sip_reorder: float = 0.0
    rtp_loss: float = 0.0
    rtp_duplicate: float = 0.0
    rtp_reorder: float = 0.0
    register_rate: float = 50.0
    """Devices started a second; 0: all at once."""
    retry_s: float = 60.0
    """Pause after a refused or unanswered registration, with a random part of 20 % (9.1.1 c)."""
    alarm_s: float = 0.0
    """Raise an alarm so often; 0: never."""
    position_s: float = 0.0
    """Tell the position so often; 0: never. Editions before 2016 have no positions."""
    record_hours: float = 24.0
    """Recordings of so many hours up to now; 0: nothing is recorded."""
    record_file_s: int = 600
    """Length of a recorded file."""
    change_s: float = 0.0
    """Switch the first channel off and on so often, for those who subscribed the catalogue; 0: never."""
    duration_s: float = 0.0
    """End by itself after so long; 0: run until SIGINT or SIGTERM."""
    json: bool = False
    """One JSON object a line on standard output in place of the table."""

    @property
    def width(self) -> int:
        return int(self.size.lower().partition("x")[0])

    @property
    def height(self) -> int:
        return int(self.size.lower().partition("x")[2])

    @property
    def video_codec(self) -> Codec:
        return Codec(self.video)

    @property
    def audio_codec(self) -> Codec | None:
        return None if self.audio == "none" else Codec(self.audio)

    @property
    def server_address(self) -> tuple[str, int]:
        """Host and port of `server`; port 5060 when left out."""
        text = self.server.strip()
        if text.startswith("["):
            host, _, rest = text[1:].partition("]")
            port = rest.lstrip(":")
        elif text.count(":") > 1:
            host, port = text, ""
        else:
            host, _, port = text.partition(":")
        return host, int(port or 5060)

    def device_id(self, index: int) -> str:
        """Id of the device number `index` (from 0): the last seven digits count up."""
        return count_up(self.id, index)

    def first_channel_id(self, index: int) -> str:
        """Id of the first channel of device number `index`."""
        base = self.channel_id or self.id[:10] + "132" + self.id[13:]
        return count_up(base, index * self.channels)

    def validate(self) -> None:
        """Raises OptionError with a sentence that names the option."""
        from gb28181gw.sim.quirks import unknown_rows  # the table imports nothing of this module

        try:
            _, port = self.server_address
        except ValueError:
            raise OptionError(
                f"--server {self.server!r}: write HOST:PORT, for example 192.0.2.1:5060."
            ) from None
        if not 0 < port < 65536:
            raise OptionError(f"--server {self.server!r}: the port must be between 1 and 65535.")
        if not (self.id.isdecimal() and self.id.isascii() and len(self.id) == 20):
            raise OptionError(f"--id {self.id!r}: a device id has 20 digits.")
        if self.channel_id and not (self.channel_id.isdecimal() and len(self.channel_id) == 20):
            raise OptionError(f"--channel-id {self.channel_id!r}: a channel id has 20 digits.")
        if self.count < 1:
            raise OptionError("--count must be 1 or more.")
        if self.channels < 0:
            raise OptionError("--channels must be 0 or more.")
        if self.count * max(1, self.channels) > 9_999_999:
            raise OptionError("--count times --channels must stay below 10,000,000 (seven digits of the id).")
        try:
            width, height = self.width, self.height
        except ValueError:
            raise OptionError(f"--size {self.size!r}: write WIDTHxHEIGHT, for example 1280x720.") from None
        if width % 2 or height % 2 or not (64 <= width <= 7680 and 64 <= height <= 4320):
            raise OptionError(f"--size {self.size!r}: even numbers from 64x64 to 7680x4320.")
        if not 1 <= self.fps <= 60:
            raise OptionError("--fps must be between 1 and 60.")
        if self.gop < 1:
            raise OptionError("--gop must be 1 or more.")
        if not 0 <= self.b_frames <= 2:
            raise OptionError("--b-frames must be 0, 1 or 2 (GB/T 28181-2022 Annex F).")
        if not 1 <= self.loop_s <= 120:
            raise OptionError("--loop must be between 1 and 120 seconds.")
        if self.bitrate_kbps < 32:
            raise OptionError("--bitrate must be 32 kbit/s or more.")
        if not 0 <= self.record_hours <= 24 * 366:
            raise OptionError("--record-hours must be between 0 and a year.")
        if not 10 <= self.record_file_s <= 86_400:
            raise OptionError("--record-file must be between 10 and 86400 seconds.")
        if self.hear_dir is not None and not self.hear_dir.is_dir():
            raise OptionError(f"--hear-dir {self.hear_dir}: no such directory.")
        if self.keepalive_s <= 0:
            raise OptionError("--keepalive must be more than 0 seconds.")
        if self.media_file is not None and not self.media_file.is_file():
            raise OptionError(f"--media {self.media_file}: no such file.")
        if self.media_file is not None and self.live_clock:
            raise OptionError("--live-clock makes its own picture: leave --media out.")
        for option in (
            "sip_loss",
            "sip_duplicate",
            "sip_reorder",
            "rtp_loss",
            "rtp_duplicate",
            "rtp_reorder",
        ):
            value: float = getattr(self, option)
            if not 0.0 <= value < 1.0:
                raise OptionError(f"--{option.replace('_', '-')} {value}: a probability from 0 to below 1.")
        wrong = unknown_rows(self.quirks)
        if wrong:
            raise OptionError(
                f"--quirk {wrong[0]}: not in the table; 'gb28181gw simulate device --list-quirks' prints it."
            )


def count_up(base: str, step: int) -> str:
    """`base` with its last seven digits increased by `step`."""
    head, tail = base[:-7], base[-7:]
    return head + str((int(tail) + step) % 10_000_000).zfill(7)
