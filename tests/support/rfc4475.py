"""Torture messages after RFC 4475, in our own construction: same rule broken or stretched, other words.

Each row names the section, the octets, and the wanted verdict of a server that is an endpoint (not a proxy):

- `accept`: the parser reads it and `validate.verdict` lets it go on; what the layer above does is in the note;
- a status: the parser (`status_hint`) or `verdict` names it, and an answer with that status can be built;
- `drop`: nothing is answered;
- `transaction`: reads fine, and the transaction layer must treat it specially, as the check says.

Where the tolerance for GB/T 28181 devices and the RFC differ, `wins` says which one holds here and why.
The rows are judged by the parser alone in `tests/conformance`, and sent to a running gateway in `tests/interop`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gb28181gw.sip.digest import parse_credentials
from gb28181gw.sip.message import Message, Request, Response
from gb28181gw.sip.validate import unsupported_extensions


def no_more(message: Message) -> bool:
    """Nothing beyond the verdict is to be checked."""
    return message is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    section: str
    head: str
    """Lines of the head; the blank line is added, and Content-Length where `length` asks for it."""
    body: bytes = b""
    length: int | None = -1
    """-1: the right one; None: no Content-Length line is added."""
    want: str | int = "accept"
    check: Callable[[Message], bool] = no_more
    wins: str = ""
    note: str = ""

    @property
    def octets(self) -> bytes:
        head = self.head.strip("\n").replace("\n", "\r\n").encode("utf-8")
        if self.length is not None:
            head += b"\r\nContent-Length: %d" % (len(self.body) if self.length == -1 else self.length)
        return head + b"\r\n\r\n" + self.body


def request(case: str = "", *, line: str = "OPTIONS sip:3402000000 SIP/2.0", **changed: str) -> str:
    """A plain head with some fields changed; "" leaves a field out. Extra fields go in `case`, one per line."""
    fields = {
        "Via": "SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKtorture1",
        "From": "<sip:34020000001320000001@3402000000>;tag=f1",
        "To": "<sip:34020000002000000001@3402000000>",
        "Call-ID": "torture.1@192.0.2.9",
        "CSeq": f"7 {line.split()[0]}",
        "Max-Forwards": "70",
    }
    for name, value in changed.items():
        fields[name.replace("_", "-")] = value
    lines = [line] + [f"{name}: {value}" for name, value in fields.items() if value]
    return "\n".join(lines + ([case.strip("\n")] if case else []))


def response(case: str = "", *, line: str = "SIP/2.0 200 OK", **changed: str) -> str:
    return request(case, line=line, **({"CSeq": "7 INVITE"} | changed))


SDP = b"v=0\r\no=34020000001320000001 0 0 IN IP4 192.0.2.9\r\ns=Play\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"


def as_request(message: Message) -> Request:
    assert isinstance(message, Request)
    return message


def tortuous(message: Message) -> bool:
    vias = message.headers.get_all("Via")
    contact = message.contact
    assert contact is not None
    return (
        message.to.tag == "1918z"
        and message.from_.display == 'A "quoted\\" name'
        and message.from_.tag == "98asj"
        and message.cseq.number == 9
        and message.cseq.method == "INVITE"
        and message.via.host == "192.0.2.2"
        and message.via.branch == "390skdj"
        and len(vias) == 3
        and contact.display == 'Quoted string ""'
        and contact.param("newparam") == "newvalue"
        and contact.param("q") == "0.33"
        and message.headers.get("NewFangledHeader") == "newfangled value continued newfangled value"
        and message.headers.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
        and as_request(message).request_uri.param("unknownparam") == ""
        and message.body == SDP
    )


VALID = [
    Case(
        name="wsinv",
        section="3.1.1.1",
        head="""
INVITE sip:34020000001320000001@3402000000;unknownparam SIP/2.0
TO :
 sip:34020000001320000001@3402000000 ;   tag    = 1918z
from   : "A \\"quoted\\\\\\" name"       <sip:34020000002000000001@3402000000>
  ;
  tag = 98asj
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
cOntent-TYPE : application/sdp
CSeq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdj
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Route:
 <sip:services.example;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \\"\\"" <sip:34020000001320000001@192.0.2.3> ; newparam =
      newvalue ;
  secondparam ; q = 0.33
