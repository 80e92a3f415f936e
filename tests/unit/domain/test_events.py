"""The events of a feed: one model a type, and what is stored is what its model names."""

from typing import Any

import pytest

from domain.events import EVENTS, BudgetEvent, NewEvent, StatusEvent, ToolDoneEvent, read_event

STORED: dict[str, dict[str, Any]] = {
    "status": {"status": "sleeping", "reason": "No money.", "wakes_at": "2026-11-29T00:00:00+00:00"},
    "turn_answered": {"tokens": {"input": 3}, "tool_calls": 1, "stop_reason": "tool_use", "budget_percent": 4},
    "preview": {"state": "closed", "url": None, "expires_at": None, "reason": None},
    "restore_done": {"number": 1, "commit": "abc", "kept_as": 4, "stored_as": 5},
    "gate_passed": {"number": 2, "tests_run": 7, "screenshots": {"desktop": "images/1.webp"}},
}
"""Rows as earlier versions wrote them."""


@pytest.mark.parametrize("kind", STORED)
def test_what_earlier_versions_stored_is_read_and_would_be_stored_the_same(kind: str) -> None:
    event = read_event(kind, STORED[kind])
    assert event is not None
    assert event.stored() == STORED[kind]


def test_a_key_that_is_not_set_is_left_out() -> None:
    assert NewEvent(StatusEvent(status="code")).data == {"status": "code"}
    assert NewEvent(BudgetEvent(text="Low.", alert=True)).data == {"text": "Low.", "alert": True}


def test_each_type_has_one_model_that_says_what_it_means() -> None:
    assert all(kind == model.type and model.__doc__ for kind, model in EVENTS.items())
    assert len(EVENTS) >= 29


def test_what_is_not_known_is_not_an_error() -> None:
    assert read_event("of_tomorrow", {"text": "?"}) is None
    assert read_event("tool_done", {"name": "bash"}) is None
    assert read_event("tool_done", {"tool_use_id": "t", "later": 1}) == ToolDoneEvent(tool_use_id="t")
