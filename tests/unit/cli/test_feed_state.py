"""The state that a feed's events add up to."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.feed_state import FINDING_LINES, LINES_KEPT, FeedEvent, FeedState, describe_model, printable
from cli.feed_view import _View

BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def after(*events: tuple[str, dict[str, Any]], turn: int | None = 1) -> FeedState:
    """Return the state after these events, one second apart."""
    state = FeedState()
    for number, (kind, data) in enumerate(events, 1):
        state = state.apply(FeedEvent(number, kind, turn, BEGAN + timedelta(seconds=number - 1), data))
    return state


def texts(state: FeedState) -> list[str]:
    return [line.text for line in state.lines]


def test_repeated_event_changes_nothing() -> None:
    event = FeedEvent(1, "turn_answered", 1, BEGAN, {})
    once = FeedState().apply(event)
    assert once.apply(event) is once
    assert once.turn == 1


def test_what_the_founder_says_and_that_it_is_read() -> None:
    said = ("message", {"number": 1, "text": "Use blue.\x1b[2J"})
    state = after(said, ("messages_read", {"numbers": [1]}), said, said, ("messages_read", {"numbers": [2, 3]}))
    assert texts(state)[:2] == ["you: Use blue.[2J", "the agent reads your message"]
    assert texts(state)[-1] == "the agent reads your 2 messages"


def test_a_question_with_its_options() -> None:
    asked = {
        "question_id": "q",
        "problem": "It fails.",
        "tried": ["Turn 1: make"],
        "options": ["Try again.", "Leave it."],
    }
    state = after(("question", asked), ("answer", {"number": 1, "text": "Leave it."}))
    assert texts(state)[:4] == ["asks you: It fails.", "tried: Turn 1: make", "1. Try again.", "2. Leave it."]
    assert texts(state)[-1] == "you answered: Leave it."


def test_a_restore() -> None:
    state = after(
        ("restore_asked", {"number": 1, "snapshot": 3}), ("restore_done", {"number": 1, "commit": "4f9d", "kept_as": 7})
    )
    assert texts(state) == [
        "you asked to restore the workspace to snapshot 3",
        "the workspace is restored to commit 4f9d; its previous state is snapshot 7",
    ]


def test_status_with_what_it_waits_for() -> None:
    state = after(
        ("status", {"status": "scaffold"}),
        (
            "status",
            {"status": "needs_input", "waiting_for": "operator", "reason": "no key", "wake_command": "temporal …"},
        ),
    )
    assert (state.status, state.waiting_for, state.reason, state.wake_command) == (
        "needs_input",
        "operator",
        "no key",
        "temporal …",
    )
    assert not state.closed
    woken = state.apply(FeedEvent(3, "status", None, BEGAN, {"status": "code"}))
    assert (woken.waiting_for, woken.reason, woken.wake_command) == (None, None, None)


def test_status_with_the_dependency_that_it_waits_for() -> None:
    state = after(("status", {"status": "waiting", "dependency": "store", "reason": "It does not answer."}))
    assert (state.status, state.dependency, state.closed) == ("waiting", "store", False)
    assert state.lines[-1].text == "status: waiting (store): It does not answer."


def test_closing_stops_the_clock() -> None:
    state = after(("status", {"status": "queued"}), ("narration", {"text": "a"}), ("status", {"status": "ready"}))
    assert state.closed
    assert (state.began_at, state.ended_at) == (BEGAN, BEGAN + timedelta(seconds=2))


def test_withdrawn_lines_vanish_and_others_stay() -> None:
    state = after(
        ("narration", {"text": "kept", "claim": "a"}),
        ("narration", {"text": "lost 1", "claim": "b"}),
        ("narration", {"text": "lost 2", "claim": "b"}),
        ("turn_withdrawn", {"claim": "b"}),
        ("narration", {"text": "again", "claim": "c"}),
    )
    assert texts(state) == ["kept", "turn 1 was interrupted and starts again", "again"]


def test_tool_call_is_one_line_from_start_to_end() -> None:
    started = ("tool_started", {"tool_use_id": "t1", "name": "bash", "summary": "bash: make"})
    state = after(started)
    assert [(line.text, line.look) for line in state.lines] == [("bash: make", "running")]
    done = after(
        started,
        ("tool_started", {"tool_use_id": "t2", "name": "glob", "summary": "glob: **"}),
        (
            "tool_done",
            {"tool_use_id": "t1", "name": "bash", "summary": "bash: make", "is_error": True, "seconds": 1.26},
        ),
        ("tool_done", {"tool_use_id": "t2", "name": "glob", "summary": "glob: **", "is_error": False, "seconds": 0.04}),
    )
    assert [(line.text, line.look) for line in done.lines] == [
        ("bash: make 1.3 s", "failed"),
        ("glob: ** 0.0 s", "done"),
    ]
    assert (done.calls_done, done.calls_failed) == (2, 1)


def test_phases_turns_and_preview() -> None:
    state = after(
        ("turn_started", {"attempt": 1}),
        ("turn_answered", {"stop_reason": "tool_use"}),
        ("turn_answered", {"stop_reason": "end_turn"}),
        ("phase_completed", {"phase": 1, "commit": "abcdef0123", "title": "Scaffold"}),
        ("ready", {"build_version": 3, "preview_url": "http://x.localhost"}),
    )
    assert (state.turn, state.phases, state.preview_url) == (1, ("Scaffold",), "http://x.localhost")
    assert "phase done: Scaffold [abcdef0]" in texts(state)


def test_gate_findings_are_shown_one_by_one() -> None:
    state = after(("gate_bounced", {"number": 1, "findings": ["No test ran.", "The page is blank."]}))
    assert texts(state) == ["evidence gate 1: not passed yet", "No test ran.", "The page is blank."]


def test_a_long_finding_is_shown_with_its_beginning_and_its_remedy() -> None:
    finding = "\n".join(["`check` failed.", *(f"line {number}" for number in range(100)), "To satisfy this: fix it."])
    shown = texts(after(("gate_bounced", {"number": 1, "findings": [finding]})))
    assert shown[1:3] == ["`check` failed.", "line 0"]
    assert shown[-2:] == ["…", "To satisfy this: fix it."]
    assert len(shown) == 2 + FINDING_LINES


@pytest.mark.parametrize(("count", "shown"), [(None, "0 tests"), (1, "1 test"), (2, "2 tests")])
def test_tests_are_counted_in_words(count: int | None, shown: str) -> None:
    state = after(("gate_passed", {"number": 2, "tests_run": count, "screenshots": {}}))
    assert texts(state) == [f"evidence gate 2: passed, {shown} ran"]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (
            {"reason": "today's budget does not pay for it"},
            ["not judged: today's budget does not pay for it. The other"],
        ),
        ({"model": "haiku"}, ["judged by haiku: nothing that was asked for is missing"]),
        ({"model": "haiku", "findings": ["A calendar."], "returned": True}, ["judged by haiku: the agent gets its"]),
        ({"model": "haiku", "findings": ["A calendar."]}, ["judged by haiku: the agent had its", "A calendar."]),
    ],
)
def test_what_the_judge_found_is_shown(data: dict[str, Any], shown: list[str]) -> None:
    lines = texts(after(("product_judged", {"number": 1} | data)))
    assert [line.startswith(start) for line, start in zip(lines, shown, strict=True)] == [True] * len(shown), lines


def test_what_a_loss_has_cost_is_shown() -> None:
    lost = {"reason": "the sandbox was lost", "continuing_from": "phase 1 (Scaffold), turn 3", "changes": ["a", "b"]}
    assert texts(after(("resumed", lost))) == [
        "Resuming: the sandbox was lost, continuing from phase 1 (Scaffold), turn 3",
        "a",
        "b",
    ]


def test_unknown_events_and_missing_keys_do_no_harm() -> None:
    kinds = ["from_the_future", "status", "model", "turn_withdrawn", "turn_answered", "tool_done", "phase_completed"]
    kinds += ["snapshot_stored", "gate_started", "gate_passed", "guard", "preview", "ready", "resumed", "hook_failed"]
    state = after(*((kind, {}) for kind in kinds), ("of_tomorrow", {"text": "Something\x1b[2J new.", "parts": [1]}))
    assert state.last_id == len(kinds) + 1
    assert texts(state)[0] == "from_the_future:"
    assert texts(state)[-1] == "of_tomorrow: text Something[2J new."


def test_lines_are_bounded() -> None:
    state = after(*(("narration", {"text": str(number)}) for number in range(LINES_KEPT + 50)))
    assert len(state.lines) == LINES_KEPT
    assert state.lines[-1].text == str(LINES_KEPT + 49)


def test_text_cannot_take_over_the_terminal() -> None:
    assert printable("a\x1b[2Jb\n c\u202ed\x9b31m") == "a[2Jb cd31m"
    state = after(("narration", {"text": "[red]not markup[/red] \x1b]0;title\x07"}))
    assert texts(state) == ["[red]not markup[/red] ]0;title"]


def test_rehearsal_says_what_it_is() -> None:
    label = "rehearsal model (standing in for claude-sonnet-5-5)"
    assert describe_model(label) == f"{label}: always builds the same kind of product"
    assert describe_model("claude-opus-5-5") == "claude-opus-5-5"


def test_view_fits_the_screen_and_shows_what_matters() -> None:
    events: list[tuple[str, dict[str, Any]]] = [("model", {"label": "rehearsal model (x)"})]
    events += [("narration", {"text": f"sentence {number} " + "word " * 30}) for number in range(50)]
    events += [("turn_answered", {}), ("phase_completed", {"phase": 1, "title": "Scaffold"})]
    console = Console(width=80, height=24, force_terminal=True, record=True, file=io.StringIO())
    view = _View(console, "Pantry [Pal]", "some-build")
    view.state = after(*events)
    view.trouble = "no answer"
    console.print(view)
    shown = console.export_text()
    assert len(shown.splitlines()) <= 24
    for wanted in (
        "Pantry [Pal]",
        "always builds the same kind",
        "Scaffold",
        "budget unlimited",
        "turn 1",
        "reconnecting",
    ):
        assert wanted in shown


@pytest.mark.parametrize("width", [10, 20, 40, 200])
def test_view_survives_narrow_terminals_and_odd_names(width: int) -> None:
    console = Console(width=width, height=24, force_terminal=True, record=True, file=io.StringIO())
    view = _View(console, "龍\x1b[2J [bold] " + "🦄" * 40, "1b4e28ba-2fa1-11d2-883f-0016d3cca427")
    said = {"budget_percent": 93, "budget_level": "red"}
    view.state = after(
        ("narration", {"text": "龍" * 500}), ("phase_completed", {"title": "🦄"}), ("turn_answered", said)
    )
    console.print(view)
    shown = console.export_text()
    assert "\x1b" not in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    if width >= 40:
        assert "budget 93 %" in shown
