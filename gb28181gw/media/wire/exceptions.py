"""Errors of the wire codecs.

::

    WireError
    ├── RtpError            an RTP or RTCP packet that cannot be read
    ├── FramingError        no RFC 4571 frame found within the resynchronisation limit: close the connection
    ├── ParameterSetError   SPS, PPS, VPS or AudioSpecificConfig that cannot be read
    └── UnsupportedPayloadError  a payload that is recognised and not carried (MPEG-TS)

Demuxers and depacketisers do not raise on what a device sends: they count (`DemuxCounters`) and resynchronise.
"""

from __future__ import annotations


class WireError(Exception):
    """Root of the codecs' errors; never raised itself."""


class RtpError(WireError):
    """Not an RTP (RFC 3550 5.1) or RTCP (RFC 3550 6.1) packet."""


class FramingError(WireError):
    """RFC 4571 framing was lost and not found again within the limit."""


class ParameterSetError(WireError):
    """A parameter set or decoder configuration that cannot be read."""


class UnsupportedPayloadError(WireError):
    """A recognised payload that is not carried; the message names it."""
