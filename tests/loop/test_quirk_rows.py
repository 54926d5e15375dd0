"""Each deviation that the simulator knows, against a whole gateway: registration, messages and the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.field import Field, Plan, running_field
from tests.support.gateway import wait_until


def plan(*rows: str, **options: object) -> Plan:
    return Plan(rows=rows, options=options)


PLANS = {
    "sound": plan(channels=3),
    **{
        row: plan(row)
        for row in (
            *("REG-01", "REG-01-BARE", "REG-02", "REG-03", "REG-04", "REG-06", "REG-10", "REG-10-CONTACT"),
            *("REG-11", "REG-12", "REG-13", "REG-16"),
            *("XML-01", "XML-02", "XML-03", "XML-04", "XML-05", "XML-06", "XML-08", "XML-10", "XML-11"),
            *(
                "XML-11-OTHER",
                "XML-12",
                "XML-13",
                "XML-14",
                "XML-14-LONG",
                "XML-17",
                "XML-18",
                "XML-20",
                "XML-23",
            ),
            *(
                "CAT-01",
                "CAT-02",
                "CAT-05",
                "CAT-07",
                "CAT-08",
                "CAT-10",
                "CAT-11",
                "CAT-12",
                "CAT-14",
                "CAT-16",
            ),
        )
    },
    "REG-07": plan("REG-07", password="wrong-password", retry_s=0.1),
    "REG-15": plan("REG-15", keepalive_s=0.5),
    "REG-17": plan("REG-17", keepalive_s=0.5),
    "REG-21": plan("REG-21", transport="tcp"),
    "REG-22": plan("REG-22", transport="tcp", keepalive_s=0.5),
    "KA-06": plan("KA-06", keepalive_s=0.5),
    "KA-06-ERROR": plan("KA-06-ERROR", keepalive_s=0.5),
    "XML-14-TCP": plan("XML-14", transport="tcp"),
    "XML-14-LONG-TCP": plan("XML-14-LONG", transport="tcp"),
    "CAT-03": plan("CAT-03", keepalive_s=0.5),
    "CAT-04": plan("CAT-04", channels=15),
    "CAT-09": plan("CAT-09", channels=7),
    "CAT-15": plan("CAT-15"),
}


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with running_field(tmp_path_factory.mktemp("field"), PLANS) as field:
        field.gateway.api.post("/api/v1/devices", json={"id": field.ids["REG-13"]}).raise_for_status()
        yield field


def texts(devices: Field, name: str, key: str) -> list[str]:
    return [channel[key] for channel in devices.channels(name)]


def test_a_device_without_deviations_has_no_quirks(devices: Field) -> None:
    device = devices.device("sound")
    assert device["quirks"] == {}
    assert texts(devices, "sound", "name") == ["大门 1-1", "大门 1-2", "大门 1-3"]
    assert (device["manufacturer"], device["model"]) == ("gb28181gw", "Simulator")


# --- registration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["REG-01", "REG-01-BARE"])
def test_reg01_the_digest_uri_need_not_be_the_request_uri(devices: Field, row: str) -> None:
    assert devices.device(row)["channel_count"] == 3


def test_reg02_the_old_digest_without_qop(devices: Field) -> None:
    assert devices.device("REG-02")["quirks"]["digest.without_qop"] >= 1


def test_reg03_nc_in_another_form(devices: Field) -> None:
    assert devices.device("REG-03")["channel_count"] == 3


def test_reg04_an_empty_authorization_is_challenged_again(devices: Field) -> None:
    assert devices.device("REG-04")["channel_count"] == 3


def test_reg06_a_device_that_forgets_its_credentials_is_challenged(devices: Field) -> None:
    assert devices.device("REG-06")["channel_count"] == 3


def test_reg07_reg09_a_wrong_password_is_one_sentence_that_names_the_secret_and_then_silence(
    devices: Field,
) -> None:
    gateway, device_id = devices.gateway, devices.ids["REG-07"]
    gateway.wait_event("auth.banned", device_id=device_id)
    told = gateway.seen("device.register_refused", device_id=device_id, reason="wrong_password")
    assert len(told) == 1
    assert "sip.password" in told[0]["detail"]
    assert "wrong-password" not in told[0]["detail"]
    assert gateway.api.get(f"/api/v1/devices/{device_id}").status_code == 404


def test_reg08_the_sentence_of_a_wrong_password_knows_of_pages_that_clear_the_field(devices: Field) -> None:
    event = devices.gateway.wait_event(
        "device.register_refused", device_id=devices.ids["REG-07"], reason="wrong_password"
    )
    assert "saving other settings clears it on some models" in event["detail"]


@pytest.mark.parametrize(("row", "granted"), [("REG-10", 3600), ("REG-10-CONTACT", 3600), ("REG-12", 60)])
def test_reg10_reg12_expiry_from_anywhere_within_bounds(devices: Field, row: str, granted: int) -> None:
    devices.device(row)
    event = devices.gateway.wait_event("device.registered", device_id=devices.ids[row])
    assert event["expires_s"] == granted


def test_reg11_unregistering_first_hurts_nobody(devices: Field) -> None:
    assert devices.device("REG-11")["online"]
    assert not devices.gateway.seen("device.offline", device_id=devices.ids["REG-11"])


def test_reg13_a_provisioned_id_of_19_digits(devices: Field) -> None:
    device = devices.device("REG-13")
    assert len(device["id"]) == 19
    assert "id.form" in device["quirks"]


def test_reg15_two_devices_with_one_id_are_told_with_both_addresses(devices: Field) -> None:
    event = devices.gateway.wait_event("binding.conflict", device_id=devices.ids["REG-15"])
    assert event["reason"] == "old_answers"
    assert event["peer"] != event["old_peer"]
    duplicate = devices.gateway.wait_event("device.duplicate_id", device_id=devices.ids["REG-15"])
    assert {duplicate["peer"], duplicate["other_peer"]} == {event["peer"], event["old_peer"]}


def test_reg16_private_addresses_are_not_believed(devices: Field) -> None:
    device = devices.device("REG-16")
    assert device["channel_count"] == 3
    assert device["remote_address"].startswith("127.0.0.1:")


def test_reg17_a_refresh_from_a_new_port_moves_the_route(devices: Field) -> None:
    devices.device("REG-17")
    device_id = devices.ids["REG-17"]
    wait_until(lambda: devices.noted("REG-17", "moved") >= 2, "the device to move twice")
    seen = {line["peer"] for line in devices.gateway.seen("device.registered", device_id=device_id)}
    assert len(seen) >= 2
    assert not devices.gateway.seen("device.offline", device_id=device_id)
    assert devices.gateway.post(f"/devices/{device_id}/catalog").status_code == 202


@pytest.mark.parametrize("row", ["REG-21", "REG-22"])
def test_reg21_reg22_tcp_habits(devices: Field, row: str) -> None:
    device = devices.device(row)
    assert (device["transport"], device["channel_count"]) == ("tcp", 3)


# --- keepalive ----------------------------------------------------------------------------------------------------


def test_ka06_a_keepalive_of_another_form_counts(devices: Field) -> None:
    devices.device("KA-06")
    name = devices.ids["KA-06"]
    before = devices.gateway.get(f"/devices/{name}")["last_seen_at"]
    wait_until(
        lambda: devices.gateway.get(f"/devices/{name}")["last_seen_at"] > before,
        "a sign of life by keepalive",
    )


def test_ka06_a_status_other_than_ok_is_told_with_the_faulty_channels(devices: Field) -> None:
    devices.device("KA-06-ERROR")
    event = devices.gateway.wait_event("device.status", device_id=devices.ids["KA-06-ERROR"])
    assert event["status"] == "ERROR"
    assert texts(devices, "KA-06-ERROR", "id")[0] in event["detail"]


# --- message bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "quirks"),
    [
        ("XML-01", ("charset.beyond_gb2312",)),
        ("XML-02", ("charset.declaration_lied",)),
        ("XML-03", ("xml.bom", "xml.no_declaration")),
        ("XML-04", ("xml.illegal_control_char", "xml.nul_padding")),
        ("XML-05", ("xml.bare_ampersand",)),
        ("XML-06", ("xml.raw_less_than", "charset.undecodable_bytes")),
        ("XML-08", ("xml.recovered",)),
        ("XML-10", ("xml.head_in_attributes", "xml.name_form")),
        ("XML-11", ("xml.sn_unreadable", "query.sn_differs")),
        ("XML-11-OTHER", ("query.sn_differs",)),
        ("XML-12", ()),
        ("XML-13", ("xml.result_text",)),
        ("XML-14", ("sip.content_length",)),
        ("XML-14-LONG", ("sip.content_length",)),
        ("XML-14-TCP", ("sip.content_length",)),
        ("XML-14-LONG-TCP", ()),
        ("XML-17", ()),
        ("XML-18", ("xml.second_document",)),
        ("XML-20", ("sip.folded_header",)),
        ("XML-23", ("xml.text_cut",)),
    ],
)
def test_xml01_to_xml23_no_item_is_lost_and_the_device_is_marked(
    devices: Field, row: str, quirks: tuple[str, ...]
) -> None:
    devices.device(row)
    devices.quirks(row, *quirks)
    names = texts(devices, row, "name")
    assert len(names) == 3
    assert all(name.startswith("大门 1-") for name in names)
    wait_until(
        lambda: devices.gateway.get(f"/devices/{devices.ids[row]}")["model"] == "Simulator", "DeviceInfo"
    )


def test_xml01_cat22_rare_characters_arrive(devices: Field) -> None:
    devices.device("XML-01")
    assert all(name.endswith(" 鎕\u3400") for name in texts(devices, "XML-01", "name"))


def test_xml05_ampersands_stay(devices: Field) -> None:
    devices.device("XML-05")
    assert all(name.endswith(" A&B &nosuch;") for name in texts(devices, "XML-05", "name"))


def test_xml23_long_names_are_cut_by_character(devices: Field) -> None:
    devices.device("XML-23")
    names = texts(devices, "XML-23", "name")
    assert {len(name) for name in names} == {255}
    assert all("'quote\" \U0001f4f7" in name for name in names)


# --- catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["CAT-02", "CAT-05"])
def test_cat02_cat05_wrong_counts_lose_nothing(devices: Field, row: str) -> None:
    device = devices.device(row)
    assert device["channel_count"] == 3
    assert devices.gateway.get(f"/devices/{device['id']}/catalog")["state"] == "complete"


def test_cat03_an_unasked_single_item_deletes_nothing(devices: Field) -> None:
    devices.device("CAT-03")
    before = devices.gateway.get(f"/devices/{devices.ids['CAT-03']}")["last_seen_at"]
    wait_until(
        lambda: devices.gateway.get(f"/devices/{devices.ids['CAT-03']}")["last_seen_at"] > before,
        "another keepalive with its item",
    )
    assert len(devices.channels("CAT-03")) == 3


def test_cat04_pages_out_of_order_and_twice_are_one_catalogue(devices: Field) -> None:
    assert devices.device("CAT-04", channels=15)["channel_count"] == 15
    assert len(set(texts(devices, "CAT-04", "id"))) == 15


def test_cat07_every_form_of_parent_hangs_somewhere(devices: Field) -> None:
    assert devices.device("CAT-07")["quirks"]["catalog.parent_form"] >= 1
    assert len(devices.tree("CAT-07")) == 3


def test_cat08_parental_out_of_range(devices: Field) -> None:
    assert devices.device("CAT-08")["quirks"]["catalog.parental_value"] >= 1


def test_cat09_words_of_state(devices: Field) -> None:
    devices.device("CAT-09", channels=7)
    assert texts(devices, "CAT-09", "status") == ["ON"] * 5 + ["UNKNOWN", "OFF"]


def test_cat10_useless_civil_codes_are_left_out(devices: Field) -> None:
    assert devices.device("CAT-10")["quirks"]["catalog.civil_code"] >= 1
    assert texts(devices, "CAT-10", "civil_code") == ["", "340200", "3402"]


def test_cat11_placeholders_are_unknown(devices: Field) -> None:
    devices.device("CAT-11")
    assert {(one["manufacturer"], one["model"]) for one in devices.channels("CAT-11")} == {("", "")}


def test_cat12_groups_that_come_after_their_children_are_a_tree(devices: Field) -> None:
    devices.device("CAT-12")
    nodes = {node["id"]: node for node in devices.tree("CAT-12")}
    assert len(nodes) == 6
    cameras = [node for node in nodes.values() if node["id"][10:13] == "132"]
    assert {nodes[camera["parent_id"]]["id"][10:13] for camera in cameras} == {"216"}


def test_cat14_the_devices_own_id_is_no_second_device(devices: Field) -> None:
    assert devices.device("CAT-14", channels=2)["quirks"]["catalog.self_item"] >= 1


def test_cat16_other_kinds_are_kept(devices: Field) -> None:
    devices.device("CAT-16", channels=6)
    assert {identity[10:13] for identity in texts(devices, "CAT-16", "id")} == {"132", "133", "134", "137"}


@pytest.mark.long
def test_cat01_a_deficit_is_marked_partial_and_what_came_is_kept(devices: Field) -> None:
    event = devices.gateway.wait_event("catalog.partial", device_id=devices.ids["CAT-01"], limit_s=40)
    assert (event["received"], event["expected"]) == (3, 8)
    assert len(devices.channels("CAT-01")) == 3


@pytest.mark.long
def test_cat15_a_device_without_catalogue_gets_one_channel_of_its_own_id(devices: Field) -> None:
    devices.gateway.wait_event("catalog.failed", device_id=devices.ids["CAT-15"], limit_s=60)
    wait_until(lambda: devices.channels("CAT-15"), "the implicit channel")
    assert [one["id"] for one in devices.channels("CAT-15")] == [devices.ids["CAT-15"]]
