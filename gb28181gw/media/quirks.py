"""The closed list of tolerances of the media plane, each with the row of the field quirks that it answers.

The readers of `media.wire` and the receivers name what they tolerated by these strings; a plane that is not Python
must use the same. The row is empty where no row of the catalogue describes the deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

MEDIA_QUIRKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # packets and connections
        "rtp.ssrc_mismatch": "INV-03",
        "rtp.payload_type": "MED-19",
        "rtp.framing_lost": "MED-25",
        "rtp.interleaved_framing": "MED-26",
        "rtp.ehome_header": "MED-28",
        "rtp.second_connection": "MED-30",
        "rtp.marker_inside_picture": "MED-22",
        # what is in the packets
        "rtp.mpeg_ts": "MED-18",
        "rtp.es_under_ps": "MED-18",
        "rtp.ps_under_es": "MED-18",
        "rtp.unsupported_encoding": "MED-18",
        "rtp.annexb_in_payload": "MED-40",
        # the program stream
        "ps.no_stream_map": "MED-02",
        "ps.audio_codec_assumed": "MED-02",
        "ps.psm_lengths": "MED-04",
        "ps.pes_length_zero": "MED-05",
        "ps.pes_header_length": "MED-07",
        "ps.pes_marker_bits": "MED-07",
        "ps.short_pack_header": "MED-10",
        "ps.pack_stuffing": "MED-11",
        "ps.structure_lost": "MED-08",
        "ps.second_video_stream": "",
        "ps.second_audio_stream": "",
        # codecs
        "ps.psm_codec_mismatch": "MED-01",
        "ps.audio_codec_mismatch": "MED-13",
        "ps.aac_au_headers": "MED-14",
        "ps.audio_unreadable": "MED-14",
        "ps.unsupported_stream_type": "MED-15",
        "ps.no_parameter_sets": "MED-35",
        "ps.video_encrypted": "MED-39",
        "es.key_without_idr": "MED-34",
        "es.unit_too_large": "",
        # times
        "ps.pts_missing": "MED-20",
        "ps.pts_useless": "MED-20",
        "rtp.timestamp_useless": "MED-20",
        "ps.clock_from_rtp": "MED-20",
        "ps.clock_from_arrival": "MED-20",
        "ps.clocks_differ": "MED-20",
        "ps.pts_jump": "MED-21",
    }
)
