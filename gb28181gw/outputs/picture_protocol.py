"""What the gateway and its picture worker say to each other.

A job is ``length codec payload``: 4 bytes, 1 byte (`NUMBERS`) and the Annex B access unit. An answer is ``length status
body``: status 0 with a JPEG, 1 with a sentence. Numbers are in network order, the length is that of the last part.
"""

from __future__ import annotations

import struct

from gb28181gw.media.tracks import Codec

NUMBERS = {Codec.H264: 0, Codec.H265: 1}
JOB = struct.Struct("!IB")
ANSWER = struct.Struct("!IB")
MAX_JOB = 32 * 1024 * 1024
