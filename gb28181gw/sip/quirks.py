"""Names of the deviations that the SIP reader tolerates, each with its row; messages carry them in `quirks`."""

from __future__ import annotations

from enum import StrEnum


class SipQuirk(StrEnum):
    """Closed list. A name is stable: it is counted, and shown on the device."""

    LF_ONLY = "sip.lf_only"
    """Lines ended by LF alone, or by a mixture."""
    FOLDED_HEADER = "sip.folded_header"
    """A header continued on the next line; legal in RFC 3261 7.3.1, kept here because few stacks read it."""
    GARBAGE_LINE = "sip.garbage_line"
    """A line of the header block without a colon, or whose name is not a token: skipped."""
    SPACE_BEFORE_COLON = "sip.space_before_colon"
    LEADING_CRLF = "sip.leading_crlf"
    """Blank lines before the start line of a datagram (RFC 3261 7.5 asks to ignore them)."""
    CONTROL_CHARACTER = "sip.control_character"
    """NUL or a bare CR within a header line: read as a blank."""
    HEADER_GB18030 = "sip.header_gb18030"
    """Header text that is not UTF-8, read as GB18030 (GB/T 28181-2022 6.10 in fact asks for it)."""
    HEADER_UNDECODABLE = "sip.header_undecodable"
    """Header text that is neither UTF-8 nor GB18030; the bad bytes are replaced."""
    METHOD_CASE = "sip.method_case"
    """`Register` for `REGISTER` (samples of the 2016 edition)."""
    REASON_SPACE = "sip.reason_space"
    """Status line without the blank before an empty reason phrase."""
    CONTENT_LENGTH = "sip.content_length"
    """Declared length differs from the body."""
    NO_CONTENT_LENGTH = "sip.no_content_length"
    """Missing on a stream."""
    TRAILING_OCTETS = "sip.trailing_octets"
    """Octets after the declared end of a datagram that do not belong to the body (RFC 4475 3.1.1.8)."""
    RESYNCHRONISED = "sip.resynchronised"
    """Octets of a stream skipped before this message, after a MANSCDP body with a wrong length."""
    NO_VIA = "sip.no_via"
    BRANCH_WITHOUT_COOKIE = "sip.branch_without_cookie"
    URI_WITHOUT_HOST = "sip.uri_without_host"
    URI_SPACE = "sip.uri_space"
    """Blanks between `<` and the URI, or before `>`."""
    DISPLAY_NAME = "sip.display_name"
    """Unquoted display name with characters that need quotes."""

    @property
    def row(self) -> str:
        """Row of the list of field quirks that this tolerance serves."""
        return _ROWS.get(self, "XML-20")


_ROWS = {
    SipQuirk.CONTENT_LENGTH: "XML-14",
    SipQuirk.NO_CONTENT_LENGTH: "XML-14",
    SipQuirk.RESYNCHRONISED: "XML-14",
    SipQuirk.TRAILING_OCTETS: "XML-14",
    SipQuirk.LEADING_CRLF: "REG-22",
    SipQuirk.HEADER_GB18030: "XML-01",
    SipQuirk.HEADER_UNDECODABLE: "XML-02",
    SipQuirk.URI_WITHOUT_HOST: "REG-13",
}
