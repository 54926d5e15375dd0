"""Each deviation that the simulator knows, against a whole gateway: answers to INVITE, media, ends of sessions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.support.field import Field, Plan, running_field
from tests.support.gateway import media_range, wait_until

UDP, PASSIVE, ACTIVE = "udp", "tcp-passive", "tcp-active"


def plan(row: str, media: str = UDP, watch_s: float = 0.0, **options: object) -> Plan:
    return Plan(rows=(row,), options={"channels": 1, **options}, media=media, watch_s=watch_s)


AT_ONCE = [
    *((row, UDP) for row in ("INV-01", "INV-02", "INV-03", "INV-03-ZERO", "INV-03-HEX", "INV-03-SWAPPED")),
    *((row, UDP) for row in ("INV-04", "INV-08", "INV-13", "INV-14", "INV-15", "INV-16", "INV-24", "INV-25")),
    *((row, media) for row in ("INV-17",) for media in (UDP, PASSIVE, ACTIVE)),
    *((row, media) for row in ("INV-18", "INV-18-OMIT", "INV-18-ACTPASS") for media in (PASSIVE, ACTIVE)),
    ("INV-19", PASSIVE),
    *(
        (row, UDP)
        for row in ("MED-01", "MED-02", "MED-02-FIRST", "MED-03", "MED-04", "MED-05", "MED-08", "MED-10")
    ),
    *((row, UDP) for row in ("MED-19", "MED-22", "MED-22-ALL", "MED-29", "MED-30")),
    ("MED-26", PASSIVE),
    ("MED-27", PASSIVE),
    *((row, UDP) for row in ("SES-01", "F-06", "F-05-NO-SDP", "INV-11")),
]
PLANS = {
    **{f"{row} {media}": plan(row, media) for row, media in AT_ONCE},
    "MED-13": plan("MED-13", audio="aac"),
    # What takes time is watched from the beginning.
    "INV-20": plan("INV-20", "", 0.5),
    "INV-21": plan("INV-21", "", 0.5),
    "INV-30": plan("INV-30", UDP, 0.5),
    "MED-16": plan("MED-16", UDP, 1.5),
    "MED-17": plan("MED-17", UDP, 7.0),
    "MED-18": plan("MED-18", UDP, 0.5),
    "MED-20": plan("MED-20", UDP, 3.0),
    "MED-21": plan("MED-21", UDP, 13.0),
    "MED-23": plan("MED-23", UDP, 8.0),
    "MED-25": plan("MED-25", PASSIVE, 8.0),
    "MED-33": plan("MED-33", UDP, 8.0),
    "MED-34": plan("MED-34", UDP, 2.0),
    "SES-04": plan("SES-04", UDP, 14.0),
}


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("media-field")
    with running_field(directory, PLANS, media={"idle_stop_s": 2, "ports": media_range(400)}) as field:
        yield field


def steady(times: list[int], seconds: float) -> None:
    """Pictures at 25 a second, never back, without a jump."""
    assert len(times) > seconds * 25 * 0.6
    assert all(before < after < before + 1500 for before, after in pairwise(times))
    assert seconds * 600 < times[-1] - times[0] < seconds * 2000


# --- the answer to INVITE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "quirks"),
    [
        ("INV-01 udp", {"sdp.no_y"}),
        ("INV-02 udp", {"sdp.other_y"}),
        ("INV-03 udp", {"rtp.ssrc_mismatch"}),
        ("INV-03-ZERO udp", {"rtp.ssrc_mismatch"}),
        ("INV-03-HEX udp", {"rtp.ssrc_mismatch"}),
        ("INV-03-SWAPPED udp", {"rtp.ssrc_mismatch"}),
        ("INV-04 udp", {"sdp.y_form"}),
    ],
)
def test_inv01_inv02_inv03_inv04_any_ssrc_of_the_device_plays_and_is_marked(
    devices: Field, name: str, quirks: set[str]
) -> None:
    seen = devices.play(name)
    assert (seen.status, seen.stream["state"]) == (200, "running")
    assert quirks <= seen.device["quirks"].keys()


def test_inv08_the_domain_of_the_device_is_used(devices: Field) -> None:
    assert devices.play("INV-08 udp").status == 200


def test_inv11_busy_without_a_session_of_ours_says_so(devices: Field) -> None:
    seen = devices.play("INV-11 udp")
    assert (seen.status, seen.answer["code"], seen.answer["sip_status"]) == (502, "gb.sip.rejected", 486)


@pytest.mark.parametrize("name", ["INV-13 udp", "INV-14 udp"])
def test_inv13_inv14_a_refusal_with_a_cure_is_cured(devices: Field, name: str) -> None:
    seen = devices.play(name)
    assert seen.status == 200
    assert devices.noted(name, "invite") >= 2


def test_inv15_media_without_a_final_answer_plays(devices: Field) -> None:
    seen = devices.play("INV-15 udp")
    assert seen.status == 200
    assert "inv.media_without_answer" in seen.device["quirks"]


def test_inv16_media_that_waits_for_the_ack(devices: Field) -> None:
    assert devices.play("INV-16 udp").status == 200


@pytest.mark.parametrize("media", [UDP, PASSIVE, ACTIVE])
def test_inv17_useless_addresses_of_the_answer_are_not_needed(devices: Field, media: str) -> None:
    assert devices.play(f"INV-17 {media}").stream["transport"] == media


@pytest.mark.parametrize("media", [PASSIVE, ACTIVE])
@pytest.mark.parametrize("row", ["INV-18", "INV-18-OMIT", "INV-18-ACTPASS"])
def test_inv18_mistaken_roles_connect_all_the_same(devices: Field, row: str, media: str) -> None:
    seen = devices.play(f"{row} {media}")
    assert seen.stream["transport"] == media
    assert "sdp.setup" in seen.device["quirks"]


def test_inv19_the_connection_before_the_200_is_taken(devices: Field) -> None:
    assert devices.play("INV-19 tcp-passive").stream["transport"] == PASSIVE


def test_inv20_a_connection_after_seconds_is_waited_for(devices: Field) -> None:
    seen = devices.watched("INV-20")
    assert (seen.status, seen.stream["transport"]) == (200, PASSIVE)


def test_inv21_auto_falls_back_to_what_the_device_can(devices: Field) -> None:
    seen = devices.watched("INV-21")
    assert (seen.status, seen.stream["transport"]) == (200, UDP)


@pytest.mark.parametrize(
    ("name", "quirk"), [("INV-24 udp", "sdp.transport_differs"), ("INV-25 udp", "sdp.session_name")]
)
def test_inv24_inv25_odd_answers_play_and_are_marked(devices: Field, name: str, quirk: str) -> None:
    assert quirk in devices.play(name).device["quirks"]


def test_inv30_no_reaction_to_invite_is_told_as_that(devices: Field) -> None:
    seen = devices.watched("INV-30")
    assert (seen.status, seen.answer["code"]) == (504, "gb.sip.no_answer")


def test_f05_an_answer_without_sdp_is_its_own_error(devices: Field) -> None:
    assert devices.play("F-05-NO-SDP udp").answer["code"] == "gb.sdp.bad_sdp"


# --- media --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codecs", "quirks"),
    [
        ("MED-01 udp", {"h264", "pcma"}, {"ps.psm_codec_mismatch"}),
        ("MED-02-FIRST udp", {"h264", "pcma"}, set()),
        ("MED-03 udp", {"h264", "pcma"}, set()),
        ("MED-04 udp", {"h264", "pcma"}, {"ps.psm_lengths"}),
        ("MED-05 udp", {"h264", "pcma"}, {"ps.pes_length_zero"}),
        ("MED-08 udp", {"h264", "pcma"}, set()),
        ("MED-10 udp", {"h264", "pcma"}, {"ps.short_pack_header"}),
        ("MED-19 udp", {"h264", "pcma"}, {"rtp.payload_type"}),
        ("MED-22 udp", {"h264", "pcma"}, set()),
        ("MED-22-ALL udp", {"h264", "pcma"}, set()),
        ("MED-26 tcp-passive", {"h264", "pcma"}, {"rtp.interleaved_framing"}),
        ("MED-27 tcp-passive", {"h264", "pcma"}, set()),
        ("MED-29 udp", {"h264", "pcma"}, set()),
    ],
)
def test_med01_to_med29_odd_streams_play_with_their_true_codecs(
    devices: Field, name: str, codecs: set[str], quirks: set[str]
) -> None:
    seen = devices.play(name)
    assert {track["codec"] for track in seen.answer["tracks"]} == codecs
    assert quirks <= seen.device["quirks"].keys()


def test_med02_without_any_map_the_video_plays(devices: Field) -> None:
    seen = devices.play("MED-02 udp")
    assert seen.answer["tracks"][0]["codec"] == "h264"
    assert "ps.no_stream_map" in seen.device["quirks"]


def test_med13_aac_under_the_type_of_g711(devices: Field) -> None:
    seen = devices.play("MED-13", watch_s=1.0)
    assert {track["codec"] for track in seen.stream["tracks"]} == {"h264", "aac"}
    assert "ps.audio_codec_mismatch" in devices.quirks("MED-13", "ps.audio_codec_mismatch")


def test_med16_declared_audio_that_never_comes_holds_nothing_up(devices: Field) -> None:
    seen = devices.watched("MED-16")
    assert seen.times(8) == []
    steady(seen.pictures, 1.5)


def test_med17_audio_that_begins_late_is_added(devices: Field) -> None:
    seen = devices.watched("MED-17")
    assert [track["codec"] for track in seen.answer["tracks"]] == ["h264"]
    assert {track["codec"] for track in seen.stream["tracks"]} == {"h264", "pcma"}
    assert len(seen.times(8)) > 10


def test_med18_a_transport_stream_is_refused_by_name(devices: Field) -> None:
    seen = devices.watched("MED-18")
    assert seen.status == 502
    assert "MPEG transport stream" in seen.answer["detail"]
    assert "rtp.mpeg_ts" in seen.device["quirks"]


def test_med20_rtp_timestamps_that_stand_still(devices: Field) -> None:
    steady(devices.watched("MED-20").pictures, 3.0)


def test_med21_an_hour_forward_and_back_is_not_seen(devices: Field) -> None:
    seen = devices.watched("MED-21")
    steady(seen.pictures, 13.0)
    assert "ps.pts_jump" in seen.device["quirks"]


def test_med23_sequence_numbers_that_restart(devices: Field) -> None:
    steady(devices.watched("MED-23").pictures, 8.0)


def test_med25_framing_that_is_lost_is_found_again(devices: Field) -> None:
    seen = devices.watched("MED-25")
    assert "rtp.framing_lost" in seen.device["quirks"]
    assert seen.stream["transport"] == PASSIVE
    assert len(seen.pictures) > 60


def test_med30_a_stranger_in_between_is_left_out(devices: Field) -> None:
    seen = devices.play("MED-30 udp", watch_s=1.0)
    steady(seen.pictures, 1.0)


def test_med33_reg18_the_source_port_moves_and_the_picture_goes_on(devices: Field) -> None:
    seen = devices.watched("MED-33")
    steady(seen.pictures, 8.0)
    assert devices.gateway.seen("media.source_switched", device_id=devices.ids["MED-33"])


def test_med34_a_key_frame_is_asked_for(devices: Field) -> None:
    assert devices.watched("MED-34").status == 200


# --- the end of sessions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SES-01 udp", "F-06 udp"])
def test_ses01_inv06_a_device_that_goes_on_sending_disturbs_nobody(devices: Field, name: str) -> None:
    first = devices.play(name)
    again = devices.play(name, watch_s=1.0)
    assert (first.status, again.status) == (200, 200)
    assert first.answer["id"] != again.answer["id"]
    steady(again.pictures, 1.0)


def test_ses04_bye_of_the_device_while_somebody_watches_is_cured_by_a_new_invite(devices: Field) -> None:
    seen = devices.watched("SES-04")
    device_id = devices.ids["SES-04"]
    assert devices.gateway.seen("stream.retrying", device_id=device_id, reason="device_bye")
    assert seen.stream["state"] == "running"
    assert seen.pictures[-1] - seen.pictures[0] > 11_000
    wait_until(
        lambda: devices.gateway.seen("stream.stopped", device_id=device_id), "the end after the last viewer"
    )