""",
        body=SDP,
        check=tortuous,
        note="folding, odd blanks, compact and mixed-case names, escaped quotes, leading zeros",
    ),
    Case(
        name="intmeth",
        section="3.1.1.2",
        head=request(
            'Extension!weird~Name: value with ; , : <> "in" it',
            line="!interesting-Method0123456789_*+`.%indeed'~ "
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(it-is)"
            "@example SIP/2.0",
            From="=?utf-8?q?=41=42?= <sip:mundane@example>;tag=_token~1'+`*%!-.",
            To='"BEL:\\\x07 NUL:\\x00 DEL:\\\x7f" <sip:1_unusual.URI~(to-be!sure)@example>',
            Call_ID="intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{",
        ),
        check=lambda m: (
            as_request(m).method == "!interesting-Method0123456789_*+`.%indeed'~"
            and as_request(m).request_uri.host == "example"
            and as_request(m).request_uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
            and m.from_.tag == "_token~1'+`*%!-."
        ),
        note="every character that the grammar allows; unknown method: 405 or 501 from above",
    ),
    Case(
        name="esc01",
        section="3.1.1.3",
        head=request(
            line="INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0",
            To="sip:%75se%72@example.com",
            From="<sip:I%20have%20spaces@example.net>;tag=938",
        ),
        check=lambda m: (
            as_request(m).request_uri.user == "sips%3Auser%40example.com"
            and as_request(m).request_uri.is_sip
            and m.to.uri.user == "%75se%72"
        ),
        note="escapes are neither decoded nor touched",
    ),
    Case(
        name="escnull",
        section="3.1.1.4",
        head=request(
            "Contact: <sip:%00@host5.example>\nContact: <sip:%00%00@host5.example>",
            line="REGISTER sip:example SIP/2.0",
            To="sip:null-%00-null@example",
            From="sip:null-%00-null@example;tag=839",
        ),
        check=lambda m: m.to.uri.user == "null-%00-null" and len(m.headers.get_all("Contact")) == 2,
    ),
    Case(
        name="esc02",
        section="3.1.1.5",
        head=request(line="RE%47IST%45R sip:registrar.example SIP/2.0", To='"%Z%45" <sip:resource@example>'),
        check=lambda m: as_request(m).method == "RE%47IST%45R" and m.to.display == "%Z%45",
        note="a percent sign in a method or display name escapes nothing: this is no REGISTER",
    ),
    Case(
        name="lwsdisp",
        section="3.1.1.6",
        head=request(From="caller<sip:caller@example>;tag=323"),
        check=lambda m: m.from_.display == "caller" and m.from_.tag == "323",
    ),
    Case(
        name="longreq",
        section="3.1.1.7",
        head=request(
            "".join(f"Via: SIP/2.0/TCP sip{n}.example;branch={'very' * 60}{n}\n" for n in range(20))
            + f"{'Extremely' * 30}LongHeader: {'value' * 60}\nContact: <sip:{'user' * 100}@host.example>",
            line=f"INVITE sip:user@{'host' * 60}.example SIP/2.0",
            To=f'"I have a user name of {"extreme" * 30} proportion"'
            f"<sip:user@example:6000;unknownparam1={'long' * 100}>",
            From=f"sip:{'a' * 300}@example;tag={'1' * 400};unknownheaderparam1={'x' * 300}",
            Call_ID=f"longreq.one{'really' * 60}longcallid",
        ),
        check=lambda m: (
            len(m.from_.tag) == 400 and len(m.headers.get_all("Via")) == 21 and m.to.uri.port == 6000
        ),
    ),
    Case(
        name="dblreq",
        section="3.1.1.8",
        head=request(line="REGISTER sip:example SIP/2.0"),
        length=0,
        body=Case(name="", section="", head=request(line="INVITE sip:joe@example SIP/2.0"), body=SDP).octets,
        check=lambda m: m.body == b"" and as_request(m).method == "REGISTER",
        wins="both: XML-14 lets a datagram decide the length of a body, but a second start line begins no body",
    ),
    Case(
        name="semiuri",
        section="3.1.1.9",
        head=request(line="OPTIONS sip:user;par=u%40example.net@example SIP/2.0"),
        check=lambda m: (
            as_request(m).request_uri.user == "user;par=u%40example.net"
            and as_request(m).request_uri.params == ()
        ),
    ),
    Case(
        name="transports",
        section="3.1.1.10",
        head=request(
            "Via: SIP/2.0/SCTP t2.example;branch=z9hG4bKkdjuw\nVia: SIP/2.0/TLS t3.example;branch=z9hG4bK\n"
            "Via: SIP/2.0/UNKNOWN t4.example;branch=z9hG4bKx\nVia: SIP/2.0/TCP t5.example;branch=z9hG4bKy",
        ),
        check=lambda m: len(m.headers.get_all("Via")) == 5,
    ),
    Case(
        name="mpart01",
        section="3.1.1.11",
        head=request(
            "Content-Type: multipart/mixed;boundary=7a9cbec02ceef655",
            line="MESSAGE sip:kumiko@example SIP/2.0",
        ),
        body=b"--7a9cbec02ceef655\r\nContent-Type: text/plain\r\n\r\nHello\r\n--7a9cbec02ceef655\r\n"
        b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) + b"\r\n--7a9cbec02ceef655--",
        check=lambda m: m.body.endswith(b"--7a9cbec02ceef655--") and bytes(range(256)) in m.body,
    ),
    Case(
        name="unreason",
        section="3.1.1.12",
        head=response(line="SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое"),
        check=lambda m: isinstance(m, Response) and m.reason.endswith("простое"),
    ),
    Case(
        name="noreason",
        section="3.1.1.13",
        head=response(line="SIP/2.0 100 "),
        check=lambda m: isinstance(m, Response) and m.status == 100 and m.reason == "",
    ),
]

INVALID = [
    Case(
        name="badinv01",
        section="3.1.2.1",
        head=request(
            'Contact: "Joe" <sip:joe@example>;;;;,,;,',
            line="INVITE sip:user@example SIP/2.0",
            Via="SIP/2.0/UDP 192.0.2.15;;,;,,",
        ),
        want=400,
        note="separators around nothing: list elements that are empty are no Via",
    ),
    Case(
        name="clerr",
        section="3.1.2.2",
        head=request("Content-Type: application/sdp", line="INVITE sip:user@example SIP/2.0"),
        body=SDP,
        length=9999,
        check=lambda m: m.body == SDP and m.quirks == ("sip.content_length",),
        wins="GB: XML-14, devices declare wrong lengths; the RFC wants 400. On a stream the rest is waited for",
    ),
    Case(
        name="ncl",
        section="3.1.2.3",
        head=request("Content-Length: -999", line="INVITE sip:user@example SIP/2.0"),
        length=None,
        want=400,
        wins="RFC: no device is known to do this; on a stream the connection is closed",
    ),
    Case(
        name="scalar02",
        section="3.1.2.4",
        head=request(
            "Expires: 10000000000000000000\nContact: <sip:user@host129.example>;expires=280297596632815",
            line="REGISTER sip:example SIP/2.0",
            CSeq="36893488147419103232 REGISTER",
            Max_Forwards="300",
        ),
        want=400,
    ),
    Case(
        name="scalar02-max-forwards",
        section="3.1.2.4",
        head=request(Max_Forwards="300"),
        want=400,
    ),
    Case(
        name="scalar02-expires",
        section="3.1.2.4",
        head=request("Expires: 10000000000000000000", line="REGISTER sip:example SIP/2.0"),
        check=lambda m: m.expires == 2**32 - 1,
        wins="both: RFC 3261 20.19 lets a value beyond 32 bits count as the largest; the registrar clamps it (REG-12)",
    ),
    Case(
        name="scalarlg",
        section="3.1.2.5",
        head=response(
            'Retry-After: 949302838503028349304023988\nWarning: 1812 overture "In Progress"',
            line="SIP/2.0 503 Service Unavailable",
            CSeq="9292394834772304023312 OPTIONS",
        ),
        want="drop",
    ),
    Case(
        name="quotbal",
        section="3.1.2.6",
        head=request(line="INVITE sip:user@example SIP/2.0", To='"Mr. J. User <sip:j.user@example>'),
        want=400,
    ),
    Case(
        name="ltgtruri",
        section="3.1.2.7",
        head=request(line="INVITE <sip:user@example> SIP/2.0"),
        want=400,
        wins="RFC: no device is known to do this",
    ),
    Case(
        name="lwsruri",
        section="3.1.2.8",
        head=request(line="INVITE sip:user@example; lr SIP/2.0"),
        want=400,
        wins="RFC: no device is known to do this",
    ),
    Case(
        name="lwsstart",
        section="3.1.2.9",
        head=request(line="INVITE  sip:user@example  SIP/2.0"),
        want=400,
        wins="RFC: no device is known to do this",
    ),
    Case(
        name="trws",
        section="3.1.2.10",
        head=request("X: y", line="OPTIONS sip:user@example SIP/2.0  "),
        want=400,
        wins="RFC: no device is known to do this",
    ),
    Case(
        name="escruri",
        section="3.1.2.11",
        head=request(line="INVITE sip:user@example?Route=%3Csip:example%3E SIP/2.0"),
        want=400,
    ),
    Case(
        name="baddate",
        section="3.1.2.12",
        head=request("Date: Fri, 01 Jan 2010 16:00:00 EST", line="INVITE sip:user@example SIP/2.0"),
        wins="GB: the standard has its own form of Date (9.10), a device's Date is information only (S-25)",
    ),
    Case(
        name="regbadct",
        section="3.1.2.13",
        head=request(
            "Contact: sip:user@example?Route=%3Csip:sip.example%3E", line="REGISTER sip:example SIP/2.0"
        ),
        want=400,
    ),
    Case(
        name="badaspec",
        section="3.1.2.14",
        head=request(To='"Watson, Thomas" < sip:t.watson@example >'),
        check=lambda m: m.to.uri.user == "t.watson" and "sip.uri_space" in m.quirks,
        wins="GB: blanks around the URI are dropped (REG-13), which the RFC allows an element that is liberal",
    ),
    Case(
        name="badaspec-inside",
        section="3.1.2.14",
        head=request(To="<sip:t watson@example>"),
        want=400,
    ),
    Case(
        name="baddn",
        section="3.1.2.15",
        head=request(From="Bell, Alexander <sip:a.g.bell@example>;tag=43"),
        check=lambda m: m.from_.tag == "43" and "sip.display_name" in m.quirks,
        wins="GB: names come unquoted, the brackets leave no doubt; the RFC allows it",
    ),
    Case(
        name="badvers",
        section="3.1.2.16",
        head=request(line="OPTIONS sip:t.watson@example SIP/7.0"),
        want=505,
    ),
    Case(
        name="mismatch01",
        section="3.1.2.17",
        head=request(line="OPTIONS sip:user@example SIP/2.0", CSeq="8 INVITE"),
        want=400,
    ),
    Case(
        name="mismatch02",
        section="3.1.2.18",
        head=request(line="NEWMETHOD sip:user@example SIP/2.0", CSeq="8 INVITE"),
        want=400,
        note="the RFC allows 400 or 501",
    ),
    Case(
        name="bigcode",
        section="3.1.2.19",
        head=response(line="SIP/2.0 4294967301 better not break the receiver"),
        want="drop",
    ),
]

LAYERS_ABOVE = [
    Case(
        name="badbranch",
        section="3.2.1",
        head=request(Via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK"),
        want="transaction",
        check=lambda m: m.via.branch == "z9hG4bK" and m.via.transaction_branch == "",
        note="the cookie alone identifies nothing: matched by the rules of RFC 2543",
    ),
    Case(
        name="insuf",
        section="3.3.1",
        head=request(line="INVITE sip:user@example SIP/2.0", Call_ID="", From="", To=""),
        want=400,
    ),
    *(
        Case(name=f"insuf-{name}", section="3.3.1", head=request(**{name.replace("-", "_"): ""}), want=400)
        for name in ("From", "To", "Call-ID", "CSeq")
    ),
    Case(
        name="insuf-via",
        section="3.3.1",
        head=request(Via=""),
        check=lambda m: m.quirks == ("sip.no_via",),
        wins="GB: XML-20; the answer goes to the packet's source, which needs no Via",
    ),
    Case(
        name="unkscm",
        section="3.3.2",
        head=request(line="OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0"),
        want=416,
    ),
    Case(
        name="novelsc",
        section="3.3.3",
        head=request(line="OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0"),
        want=416,
    ),
    Case(
        name="unksm2",
        section="3.3.4",
        head=request(
            "Contact: <name:John_Smith>",
            line="REGISTER sip:example SIP/2.0",
            To="isbn:2983792873",
            From="<http://www.example>;tag=3234233",
        ),
        check=lambda m: not m.to.uri.is_sip and m.to.uri.opaque == "2983792873" and m.from_.tag == "3234233",
        note="schemes in From, To and Contact are nobody's business here; the registrar does not know the user",
    ),
    Case(
        name="bext01",
        section="3.3.5",
        head=request(
            "Proxy-Require: noProxiesSupportThis, norDoAnyProxiesSupportThis\n"
            "Require: nothingSupportsThis, nothingSupportsThisEither"
        ),
        want=420,
        check=lambda m: (
            unsupported_extensions(as_request(m)) == ["nothingSupportsThis", "nothingSupportsThisEither"]
        ),
    ),
    Case(
        name="invut",
        section="3.3.6",
        head=request("Content-Type: application/unknownformat", line="INVITE sip:user@example SIP/2.0"),
        body=b'<audio>\r\n <pcmu port="443"/>\r\n</audio>',
        want=415,
    ),
    Case(
        name="invut-message",
        section="3.3.6",
        head=request("Content-Type: application/unknownformat", line="MESSAGE sip:user@example SIP/2.0"),
        body=b"<Notify/>",
        wins="GB: XML-17, a MESSAGE is judged by its content",
    ),
    Case(
        name="regaut01",
        section="3.3.7",
        head=request(
            "Authorization: NoOneKnowsThisScheme opaque-data=here", line="REGISTER sip:example SIP/2.0"
        ),
        check=lambda m: parse_credentials(m.headers.get("Authorization") or "") is None,
        note="counts as no credentials: the registrar challenges",
    ),
    Case(
        name="multi01",
        section="3.3.8",
        head=request(
            "CSeq: 59 INVITE\nCall-ID: other@192.0.2.9\nFrom: <sip:other@example>;tag=x\nTo: sip:other@example\n"
            "Max-Forwards: 5",
            line="INVITE sip:user@example SIP/2.0",
        ),
        want=400,
    ),
    Case(name="multi01-max-forwards", section="3.3.8", head=request("Max-Forwards: 5"), want=400),
    Case(
        name="mcl01",
        section="3.3.9",
        head=request("Content-Length: 13\nContent-Length: 5"),
        length=None,
        body=b"There's no way to know how many octets are supposed to be here.",
        want=400,
        wins="RFC: two different lengths are a sign of tampering; on a stream the connection is closed",
    ),
    Case(
        name="bcast",
        section="3.3.10",
        head=response("Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23"),
        want="drop",
        note="a response has one Via when it arrives at the endpoint that asked",
    ),
    Case(name="zeromf", section="3.3.11", head=request(Max_Forwards="0"), want=483),
    Case(
        name="cparam01",
        section="3.3.12",
        head=request(
            "Contact: sip:+19725552222@gw1.example;unknownparam", line="REGISTER sip:example SIP/2.0"
        ),
        check=lambda m: (
            m.contact is not None and m.contact.param("unknownparam") == "" and m.contact.uri.params == ()
        ),
        note="without brackets the parameter is the header's",
    ),
    Case(
        name="cparam02",
        section="3.3.13",
        head=request(
            "Contact: <sip:+19725552222@gw1.example;unknownparam>", line="REGISTER sip:example SIP/2.0"
        ),
        check=lambda m: (
            m.contact is not None and m.contact.uri.param("unknownparam") == "" and m.contact.params == ()
        ),
    ),
    Case(
        name="regescrt",
        section="3.3.14",
        head=request(
            "Contact: <sip:user@example?Route=%3Csip:sip.example%3E>", line="REGISTER sip:example SIP/2.0"
        ),
        check=lambda m: m.contact is not None and m.contact.uri.headers == "Route=%3Csip:sip.example%3E",
    ),
    Case(
        name="sdp01",
        section="3.3.15",
        head=request(
            "Accept: text/nobodyKnowsThis\nContent-Type: application/sdp",
            line="INVITE sip:user@example SIP/2.0",
        ),
        body=SDP,
        want=406,
    ),
    Case(
        name="inv2543",
        section="3.4.1",
        head=request(
            line="INVITE sip:UserB@example SIP/2.0",
            Via="SIP/2.0/UDP iftgw.example",
            From="<sip:+13035551111@ift.example;user=phone>",
            To="sip:+16505552222@ss1.example;user=phone",
            Max_Forwards="",
        ),
        check=lambda m: m.from_.tag == "" and m.via.branch == "" and m.to.param("user") == "phone",
        note="RFC 2543: no branch, no From tag",
    ),
]

ALL = [*VALID, *INVALID, *LAYERS_ABOVE]
