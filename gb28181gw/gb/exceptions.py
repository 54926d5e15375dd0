"""Exceptions of the `gb` package.

::

    GbError
    ├── GbLocalError          we asked a writer for something the standard does not allow (our fault)
    │   └── EditionError      the device's edition does not know a field or command
    └── GbParseError          the peer's text cannot be used; `reason` is one short token for the log
        ├── XmlParseError     MANSCDP body
        ├── SdpParseError     session description
        └── MansRtspParseError  body of INFO
"""

from __future__ import annotations


class GbError(Exception):
    """Root of the package."""


class GbLocalError(GbError, ValueError):
    """A value given by our own code or by a person cannot be written or is not known."""


class EditionError(GbLocalError):
    """`what` is not of the device's edition; `edition` is the first that has it, or with `gone` the last."""

    def __init__(self, what: str, edition: str, *, gone: bool = False) -> None:
        self.what = what
        self.edition = edition
        self.gone = gone
        super().__init__(f"{what}: {'ended with' if gone else 'is new in'} edition {edition}")


class GbParseError(GbError):
    """What a peer sent cannot be read even with every tolerance.

    `reason` is a token of a small set (``empty``, ``too_large``, ``dtd``, ``too_deep``, ``too_many_elements``,
    ``not_xml``, ``root``, ``too_many_lines``, ``no_media``, ``start_line``, ``no_action``), stable enough for counters.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class XmlParseError(GbParseError):
    """A MANSCDP body cannot be read or is refused (threat S-05)."""


class SdpParseError(GbParseError):
    """A session description cannot be read."""


class MansRtspParseError(GbParseError):
    """The body of an INFO is no MANSRTSP message."""
