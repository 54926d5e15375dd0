"""Readiness."""

from __future__ import annotations

from gb28181gw.observability.health import HealthBoard, Status


def test_o06_readiness_waits_for_every_part() -> None:
    board = HealthBoard(("sip", "media", "registry"))
    assert board.health().status is Status.STARTING
    board.up("sip")
    board.up("registry")
    assert board.health().waiting == ("media",)
    assert not board.health().ready
    board.up("media")
    board.up("media")
    assert board.health().status is Status.OK
    assert board.health().ready


def test_problems_degrade_and_heal() -> None:
    board = HealthBoard(())
    board.problem("storage", "The disk is full.")
    assert board.health().status is Status.DEGRADED
    assert board.health().ready
    assert board.health().problems == (("storage", "The disk is full."),)
    board.problem("storage", "")
    board.problem("storage", "")
    assert board.health().status is Status.OK


def test_stopping_wins() -> None:
    board = HealthBoard(("sip",))
    board.stopping()
    assert board.health().status is Status.STOPPING
    assert not board.health().ready
