"""The one exception root and the closed list of error codes.

Exceptions of each package (each package prints its own branch in its `exceptions.py` or module docstring)::

    GatewayError                      carries a code of the closed list; reaches people
    sip.exceptions.SipError           the SIP core
    gb.exceptions.GbError             MANSCDP, SDP, PTZ readers
    media.wire.exceptions.WireError   RTP, PS, NAL readers

A `code` is ``gb.`` + stage + ``.`` + reason (docs/reference/api.md); the log's `reason` is its last part.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the closed list."""

    code: str
    """``gb.<stage>.<reason>``."""
    http_status: int
    """Status of the problem answer."""
    title: str
    """Short and stable, for machines and headlines."""
    hint: str
    """What the reader does next; shown after the detail."""

    @property
    def stage(self) -> str:
        return self.code.split(".")[1]

    @property
    def reason(self) -> str:
        return self.code.rsplit(".", 1)[1]


def _row(code: str, http_status: int, title: str, hint: str) -> ErrorCode:
    return ErrorCode(code=code, http_status=http_status, title=title, hint=hint)


_ROWS = (
    # route: which device or channel, and may it be asked at all
    _row(
        "gb.route.device_unknown",
        404,
        "Unknown device",
        "List the devices with GET /api/v1/devices; register the device or provision it with POST /api/v1/devices.",
    ),
    _row(
        "gb.route.channel_unknown",
        404,
        "Unknown channel",
        "Query the catalogue again with POST /api/v1/devices/{id}/catalog and list its channels.",
    ),
    _row(
        "gb.route.stream_unknown",
        404,
        "Unknown stream",
        "The stream has ended or never was; start one with POST …/live.",
    ),
    _row(
        "gb.route.upper_unknown",
        404,
        "Unknown upper platform",
        "List them with GET /api/v1/uppers; add one with POST /api/v1/uppers.",
    ),
    _row(
        "gb.route.talk_unknown",
        404,
        "Unknown talk",
        "It has ended; start one with POST …/channels/{cid}/talk.",
    ),
    _row(
        "gb.route.download_unknown",
        404,
        "Unknown download",
        "It was removed, or never was; list them with GET /api/v1/downloads.",
    ),
    _row("gb.route.not_found", 404, "Not found", "Check the path against the API reference."),
    _row(
        "gb.route.offline",
        409,
        "Device offline",
        "Check the device's power and network; it must register or send a keepalive first.",
    ),
    _row(
        "gb.route.not_approved",
        409,
        "Device waits for approval",
        "Let it in with POST /api/v1/devices/{id}/approve.",
    ),
    _row("gb.route.busy", 409, "Busy", "Wait for the running operation, or end it, and try again."),
    _row(
        "gb.route.not_steerable",
        409,
        "Not a recording",
        "Pause, seek and speed are for playback and download streams; start one with POST …/playback.",
    ),
    _row("gb.route.exists", 409, "Exists already", "Change it with PATCH, or delete it first."),
    _row("gb.route.invalid", 422, "Invalid request", "Correct the named field and send the request again."),
    _row(
        "gb.route.unauthorised",
        401,
        "No valid key",
        "Send 'Authorization: Bearer KEY'; make a key with 'gb28181gw key create'.",
    ),
    _row(
        "gb.route.not_authorised",
        403,
        "Not allowed",
        "This key's role does not allow the action; use a key of a higher role.",
    ),
    _row("gb.route.rate_limited", 429, "Too many requests", "Wait and try again more slowly."),
    _row(
        "gb.route.edition",
        409,
        "The device's edition does not know this",
        'Send it with "force": true to try all the same, or set the edition that the device really speaks (1.0 2011, 1.1 2014, 2.0 2016, 3.0 2022) with PATCH /api/v1/devices/{id}, as in {"dialect": {"edition": "2.0"}}.',
    ),
    _row(
        "gb.route.unsupported",
        409,
        "The device does not do this",
        'It did not know this command before: send it with "force": true to try again. It is forgotten when the device comes with other firmware.',
    ),
    _row("gb.route.shutting_down", 503, "Gateway is stopping", "Try again when it has restarted."),
    _row(
        "gb.route.storage_unavailable",
        503,
        "Storage does not answer",
        "Check the disk and the database of the gateway; see its log.",
    ),
    _row(
        "gb.route.internal",
        500,
        "Internal error",
        "Report it with the log line that carries the same trace_id.",
    ),
    # sip
    _row(
        "gb.sip.no_answer",
        504,
        "Device did not answer",
        "A device that took the request and never answered probably does not know it. When nothing at all came back: check that its SIP port is reachable from here and that NAT entries live longer than its keepalive; TCP registration helps.",
    ),
    _row(
        "gb.sip.rejected",
        502,
        "Device refused",
        "See sip_status: 400 the ids or domains set in the device and here do not fit; 403/404 it does not know this id; 486 it is busy with another session; 487 check the type digits (11 to 13) of its own id; 488 it cannot send what was asked.",
    ),
    _row(
        "gb.sip.path_lost",
        504,
        "No signalling path",
        "The device's connection is gone; it must connect or register again.",
    ),
    _row(
        "gb.sip.registration_refused",
        502,
        "Upper platform refused us",
        "Check local_id, domain, username, password and edition of the upper platform here, and that it has us in its list of lower platforms.",
    ),
    _row(
        "gb.sip.device_bye",
        502,
        "Device ended the stream",
        "The device sent BYE by itself; its log tells why. Another platform may have taken the channel.",
    ),
    _row("gb.sip.cancelled", 409, "Cancelled", "The stream was stopped while it started; start it again."),
    _row(
        "gb.sip.command_failed",
        502,
        "Device answered ERROR",
        "The device understood the command and could not do it; see detail.",
    ),
    _row(
        "gb.sip.bad_answer",
        502,
        "Answer says nothing",
        "The device answered with a message that cannot be read or lacks what was asked for; see detail and the SIP trace of the device.",
    ),
    _row(
        "gb.sip.no_call",
        504,
        "Device did not call",
        "It agreed to a broadcast and sent no INVITE: check that it may reach this gateway's SIP port, that its loudspeaker is enabled, and that no other platform talks to it.",
    ),
    # sdp
    _row(
        "gb.sdp.bad_sdp",
        502,
        "Answer cannot be read",
        "The device's SDP is broken; see detail and the SIP trace of the device.",
    ),
    # media
    _row(
        "gb.media.no_rtp",
        504,
        "No media arrived",
        "The device agreed but nothing reached our port: check the advertised media address, firewalls and the port range, or try another transport.",
    ),
    _row(
        "gb.media.rtp_wrong_source",
        504,
        "Media from a foreign source",
        "RTP came from another address than the device's and did not fit the call: give the device one network interface or one NAT, or try tcp-passive.",
    ),
    _row(
        "gb.media.ssrc_mismatch",
        504,
        "Media with a foreign SSRC",
        "RTP came with another SSRC than agreed and was not accepted; see detail.",
    ),
    _row(
        "gb.media.tcp_not_connected",
        504,
        "Media connection failed",
        "The TCP connection for the media was not made in time: check firewalls, or try udp or the other TCP role.",
    ),
    _row(
        "gb.media.no_keyframe",
        504,
        "No key frame",
        "Media arrives without a key frame: shorten the key frame interval of the device, and check that encryption is off.",
    ),
    _row(
        "gb.media.no_recording",
        404,
        "Nothing recorded",
        "Ask for the recordings of the time with GET …/records; the device has none for the span that was asked.",
    ),
    _row(
        "gb.media.store_unavailable",
        503,
        "Object store does not answer",
        "What was asked for is in the object store only; see detail, and check [recording.s3], its keys and the way to it.",
    ),
    _row("gb.media.silent", 504, "Media stopped", "The device stopped sending; check its network."),
    _row(
        "gb.media.port_exhausted",
        503,
        "No free media port",
        "Widen [media] ports or end streams; released ports rest for port_rest_s.",
    ),
    _row(
        "gb.media.ssrc_exhausted",
        503,
        "No free SSRC",
        "At most 10,000 streams of one kind run or rest: end some, or wait for port_rest_s.",
    ),
    _row(
        "gb.media.bind_failed",
        503,
        "Media port cannot be bound",
        "Another program uses the port; change [media] ports.",
    ),
    _row(
        "gb.media.plane_unable",
        501,
        "Not in this media plane",
        'Set [media] plane = "python", which can do everything, and start again.',
    ),
    # codec
    _row(
        "gb.codec.codec_unsupported",
        502,
        "Codec not supported",
        "Set the device to H.264 or H.265 with G.711 or AAC.",
    ),
    _row(
        "gb.codec.demux_error",
        502,
        "Stream cannot be read",
        "The media is neither a program stream nor a known elementary stream; see detail.",
    ),
    _row(
        "gb.codec.not_decodable",
        502,
        "Picture cannot be decoded",
        "Look at the channel in a player; a device that sends what no decoder reads needs other video settings.",
    ),
    # output
    _row(
        "gb.output.bad_token",
        401,
        "Token is not valid",
        "Ask the API for a fresh URL; a token may be opened for token_s seconds.",
    ),
    _row(
        "gb.output.unsupported_container",
        404,
        "No such output",
        "Use one of the URLs that the API returns for the stream.",
    ),
    _row(
        "gb.output.too_many_viewers",
        503,
        "Too many viewers",
        "End another player of this stream first.",
    ),
    _row(
        "gb.output.bad_offer",
        400,
        "WebRTC offer cannot be read",
        "Post the SDP of RTCPeerConnection.createOffer() as it is: with receiving transceivers for video and audio to play, with a sending one for a microphone.",
    ),
    _row(
        "gb.output.no_sound_offered",
        406,
        "The offer sends no sound that can be spoken",
        "Offer one sending audio section with Opus, PCMA or PCMU: addTransceiver(track, {direction: 'sendonly'}).",
    ),
    _row(
        "gb.output.codec_not_offered",
        406,
        "The viewer cannot play this codec",
        "Play the H.264 stream of the camera (its sub-stream is often H.264, or set it so), play http_fmp4 or hls in a browser that decodes H.265, or let [media] transcode make H.264: ?video=h264.",
    ),
    _row(
        "gb.output.transcoding_off",
        409,
        "Video is not transcoded here",
        "Set [media] transcode to the number of streams that may be transcoded at once; 'gb28181gw check' tells what one costs.",
    ),
    _row(
        "gb.output.too_many_transcodes",
        503,
        "Too many transcodes",
        "End a player that asks for video=h264, or raise [media] transcode.",
    ),
    _row(
        "gb.output.disk",
        503,
        "File cannot be written",
        "Free space below data_dir, or remove downloads; see detail.",
    ),
    # configuration and host (command line and start)
    _row(
        "gb.config.invalid",
        500,
        "Configuration is not valid",
        "Correct the named key; 'gb28181gw check' tells all that is wrong.",
    ),
    _row(
        "gb.config.port_in_use",
        500,
        "Port is in use",
        "Stop the program that uses it, or change the named key.",
    ),
    _row(
        "gb.config.address_unavailable",
        500,
        "Address cannot be bound",
        "Use an address of this host, or 0.0.0.0; a public address belongs into 'advertise'.",
    ),
    _row(
        "gb.config.data_dir",
        500,
        "Data directory cannot be used",
        "Give the user that runs the gateway write access to data_dir.",
    ),
)

CODES: dict[str, ErrorCode] = {row.code: row for row in _ROWS}
"""The closed list; `docs/reference/errors.md` is checked against it."""


class GatewayError(Exception):
    """An outcome that a person meets on the API, in the log and on the command line.

    `code` is one of `CODES`; `detail` is a sentence about this very case; `sip_status` is the peer's status
    where it gave one; `evidence` are fields for the log (bound address, packets seen, attempts).
    """

    def __init__(
        self, code: str, detail: str = "", *, sip_status: int | None = None, **evidence: object
    ) -> None:
        self.row = CODES[code]
        self.detail = detail or self.row.title
        self.sip_status = sip_status
        self.evidence = evidence
        super().__init__(f"{self.detail} {self.row.hint}")

    @property
    def code(self) -> str:
        return self.row.code

    @property
    def reason(self) -> str:
        return self.row.reason
