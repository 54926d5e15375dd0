"""`gb28181gw simulate device`: the options of the simulator, handed on as they are."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Simulated devices and upper platforms, to try the gateway without a camera and to load it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class SipTransport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


class Video(StrEnum):
    H264 = "h264"
    H265 = "h265"


class Audio(StrEnum):
    PCMA = "pcma"
    PCMU = "pcmu"
    AAC = "aac"
    NONE = "none"


class TalkCodecName(StrEnum):
    PCMA = "pcma"
    PCMU = "pcmu"
    AAC = "aac"
    PS = "ps"


class TalkTransportName(StrEnum):
    UDP = "udp"
    TCP_ACTIVE = "tcp-active"
    TCP_PASSIVE = "tcp-passive"


class EditionName(StrEnum):
    V1_0 = "1.0"
    V1_1 = "1.1"
    V2_0 = "2.0"
    V3_0 = "3.0"


@app.callback()
def simulate() -> None:
    """Simulated devices and upper platforms, to try the gateway without a camera and to load it."""


@app.command("device")
def device(
    server: Annotated[str, typer.Option(help="HOST:PORT of the platform's SIP service.")] = "127.0.0.1:5060",
    server_id: Annotated[str, typer.Option(help="The platform's id.")] = "34020000002000000001",
    domain: Annotated[str, typer.Option(help="The platform's domain (realm).")] = "3402000000",
    password: Annotated[str, typer.Option(help="SIP password; see 'gb28181gw secrets'.")] = "",
    device_id: Annotated[
        str, typer.Option("--id", help="Device id, 20 digits; of several devices the first.")
    ] = "34020000001180000001",
    username: Annotated[str, typer.Option(help="Digest user name; empty: the device id.")] = "",
    count: Annotated[int, typer.Option(help="How many devices.", min=1)] = 1,
    channels: Annotated[int, typer.Option(help="Channels of each device.", min=0)] = 1,
    channel_id: Annotated[
        str, typer.Option(help="Id of the first channel; empty: made from the device id.")
    ] = "",
    name: Annotated[str, typer.Option(help="Device name.")] = "Simulated NVR",
    transport: Annotated[SipTransport, typer.Option(help="Transport of SIP.")] = SipTransport.UDP,
    bind: Annotated[str, typer.Option(help="Local address; empty: chosen by the host's routing.")] = "",
    video: Annotated[Video, typer.Option(help="Video codec.")] = Video.H264,
    audio: Annotated[Audio, typer.Option(help="Audio codec.")] = Audio.PCMA,
    size: Annotated[str, typer.Option(help="Picture size, WIDTHxHEIGHT.")] = "1280x720",
    fps: Annotated[int, typer.Option(help="Frames a second.")] = 25,
    bitrate: Annotated[int, typer.Option(help="Video bit rate in kbit/s.")] = 2000,
    gop: Annotated[int, typer.Option(help="Frames from key frame to key frame.")] = 50,
    b_frames: Annotated[int, typer.Option(help="B-frames between others, 0 to 2.")] = 0,
    loop: Annotated[int, typer.Option(help="Length of the picture loop in seconds.")] = 10,
    live_clock: Annotated[
        bool, typer.Option("--live-clock", help="Encode while sending, with the wall clock in the picture.")
    ] = False,
    media: Annotated[
        Path | None,
        typer.Option(help="Send this file in a loop in place of the made picture.", show_default=False),
    ] = None,
    keepalive: Annotated[float, typer.Option(help="Seconds between keepalives.")] = 60.0,
    expires: Annotated[int, typer.Option(help="Seconds of a registration.")] = 3600,
    edition: Annotated[EditionName, typer.Option(help="Edition of the standard.")] = EditionName.V3_0,
    charset: Annotated[str, typer.Option(help="Character set declared in XML.")] = "GB2312",
    catalog_page: Annotated[int, typer.Option(help="Channels in one Catalog message.", min=1)] = 2,
    talk_codec: Annotated[
        TalkCodecName, typer.Option(help="What its loudspeakers ask for.")
    ] = TalkCodecName.PCMA,
    talk_transport: Annotated[
        TalkTransportName, typer.Option(help="Transport of their sound, as the device says of itself.")
    ] = TalkTransportName.UDP,
    speakers: Annotated[int, typer.Option(help="Audio outputs (type 137) in the catalogue.", min=0)] = 0,
    hear_dir: Annotated[
        Path | None,
        typer.Option(help="Write what loudspeakers heard into this directory.", show_default=False),
    ] = None,
    quirk: Annotated[
        list[str] | None,
        typer.Option(
            help="A deviation of real devices, by its row id; may be given several times.", show_default=False
        ),
    ] = None,
    list_quirks: Annotated[bool, typer.Option("--list-quirks", help="Print the deviations and end.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of every random choice; without it one is chosen and printed.", show_default=False
        ),
    ] = None,
    sip_loss: Annotated[float, typer.Option(help="Probability that a sent SIP datagram is lost.")] = 0.0,
    sip_duplicate: Annotated[float, typer.Option(help="Probability that it is sent twice.")] = 0.0,
    sip_reorder: Annotated[float, typer.Option(help="Probability that it is overtaken.")] = 0.0,
    rtp_loss: Annotated[float, typer.Option(help="Probability that an RTP packet is lost.")] = 0.0,
    rtp_duplicate: Annotated[float, typer.Option(help="Probability that it is sent twice.")] = 0.0,
    rtp_reorder: Annotated[float, typer.Option(help="Probability that it is overtaken.")] = 0.0,
    register_rate: Annotated[float, typer.Option(help="Devices started a second; 0: all at once.")] = 50.0,
    retry: Annotated[float, typer.Option(help="Seconds to wait after a refused registration.")] = 60.0,
    alarm: Annotated[float, typer.Option(help="Seconds between alarms; 0: none.", min=0)] = 0.0,
    position: Annotated[
        float, typer.Option(help="Seconds between positions; 0: none. Since edition 2.0.", min=0)
    ] = 0.0,
    record_hours: Annotated[
        float, typer.Option(help="Hours of recordings up to now; 0: none.", min=0)
    ] = 24.0,
    record_file: Annotated[int, typer.Option(help="Seconds of a recorded file.", min=10)] = 600,
    change: Annotated[
        float, typer.Option(help="Seconds between changes of the first channel's state; 0: none.", min=0)
    ] = 0.0,
    duration: Annotated[float, typer.Option(help="End after so many seconds; 0: run until Ctrl-C.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Run simulated devices with moving pictures against a platform."""
    if list_quirks:
        from gb28181gw.sim.command import list_quirks as print_quirks

        raise typer.Exit(print_quirks(as_json=as_json))
    from gb28181gw.sim.command import DeviceOptions, run_device

    options = DeviceOptions(
        server=server,
        server_id=server_id,
        domain=domain,
        password=password,
        id=device_id,
        username=username,
        count=count,
        channels=channels,
        channel_id=channel_id,
        name=name,
        transport=transport.value,
        bind=bind,
        video=video.value,
        audio=audio.value,
        size=size,
        fps=fps,
        bitrate_kbps=bitrate,
        gop=gop,
        b_frames=b_frames,
        loop_s=loop,
        live_clock=live_clock,
        media_file=media,
        keepalive_s=keepalive,
        expires_s=expires,
        edition=edition.value,
        charset=charset,
        catalog_page=catalog_page,
        talk_codec=talk_codec.value,
        talk_transport=talk_transport.value,
        speakers=speakers,
        hear_dir=hear_dir,
        quirks=tuple(quirk or ()),
        seed=seed,
        sip_loss=sip_loss,
        sip_duplicate=sip_duplicate,
        sip_reorder=sip_reorder,
        rtp_loss=rtp_loss,
        rtp_duplicate=rtp_duplicate,
        rtp_reorder=rtp_reorder,
        register_rate=register_rate,
        retry_s=retry,
        alarm_s=alarm,
        position_s=position,
        record_hours=record_hours,
        record_file_s=record_file,
        change_s=change,
        duration_s=duration,
        json=as_json,
    )
    raise typer.Exit(run_device(options))


