"""The events of a feed: one model for each type; what is stored is what its model names."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import events
from domain.events import EVENTS, BudgetEvent, BuildEvent, StatusEvent, ToolDoneEvent, read_event

STORED: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": "code"}),
    ("status", {"status": "sleeping", "reason": "No money.", "wakes_at": "2026-11-29T00:00:00+00:00"}),
    ("status", {"status": "needs_input", "waiting_for": "founder", "wake_command": "temporal workflow signal"}),
    ("model", {"model": "claude-sonnet-5-5", "label": "rehearsal model", "plan": "founder"}),
    ("message", {"number": 1, "text": "Use blue."}),
    ("question", {"question_id": "q", "problem": "It fails.", "tried": ["Turn 1: make"], "options": []}),
    ("answer", {"number": 2, "text": "Leave it.", "question_id": "q"}),
    ("restore_asked", {"number": 1, "snapshot": 3}),
    ("restore_done", {"number": 1, "commit": "abc", "kept_as": 4, "stored_as": 5}),
    ("restore_done", {"number": 1, "snapshot": 3, "kept_as": None, "stored_as": None}),
    ("restore_failed", {"number": 1, "error": "The snapshot is gone."}),
    ("messages_read", {"numbers": [1, 2]}),
    ("turn_started", {"attempt": 1}),
    ("narration", {"text": "I look around.", "claim": "c"}),
    ("turn_failed", {"error": "The model is busy."}),
    ("turn_withdrawn", {"claim": "c"}),
    ("turn_answered", {"tokens": {}, "tool_calls": 0, "stop_reason": "end_turn"}),
    (
        "turn_answered",
        {
            "tokens": {"input": 3},
            "tool_calls": 1,
            "stop_reason": "tool_use",
            "budget_percent": 4,
            "budget_level": "green",
        },
    ),
    ("tool_started", {"tool_use_id": "t", "name": "bash", "summary": "bash: make"}),
    ("tool_done", {"tool_use_id": "t", "name": "bash", "summary": "bash: make", "is_error": False, "seconds": 1.25}),
    ("phase_completed", {"phase": 1, "commit": "abc", "title": "Scaffold"}),
    ("phase_completed", {"phase": 1, "commit": None, "title": ""}),
    ("snapshot_stored", {"number": 1, "reason": "phase", "bytes": 10, "files": 2}),
    ("snapshot_failed", {"number": 1, "reason": "phase", "error": "The store is full."}),
    ("guard", {"text": "The agent repeats itself."}),
    ("budget", {"text": "Low.", "budget_percent": 91, "budget_level": "red"}),
    ("budget", {"text": "Too much.", "alert": True}),
    ("gate_started", {"number": 1}),
    ("gate_step", {"text": "Installing."}),
    ("gate_bounced", {"number": 1, "findings": ["The check fails."]}),
    ("gate_passed", {"number": 2, "tests_run": 7, "screenshots": {"desktop": "images/1.webp"}}),
    ("resumed", {"reason": "a new day's budget", "continuing_from": "the beginning", "changes": []}),
    ("preview", {"state": "closed", "url": None, "expires_at": None, "reason": None}),
    ("hook_failed", {"error": "A step after it failed."}),
    ("ready", {"build_version": 1, "preview_url": None, "phases_completed": 3}),
]
"""Rows as earlier versions wrote them."""


@pytest.mark.parametrize(("kind", "data"), STORED)
def test_what_earlier_versions_stored_is_read_and_would_be_stored_the_same(kind: str, data: dict[str, Any]) -> None:
    event = read_event(kind, data)
    assert event is not None
    assert event.to_data() == data


def _made_of(model: type[BuildEvent]) -> st.SearchStrategy[BuildEvent]:
    """Events of the model, with any of the keys that it can do without."""
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        finite = st.floats(allow_nan=False, allow_infinity=False)
        value = finite if field.annotation is float else st.from_type(cast("type[Any]", field.annotation))
        (required if field.is_required() else optional)[name] = value
    return st.fixed_dictionaries(required, optional=optional).map(model.model_validate)


@given(event=st.sampled_from(list(EVENTS.values())).flatmap(_made_of))
def test_what_is_stored_is_read_again(event: BuildEvent) -> None:
    data = json.loads(json.dumps(event.to_data()))
    assert read_event(event.type, data) == event


def test_a_key_that_is_not_set_is_left_out() -> None:
    assert StatusEvent(status="code", reason=None).to_data() == {"status": "code"}
    assert BudgetEvent(text="Low.", alert=True).to_data() == {"text": "Low.", "alert": True}


def test_each_type_has_one_model_that_describes_it() -> None:
    models = [model for model in vars(events).values() if isinstance(model, type) and "type" in vars(model)]
    assert sorted(model.type for model in models if issubclass(model, BuildEvent)) == sorted(EVENTS)
    for model in EVENTS.values():
        assert model.__doc__
        assert all(field.description for field in model.model_fields.values()), model


def test_what_is_not_known_is_not_an_error() -> None:
    assert read_event("of_tomorrow", {"text": "?"}) is None
    assert read_event("tool_done", {"name": "bash"}) is None
    assert read_event("tool_done", {"tool_use_id": "t", "later": 1}) == ToolDoneEvent(tool_use_id="t")
