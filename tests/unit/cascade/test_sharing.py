"""Which ids an upper knows channels by: given, own, made; refused with the row; stable."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gb28181gw.cascade.models import Upper
from gb28181gw.cascade.sharing import Key, ShareItem, Sharing, sharing_of
from gb28181gw.errors import GatewayError
from tests.support.uppers import LOCAL_ID, NVR, Book, camera, make_device

UPPER = Upper(id="34020000002000000001", domain="3402000000", host="192.0.2.1", local_id=LOCAL_ID)
SECOND = "34020000001180000002"


def item(device_id: str, channel_id: str, shared_id: str = "") -> ShareItem:
    return ShareItem(device_id=device_id, channel_id=channel_id, shared_id=shared_id)


def test_an_id_is_the_channels_own_unless_given_or_taken() -> None:
    made = sharing_of(
        UPPER,
        [item(NVR, camera(1)), item(SECOND, camera(1)), item(NVR, camera(2), "34020100001320000777")],
    )
    assert made.shared_id(NVR, camera(1)) == camera(1)
    assert made.shared_id(NVR, camera(2)) == "34020100001320000777"
    assert made.key_of("34020100001320000777") == Key(NVR, camera(2))
    other = made.shared_id(SECOND, camera(1))
    assert other is not None and other != camera(1) and other[:14] == camera(1)[:14] and len(other) == 20


@pytest.mark.parametrize(
    ("rows", "row", "words"),
    [
        ([item(NVR, camera(1), "77"), item(NVR, camera(2), "77")], 2, "that of row 1"),
        ([item(NVR, camera(1)), item(NVR, camera(1))], 2, "listed twice"),
        ([item(NVR, camera(1), LOCAL_ID)], 1, "id of a platform"),
        ([item(NVR, camera(1), "a b")], 1, "is no id"),
        ([item("", camera(1))], 1, "device_id"),
    ],
)
def test_cs09_collisions_are_refused_with_the_row(rows: list[ShareItem], row: int, words: str) -> None:
    with pytest.raises(GatewayError) as caught:
        sharing_of(UPPER, rows)
    assert caught.value.code == "gb.route.invalid"
    assert f"row {row}" in caught.value.detail and words in caught.value.detail


def test_a_made_id_stays_when_the_list_is_given_again() -> None:
    first = sharing_of(UPPER, [item(NVR, camera(1)), item(SECOND, camera(1))])
    made = first.shared_id(SECOND, camera(1))
    again = sharing_of(UPPER, [item(SECOND, camera(1)), item(NVR, camera(1)), item(NVR, camera(2))], first)
    assert again.shared_id(SECOND, camera(1)) == made and again.shared_id(NVR, camera(1)) == camera(1)


async def test_cat13_all_follows_the_catalogues_and_no_order_of_loading_swaps_ids() -> None:
    late = make_device("34020000001110000001", 1)  # sorts before the others
    book = Book([make_device(NVR, 2), make_device(SECOND, 2)])
    sharing = Sharing(UPPER, share_all=True)
    stored = await sharing.follow(book)
    before = dict(sharing.items())
    assert len(before) == 4 and len(set(before.values())) == 4
    book.devices[late.id] = late
    stored += await sharing.follow(book)
    again = Sharing(UPPER, share_all=True, rows=stored)
    await again.follow(book)
    after = dict(again.items())
    assert {key: after[key] for key in before} == before and len(set(after.values())) == 5


async def test_cs11_what_comes_from_the_upper_is_not_shared_back_with_it() -> None:
    mine = make_device(UPPER.id, 2)
    pending = make_device(SECOND, 2)
    pending.approved = False
    sharing = Sharing(UPPER, share_all=True)
    await sharing.follow(Book([mine, pending, make_device(NVR, 1)]))
    assert [key for key, _ in sharing.items()] == [Key(NVR, camera(1))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([NVR, SECOND]), st.integers(1, 6), st.sampled_from(["", "81", "82", camera(1)])
        ),
        max_size=12,
    )
)
def test_the_mapping_is_one_to_one_or_refused(rows: list[tuple[str, int, str]]) -> None:
    try:
        made = sharing_of(UPPER, [item(device, camera(number), shared) for device, number, shared in rows])
    except GatewayError as error:
        assert error.code == "gb.route.invalid"
        return
    assert len({shared for _, shared in made.items()}) == len(made) == len(rows)
    assert all(made.key_of(shared) == key for key, shared in made.items())


def test_the_upper_of_a_sharing_may_change() -> None:
    renamed = replace(UPPER, name="City")
    assert Sharing(renamed, share_all=False).upper.name == "City"