class MediaWay(StrEnum):
    UDP = "udp"
    TCP_PASSIVE = "tcp-passive"
    TCP_ACTIVE = "tcp-active"


class Algorithm(StrEnum):
    MD5 = "MD5"
    SHA_256 = "SHA-256"


@app.command("platform")
def platform(
    listen: Annotated[str, typer.Option(help="HOST:PORT to be registered at.")] = "127.0.0.1:5080",
    platform_id: Annotated[str, typer.Option("--id", help="The platform's id.")] = "34020000002000000099",
    domain: Annotated[str, typer.Option(help="The platform's domain (realm).")] = "3402000000",
    password: Annotated[str, typer.Option(help="What lower platforms must know.")] = "",
    algorithm: Annotated[Algorithm, typer.Option(help="Of the challenge.")] = Algorithm.MD5,
    edition: Annotated[EditionName, typer.Option(help="Edition of the standard.")] = EditionName.V3_0,
    redirect: Annotated[
        str, typer.Option(help="HOST:PORT that registrations are sent on to (302).", show_default=False)
    ] = "",
    play: Annotated[
        str,
        typer.Option(help="Play this channel of the first that registers, or 'first'.", show_default=False),
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write the program stream to this file.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Play or talk for so long.")] = 10.0,
    media: Annotated[MediaWay, typer.Option(help="Transport of the media, as offered.")] = MediaWay.UDP,
    talk: Annotated[
        str,
        typer.Option(
            help="Talk with this channel (s=Talk), or 'first': a tone goes down.", show_default=False
        ),
    ] = "",
    hear: Annotated[
        Path | None, typer.Option(help="Write what it says to this WAV file.", show_default=False)
    ] = None,
    ptz: Annotated[
        str, typer.Option(help="Move for a second: left, right, up, down, in or out.", show_default=False)
    ] = "",
    subscribe: Annotated[
        list[str] | None,
        typer.Option(
            help="Catalog, Alarm, MobilePosition or PTZPosition; several times.", show_default=False
        ),
    ] = None,
    duration: Annotated[
        float, typer.Option(help="End after so many seconds; 0: when done, or Ctrl-C.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Run an upper platform: lower ones register here, their tree is shown, a channel is played into a file."""
    from gb28181gw.sim.platform_command import PlatformOptions, PlatformTask, run_platform

    options = PlatformOptions(
        listen=listen,
        id=platform_id,
        domain=domain,
        password=password,
        algorithm=algorithm.value,
        edition=edition.value,
        redirect=redirect,
    )
    task = PlatformTask(
        play=play,
        output=output,
        seconds=seconds,
        media=media.value,
        ptz=ptz,
        talk=talk,
        hear=hear,
        subscribe=tuple(subscribe or ()),
        duration_s=duration,
        json=as_json,
    )
    raise typer.Exit(run_platform(options, task))
