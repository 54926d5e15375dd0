#include "gb28181/units.hpp"

namespace gb28181 {

std::string_view quirk_name(Quirk quirk) noexcept {
    switch (quirk) {
        case Quirk::ps_pack_stuffing: return "ps.pack_stuffing";
        case Quirk::ps_short_pack_header: return "ps.short_pack_header";
        case Quirk::ps_pes_header_length: return "ps.pes_header_length";
        case Quirk::ps_pes_marker_bits: return "ps.pes_marker_bits";
        case Quirk::ps_pes_length_zero: return "ps.pes_length_zero";
        case Quirk::ps_second_video_stream: return "ps.second_video_stream";
        case Quirk::ps_second_audio_stream: return "ps.second_audio_stream";
        case Quirk::ps_no_stream_map: return "ps.no_stream_map";
        case Quirk::ps_psm_lengths: return "ps.psm_lengths";
        case Quirk::ps_psm_codec_mismatch: return "ps.psm_codec_mismatch";
        case Quirk::ps_structure_lost: return "ps.structure_lost";
        case Quirk::ps_video_encrypted: return "ps.video_encrypted";
        case Quirk::ps_no_parameter_sets: return "ps.no_parameter_sets";
        case Quirk::ps_audio_codec_mismatch: return "ps.audio_codec_mismatch";
        case Quirk::ps_audio_codec_assumed: return "ps.audio_codec_assumed";
        case Quirk::ps_audio_unreadable: return "ps.audio_unreadable";
        case Quirk::ps_aac_au_headers: return "ps.aac_au_headers";
        case Quirk::ps_unsupported_stream_type: return "ps.unsupported_stream_type";
        case Quirk::ps_pts_jump: return "ps.pts_jump";
        case Quirk::ps_pts_missing: return "ps.pts_missing";
        case Quirk::ps_pts_useless: return "ps.pts_useless";
        case Quirk::ps_clocks_differ: return "ps.clocks_differ";
        case Quirk::ps_clock_from_rtp: return "ps.clock_from_rtp";
        case Quirk::ps_clock_from_arrival: return "ps.clock_from_arrival";
        case Quirk::es_unit_too_large: return "es.unit_too_large";
        case Quirk::es_key_without_idr: return "es.key_without_idr";
        case Quirk::rtp_marker_inside_picture: return "rtp.marker_inside_picture";
        case Quirk::rtp_annexb_in_payload: return "rtp.annexb_in_payload";
        case Quirk::rtp_timestamp_useless: return "rtp.timestamp_useless";
        case Quirk::rtp_framing_lost: return "rtp.framing_lost";
        case Quirk::rtp_ehome_header: return "rtp.ehome_header";
        case Quirk::rtp_interleaved_framing: return "rtp.interleaved_framing";
        case Quirk::rtp_payload_type: return "rtp.payload_type";
        case Quirk::rtp_mpeg_ts: return "rtp.mpeg_ts";
        case Quirk::rtp_unsupported_encoding: return "rtp.unsupported_encoding";
        case Quirk::rtp_ps_under_es: return "rtp.ps_under_es";
        case Quirk::rtp_es_under_ps: return "rtp.es_under_ps";
        case Quirk::rtp_ssrc_mismatch: return "rtp.ssrc_mismatch";
    }
    return {};
}

std::optional<Codec> codec_of_stream_type(int stream_type) noexcept {
    switch (stream_type) {
        case 0x0F: return Codec::aac;  // ADTS
        case 0x10: return Codec::mpeg4;
        case 0x1B: return Codec::h264;
        case 0x1C: return Codec::aac;  // raw access units with AU headers, one vendor (MED-14)
        case 0x24: return Codec::h265;
        case 0x80: return Codec::svac;
        case 0x90: return Codec::pcma;
        case 0x91: return Codec::pcmu;
        case 0x92: return Codec::g722_1;
        case 0x93: return Codec::g723_1;
        case 0x99: return Codec::g729;
        case 0x9B: return Codec::svaca;
        default: return std::nullopt;
    }
}

int stream_type_of(Codec codec) noexcept {
    switch (codec) {
        case Codec::aac: return 0x0F;
        case Codec::mpeg4: return 0x10;
        case Codec::h264: return 0x1B;
        case Codec::h265: return 0x24;
        case Codec::svac: return 0x80;
        case Codec::pcma: return 0x90;
        case Codec::pcmu: return 0x91;
        case Codec::g722_1: return 0x92;
        case Codec::g723_1: return 0x93;
        case Codec::g729: return 0x99;
        case Codec::svaca: return 0x9B;
    }
    return 0;
}

int default_audio_rate(Codec codec) noexcept { return codec == Codec::g722_1 ? 16000 : 8000; }

}  // namespace gb28181
