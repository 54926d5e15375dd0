"""The table of misbehaviour: row id -> what the simulated device does wrong. One row, one switch, any mix.

Row ids are those of the field survey (REG, KA, XML, CAT, CTL, INV, MED, SES) and of the fault table (F). A row that
is known in several forms has one id a form: ``INV-03`` is the first, ``INV-03-ZERO`` another.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Quirk(StrEnum):
    """Closed list; the value is what `--quirk` takes (in any case)."""

    REG_01 = "REG-01"
    REG_01_BARE = "REG-01-BARE"
    REG_02 = "REG-02"
    REG_03 = "REG-03"
    REG_04 = "REG-04"
    REG_06 = "REG-06"
    REG_07 = "REG-07"
    REG_10 = "REG-10"
    REG_10_CONTACT = "REG-10-CONTACT"
    REG_11 = "REG-11"
    REG_12 = "REG-12"
    REG_13 = "REG-13"
    REG_15 = "REG-15"
    REG_16 = "REG-16"
    REG_17 = "REG-17"
    REG_21 = "REG-21"
    REG_22 = "REG-22"
    KA_01 = "KA-01"
    KA_02 = "KA-02"
    KA_03 = "KA-03"
    KA_06 = "KA-06"
    KA_06_ERROR = "KA-06-ERROR"
    XML_01 = "XML-01"
    XML_02 = "XML-02"
    XML_03 = "XML-03"
    XML_04 = "XML-04"
    XML_05 = "XML-05"
    XML_06 = "XML-06"
    XML_07 = "XML-07"
    XML_08 = "XML-08"
    XML_08_CUT = "XML-08-CUT"
    XML_10 = "XML-10"
    XML_11 = "XML-11"
    XML_11_OTHER = "XML-11-OTHER"
    XML_12 = "XML-12"
    XML_13 = "XML-13"
    XML_13_CONTROL = "XML-13-CONTROL"
    XML_14 = "XML-14"
    XML_14_LONG = "XML-14-LONG"
    XML_15 = "XML-15"
    XML_16 = "XML-16"
    XML_16_ALL = "XML-16-ALL"
    XML_17 = "XML-17"
    XML_18 = "XML-18"
    XML_20 = "XML-20"
    XML_23 = "XML-23"
    CAT_01 = "CAT-01"
    CAT_02 = "CAT-02"
    CAT_03 = "CAT-03"
    CAT_04 = "CAT-04"
    CAT_05 = "CAT-05"
    CAT_07 = "CAT-07"
    CAT_08 = "CAT-08"
    CAT_09 = "CAT-09"
    CAT_10 = "CAT-10"
    CAT_11 = "CAT-11"
    CAT_12 = "CAT-12"
    CAT_14 = "CAT-14"
    CAT_15 = "CAT-15"
    CAT_16 = "CAT-16"
    CAT_19 = "CAT-19"
    CAT_19_REFUSED = "CAT-19-REFUSED"
    CAT_19_SILENT = "CAT-19-SILENT"
    CAT_19_ENDS = "CAT-19-ENDS"
    CAT_19_EVENT = "CAT-19-EVENT"
    CAT_19_ERROR = "CAT-19-ERROR"
    CAT_20 = "CAT-20"
    CAT_20_FULL = "CAT-20-FULL"
    CAT_21 = "CAT-21"
    CTL_01 = "CTL-01"
    CTL_02 = "CTL-02"
    CTL_03 = "CTL-03"
    CTL_04 = "CTL-04"
    CTL_05 = "CTL-05"
    CTL_07 = "CTL-07"
    CTL_08 = "CTL-08"
    CTL_08_IGNORED = "CTL-08-IGNORED"
    CTL_08_REBOOT = "CTL-08-REBOOT"
    CTL_09 = "CTL-09"
    CTL_10 = "CTL-10"
    CTL_11 = "CTL-11"
    CTL_11_ERROR = "CTL-11-ERROR"
    CTL_11_EMPTY = "CTL-11-EMPTY"
    CTL_11_501 = "CTL-11-501"
    INV_01 = "INV-01"
    INV_02 = "INV-02"
    INV_03 = "INV-03"
    INV_03_ZERO = "INV-03-ZERO"
    INV_03_HEX = "INV-03-HEX"
    INV_03_SWAPPED = "INV-03-SWAPPED"
    INV_03_EACH = "INV-03-EACH"
    INV_04 = "INV-04"
    INV_08 = "INV-08"
    INV_09 = "INV-09"
    INV_11 = "INV-11"
    INV_13 = "INV-13"
    INV_13_ALL = "INV-13-ALL"
    INV_14 = "INV-14"
    INV_15 = "INV-15"
    INV_16 = "INV-16"
    INV_17 = "INV-17"
    INV_18 = "INV-18"
    INV_18_OMIT = "INV-18-OMIT"
    INV_18_ACTPASS = "INV-18-ACTPASS"
    INV_19 = "INV-19"
    INV_20 = "INV-20"
    INV_21 = "INV-21"
    INV_24 = "INV-24"
    INV_25 = "INV-25"
    INV_30 = "INV-30"
    MED_01 = "MED-01"
    MED_02 = "MED-02"
    MED_02_FIRST = "MED-02-FIRST"
    MED_03 = "MED-03"
    MED_04 = "MED-04"
    MED_05 = "MED-05"
    MED_08 = "MED-08"
    MED_10 = "MED-10"
    MED_13 = "MED-13"
    MED_16 = "MED-16"
    MED_17 = "MED-17"
    MED_18 = "MED-18"
    MED_19 = "MED-19"
    MED_20 = "MED-20"
    MED_21 = "MED-21"
    MED_22 = "MED-22"
    MED_22_ALL = "MED-22-ALL"
    MED_23 = "MED-23"
    MED_25 = "MED-25"
    MED_26 = "MED-26"
    MED_27 = "MED-27"
    MED_29 = "MED-29"
    MED_30 = "MED-30"
    MED_33 = "MED-33"
    MED_34 = "MED-34"
    PB_01 = "PB-01"
    PB_04 = "PB-04"
    PB_04_LOST = "PB-04-LOST"
    PB_04_LATE = "PB-04-LATE"
    PB_05 = "PB-05"
    PB_06 = "PB-06"
    PB_07 = "PB-07"
    PB_08 = "PB-08"
    PB_08_ALL = "PB-08-ALL"
    PB_08_REFUSED = "PB-08-REFUSED"
    PB_08_TIMES = "PB-08-TIMES"
    PB_09 = "PB-09"
    PB_11 = "PB-11"
    PB_11_BYE = "PB-11-BYE"
    PB_11_MIDDLE = "PB-11-MIDDLE"
    PB_12 = "PB-12"
    PB_12_INFO = "PB-12-INFO"
    PB_13 = "PB-13"
    PB_14 = "PB-14"
    PB_14_STOP = "PB-14-STOP"
    PB_14_SPEED = "PB-14-SPEED"
    PB_16 = "PB-16"
    PB_18 = "PB-18"
    SES_01 = "SES-01"
    SES_04 = "SES-04"
    TK_01 = "TK-01"
    TK_01_TALK = "TK-01-TALK"
    TK_02 = "TK-02"
    TK_02_ALL = "TK-02-ALL"
    TK_03 = "TK-03"
    TK_04 = "TK-04"
    TK_04_UNREAD = "TK-04-UNREAD"
    TK_05 = "TK-05"
    TK_05_G729 = "TK-05-G729"
    TK_07 = "TK-07"
    TK_08 = "TK-08"
    F_05_SILENT = "F-05-SILENT"
    F_05_TRYING = "F-05-TRYING"
    F_05_NO_SDP = "F-05-NO-SDP"
    F_05_NO_RTP = "F-05-NO-RTP"
    F_05_LATE = "F-05-LATE"
    F_06 = "F-06"


TABLE: dict[Quirk, str] = {
    Quirk.REG_01: "digest uri is sip:<server id>@<ip>:<port>, not the Request-URI",
    Quirk.REG_01_BARE: "digest uri without the sip: scheme",
    Quirk.REG_02: "ignores qop and answers as RFC 2069 did (no cnonce, nc, qop)",
    Quirk.REG_03: "nc written without padding and in upper case",
    Quirk.REG_04: "first answers the challenge with an empty Authorization header",
    Quirk.REG_06: "refreshes without credentials until challenged again, with the first nonce afterwards",
    Quirk.REG_07: "registers again at once, without pause, after a refusal",
    Quirk.REG_10: "no Expires anywhere in REGISTER",
    Quirk.REG_10_CONTACT: "Expires only as a parameter of Contact",
    Quirk.REG_11: "unregisters right before its first REGISTER, as after a reboot",
    Quirk.REG_12: "asks for an expiry of 60 s",
    Quirk.REG_13: "device id of 19 digits",
    Quirk.REG_15: "a second device with the same id registers from another port",
    Quirk.REG_16: "Via, From and Contact carry 192.168.1.64 and no rport",
    Quirk.REG_17: "refreshes its registration from a new port after two keepalives",
    Quirk.REG_21: "TCP: a new connection for every REGISTER",
    Quirk.REG_22: "TCP: sends a double CRLF between messages",
    Quirk.KA_01: "beats at half the configured interval",
    Quirk.KA_02: "BasicParam tells senseless heartbeat values: 0 and -1",
    Quirk.KA_03: "asks for an expiry shorter than its heartbeat",
    Quirk.KA_06: "keepalive without Status and with the root Response",
    Quirk.KA_06_ERROR: "keepalive with Status ERROR and a list of faulty channels",
    Quirk.XML_01: "declares GB2312, sends names that only GB18030 has",
    Quirk.XML_02: "declares GB2312, sends UTF-8",
    Quirk.XML_03: "byte order mark and blank lines, no XML declaration",
    Quirk.XML_04: "control characters in Address, NUL bytes after the root",
    Quirk.XML_05: "unescaped & in names and in a URL",
    Quirk.XML_06: "unescaped < in Address, and half a character before a closing tag",
    Quirk.XML_07: "bytes of uninitialised memory in Address",
    Quirk.XML_08: "an extra </Item>",
    Quirk.XML_08_CUT: "the body ends in the middle of its last tag",
    Quirk.XML_10: "CmdType and SN as attributes, tag names in lower case",
    Quirk.XML_11: "answers without SN",
    Quirk.XML_11_OTHER: "answers with another SN than asked",
    Quirk.XML_12: "status answers carry the channel's id where the device's was asked",
    Quirk.XML_13: "no Result in DeviceInfo, Chinese text as Result in DeviceStatus",
    Quirk.XML_13_CONTROL: "Fail with a reason as Result of every control",
    Quirk.XML_14: "Content-Length of MESSAGE is 8 too small",
    Quirk.XML_14_LONG: "Content-Length of MESSAGE is 8 too large",
    Quirk.XML_15: "UDP: bodies of more than 1,050 bytes are lost on the way",
    Quirk.XML_16: "two bytes in the middle of a body changed on the way",
    Quirk.XML_16_ALL: "no markup is left of any answer",
    Quirk.XML_17: "Content-Type text/plain",
    Quirk.XML_18: "a second XML document in the same body",
    Quirk.XML_20: "compact and folded headers in lower case",
    Quirk.XML_23: "names with quotes, 4-byte characters and 300 letters",
    Quirk.CAT_01: "SumNum is 5 more than what ever arrives",
    Quirk.CAT_02: "SumNum is the number of items in this message",
    Quirk.CAT_03: "every keepalive is followed by an unsolicited Catalog Response with one item and SumNum 1",
    Quirk.CAT_04: "catalogue pages out of order and each twice",
    Quirk.CAT_05: "first catalogue message without items, and Num wrong in the others",
    Quirk.CAT_07: "ParentID: server id, own id, 0, empty, a path",
    Quirk.CAT_08: "Parental 65535 and 255",
    Quirk.CAT_09: "Status ON, OK, ONLINE, On, 1, absent, OFF in turn",
    Quirk.CAT_10: "CivilCode: the word itself, 20 digits, an odd number of digits",
    Quirk.CAT_11: "placeholder texts as values: Manufacturer, Model, Owner, Address",
    Quirk.CAT_12: "business group and virtual organisations, after their children and partly without parent",
    Quirk.CAT_14: "the first channel has the id of the device",
    Quirk.CAT_15: "answers no catalogue query at all",
    Quirk.CAT_16: "alarm inputs, displays and audio channels among the cameras",
    Quirk.CAT_19: "grants subscriptions and never notifies",
    Quirk.CAT_19_REFUSED: "405 to every SUBSCRIBE",
    Quirk.CAT_19_SILENT: "no answer to SUBSCRIBE",
    Quirk.CAT_19_ENDS: "forgets a subscription after a second, and answers 481 to its renewal",
    Quirk.CAT_19_EVENT: "489 to a SUBSCRIBE whose Event is not presence",
    Quirk.CAT_19_ERROR: "200 to SUBSCRIBE with a Response in its body that says ERROR",
    Quirk.CAT_20: "Event of catalogue notifications in lower case",
    Quirk.CAT_20_FULL: "catalogue notifications as in 2011: root Response, full items, no Event",
    Quirk.CAT_21: "NOTIFY with another To tag and another id of its Event",
    Quirk.CTL_01: "no alarm before SetGuard",
    Quirk.CTL_02: "alarms of an alarm input that is not in the catalogue",
    Quirk.CTL_03: "alarms carry the device's id, not the channel's",
    Quirk.CTL_04: "positions in bursts, with 0/0 among them and without a time",
    Quirk.CTL_05: "takes PTZ codes and moves nothing",
    Quirk.CTL_07: "403 to every control",
    Quirk.CTL_08: "no answer to a configuration that names a channel",
    Quirk.CTL_08_IGNORED: "answers OK to a configuration and changes nothing",
    Quirk.CTL_08_REBOOT: "unregisters and registers again in place of an answer to a configuration",
    Quirk.CTL_09: "ConfigDownload answered with another element than the type that was asked for",
    Quirk.CTL_10: "PresetQuery answered with SumNum 0 and 255 default entries",
    Quirk.CTL_11: "no answer to the commands that are new in 2022",
    Quirk.CTL_11_ERROR: "ERROR to the queries that are new in 2022",
    Quirk.CTL_11_EMPTY: "answers without content to the queries that are new in 2022, and OK without the configuration",
    Quirk.CTL_11_501: "501 to the commands that are new in 2022",
    Quirk.INV_01: "answer without y=",
    Quirk.INV_02: "answer with an SSRC of its own, which the RTP carries",
    Quirk.INV_03: "RTP with a random SSRC that nobody announced",
    Quirk.INV_03_ZERO: "RTP with SSRC 0",
    Quirk.INV_03_HEX: "RTP with the digits of y= read as hexadecimal",
    Quirk.INV_03_SWAPPED: "RTP with the bytes of the SSRC swapped",
    Quirk.INV_03_EACH: "another SSRC in every RTP packet",
    Quirk.INV_04: "y= in the answer without leading zeros and with a blank",
    Quirk.INV_08: "400 to an INVITE whose domain is not the registered one",
    Quirk.INV_09: "404 to every INVITE",
    Quirk.INV_11: "486 to every INVITE",
    Quirk.INV_13: "488 to an INVITE that offers anything besides PS",
    Quirk.INV_13_ALL: "488 to every INVITE",
    Quirk.INV_14: "500 to the first INVITE of each channel",
    Quirk.INV_15: "no final answer to INVITE, but RTP flows",
    Quirk.INV_16: "no media before the ACK",
    Quirk.INV_17: "c= and m= of the answer: 0.0.0.0 and port 0 (TCP passive: 192.168.1.64 and the true port)",
    Quirk.INV_18: "a=setup of the answer repeats the offer's role",
    Quirk.INV_18_OMIT: "answer to a TCP offer without a=setup",
    Quirk.INV_18_ACTPASS: "a=setup:actpass in the answer",
    Quirk.INV_19: "TCP: dials before the 200 is sent",
    Quirk.INV_20: "TCP: dials 4 s after the ACK",
    Quirk.INV_21: "accepts TCP offers and never connects: UDP only",
    Quirk.INV_24: "answers TCP/RTP/AVP to a UDP offer and sends UDP",
    Quirk.INV_25: "s= of the answer is free text",
    Quirk.INV_30: "never reacts to INVITE, while MESSAGE works",
    Quirk.MED_01: "PSM names the other video codec",
    Quirk.MED_02: "no PSM and no system header at all",
    Quirk.MED_02_FIRST: "PSM in the first pack only",
    Quirk.MED_03: "the first two PSM list audio only",
    Quirk.MED_04: "PSM with wrong map length, overrunning descriptor and CRC 0",
    Quirk.MED_05: "PES packet length 0 for video",
    Quirk.MED_08: "private stream 0xBD whose content looks like start codes",
    Quirk.MED_10: "pack headers cut to their start code",
    Quirk.MED_13: "PSM says G.711 (0x90), audio is AAC",
    Quirk.MED_16: "audio declared, never sent",
    Quirk.MED_17: "audio begins after 5 s",
    Quirk.MED_18: "MPEG-TS under the payload type of PS",
    Quirk.MED_19: "RTP payload type 40",
    Quirk.MED_20: "RTP timestamp is always 0",
    Quirk.MED_21: "PTS jumps forward by an hour after 5 s, and back after another 5 s",
    Quirk.MED_22: "RTP marker never set",
    Quirk.MED_22_ALL: "RTP marker on every packet",
    Quirk.MED_23: "RTP sequence restarts at 0 every 5 s",
    Quirk.MED_25: "TCP: now and then a packet is cut short after its length was sent",
    Quirk.MED_26: "TCP: RTSP-interleaved framing ($, channel, length)",
    Quirk.MED_27: "TCP: RTP packets of up to 64 KB",
    Quirk.MED_29: "first packet on the port is RTCP, from another SSRC",
    Quirk.MED_30: "a stranger's RTP with another SSRC in between",
    Quirk.MED_33: "UDP source port changes after 5 s",
    Quirk.MED_34: "starts in the middle of a GOP and sends key frames only when asked (IFrameCmd) or after 20 s",
    Quirk.PB_01: "times of recordings in odd forms: one-digit months, blanks, milliseconds, Z",
    Quirk.PB_04: "one recording in each message, half a second apart",
    Quirk.PB_04_LOST: "every third message of recordings is never sent",
    Quirk.PB_04_LATE: "messages of recordings out of order, each twice, and the last one after 3 s",
    Quirk.PB_05: "of two questions for recordings at once only the first is answered",
    Quirk.PB_06: "no answer to a question for recordings when there are none",
    Quirk.PB_07: "t= is taken loosely: begins 6 s early and plays on past the end",
    Quirk.PB_08: "answers OK to a speed and goes on at the old one",
    Quirk.PB_08_ALL: "answers OK to every INFO and does nothing",
    Quirk.PB_08_REFUSED: "refuses every speed: 200 to the INFO, 400 in its MANSRTSP answer",
    Quirk.PB_08_TIMES: "sends faster at a speed, with timestamps that go on at 1",
    Quirk.PB_09: "understands MANSRTSP/1.0 only: 400 to RTSP/1.0",
    Quirk.PB_11: "at the end of a recording the stream just stops: no MediaStatus, no BYE",
    Quirk.PB_11_BYE: "BYE at the end of a recording in place of MediaStatus",
    Quirk.PB_11_MIDDLE: "the stream stops in the middle of a recording and its dialog stays",
    Quirk.PB_12: "MediaStatus outside the dialog, with a Call-ID of its own",
    Quirk.PB_12_INFO: "MediaStatus as INFO",
    Quirk.PB_13: "5 s are missing at the end of every recorded file",
    Quirk.PB_14: "MediaStatus 121 at the end of every recorded file, and goes on with the next",
    Quirk.PB_14_STOP: "MediaStatus 121 at the end of a recorded file, and nothing of the next",
    Quirk.PB_14_SPEED: "MediaStatus 121 at the end of every recorded file, and goes on with the next at speed 1",
    Quirk.PB_16: "486 to a playback or download while the channel streams anything",
    Quirk.PB_18: "recordings with blanks in Secrecy, a number as Type and raw characters in FilePath",
    Quirk.SES_01: "answers BYE with 200 and goes on sending for 60 s",
    Quirk.SES_04: "sends BYE itself after 10 s",
    Quirk.TK_01: "knows broadcast only: 488 to s=Talk",
    Quirk.TK_01_TALK: "knows s=Talk only: ERROR to Broadcast",
    Quirk.TK_02: "OK to a Broadcast to a camera, and then no INVITE: only audio outputs and the device itself call",
    Quirk.TK_02_ALL: "OK to every Broadcast, and never an INVITE",
    Quirk.TK_03: "calls from another id than the one that was told to listen",
    Quirk.TK_04: "the SDP of its call has neither o= nor t=",
    Quirk.TK_04_UNREAD: "the SDP of its call cannot be read",
    Quirk.TK_05: "wants its audio inside a program stream",
    Quirk.TK_05_G729: "wants G.729 to listen to, and nothing else",
    Quirk.TK_07: "BYE when sound comes from another port than announced, or with another SSRC",
    Quirk.TK_08: "sends no ACK before sound arrives",
    Quirk.F_05_SILENT: "nothing answers an INVITE, not even 100",
    Quirk.F_05_TRYING: "only 100 answers an INVITE",
    Quirk.F_05_NO_SDP: "200 to INVITE without SDP",
    Quirk.F_05_NO_RTP: "200 to INVITE, and not one packet",
    Quirk.F_05_LATE: "answers 200 after 12 s, even when cancelled meanwhile",
    Quirk.F_06: "ignores BYE: no answer, and goes on sending until the program ends",
}
"""What `--list-quirks` prints, in this order."""


def normalise(name: str) -> str:
    """`name` as rows are written: ``reg01``, ``REG_01`` and ``reg-01`` are ``REG-01``."""
    text = name.strip().upper().replace("_", "-")
    head = text.rstrip("-ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if head and "-" not in head:
        letters = head.rstrip("0123456789")
        text = f"{letters}-{text[len(letters) :]}"
    return text


def unknown_rows(names: Iterable[str]) -> list[str]:
    """Those of `names` that are no row."""
    known = {quirk.value for quirk in Quirk}
    return [name for name in names if normalise(name) not in known]


def select(names: Iterable[str]) -> frozenset[Quirk]:
    """The rows of `names`. Raises ValueError for one that is unknown."""
    return frozenset(Quirk(normalise(name)) for name in names)
