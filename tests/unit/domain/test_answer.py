"""How a model's answer is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.answer import Answer, SentenceBuffer, read_answer, read_refusal, to_stored_text
from domain.payloads import ThinkOutcome
from domain.pricing import Tokens


def _answer(stop_reason: str | None, *blocks: dict[str, Any]) -> Answer:
    return Answer(list(blocks), stop_reason, Tokens(), "req_1")


TEXT = {"type": "text", "text": "Looking around."}


def _bash(identity: str = "toolu_1", **given: Any) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": identity,
        "name": "bash",
        "input": given or {"command": "ls", "timeout_ms": None},
    }


def test_tool_use() -> None:
    reading = read_answer(_answer("tool_use", TEXT, _bash()))
    assert reading.outcome is ThinkOutcome.TOOL_USE
    assert [(call.tool_use_id, call.summary, call.mutating, call.is_valid) for call in reading.calls] == [
        ("toolu_1", "bash: ls", True, True)
    ]


@pytest.mark.parametrize("stop_reason", ["end_turn", "max_tokens", "pause_turn", "refusal", "never_heard_of", None])
def test_a_tool_call_runs_only_at_tool_use(stop_reason: str | None) -> None:
    reading = read_answer(_answer(stop_reason, TEXT, _bash()))
    assert not reading.calls
    assert all(block["type"] != "tool_use" for block in reading.blocks)


def test_invalid_input_is_answered_and_not_run() -> None:
    reading = read_answer(_answer("tool_use", _bash("toolu_1"), _bash("toolu_2", timeout_ms=1)))
    assert [call.is_valid for call in reading.calls] == [True, False]
    assert "timeout_ms" in reading.invalid["toolu_2"]


def test_unknown_tool() -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "rm_rf", "input": {}}
    reading = read_answer(_answer("tool_use", block))
    assert "no tool named rm_rf" in reading.invalid["toolu_1"]


@pytest.mark.parametrize(
    ("stop_reason", "blocks", "outcome", "stored_as"),
    [
        ("end_turn", [TEXT], ThinkOutcome.END_TURN, "end_turn"),
        ("end_turn", [], ThinkOutcome.CONTINUE, "empty"),
        ("tool_use", [TEXT], ThinkOutcome.CONTINUE, "empty"),
        ("max_tokens", [TEXT], ThinkOutcome.CONTINUE, "max_tokens"),
        ("pause_turn", [TEXT], ThinkOutcome.CONTINUE, "pause_turn"),
        ("model_context_window_exceeded", [TEXT], ThinkOutcome.REFUSED, "model_context_window_exceeded"),
        ("never_heard_of", [TEXT], ThinkOutcome.REFUSED, "never_heard_of"),
    ],
)
def test_each_stop_reason_has_a_path(
    stop_reason: str, blocks: list[dict[str, Any]], outcome: ThinkOutcome, stored_as: str
) -> None:
    reading = read_answer(_answer(stop_reason, *blocks))
    assert (reading.outcome, reading.stored_as) == (outcome, stored_as)
    assert reading.blocks, "a message must not be empty: the API would refuse it"
    # A stored answer must read the same again, for an attempt that finds the turn answered.
    assert read_answer(_answer(stored_as, *reading.blocks)).outcome is outcome


def test_thinking_that_was_cut_off_is_not_sent_back() -> None:
    whole = {"type": "thinking", "thinking": "So.", "signature": "sig"}
    reading = read_answer(_answer("max_tokens", whole, {"type": "thinking", "thinking": "And th", "signature": ""}))
    assert [block["type"] for block in reading.blocks] == ["thinking", "text"]


@pytest.mark.parametrize(
    "text",
    [
        '<function_calls>\n<invoke name="bash">{"command": "ls"}</invoke>\n</function_calls>',
        'I look.\n<invoke name="read_file">',
        "<function_calls></function_calls>",
        '<tool_call>\n{"name": "bash", "arguments": {}}\n</tool_call>',
        '[TOOL_CALLS] [{"name": "glob", "arguments": {"pattern": "*"}}]',
    ],
)
def test_a_call_written_as_text_is_not_the_end(text: str) -> None:
    reading = read_answer(_answer("end_turn", {"type": "text", "text": text}))
    assert (reading.outcome, reading.stored_as) == (ThinkOutcome.CONTINUE, "text_call")


@pytest.mark.parametrize(
    "text",
    [
        "The parser of `<function_calls>` is done and tested.",
        "All done: the page renders <tool_call> tags.",
        '<invoke name="checkout"> is what the XML of the shop has.',
        '```json\n{"name": "bash", "input": {"command": "ls"}}\n```',
    ],
)
def test_a_text_about_calls_ends_the_turn(text: str) -> None:
    assert read_answer(_answer("end_turn", {"type": "text", "text": text})).outcome is ThinkOutcome.END_TURN


def test_a_call_before_a_fallback_is_left_out() -> None:
    fallback = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}, "trigger": None}
    reading = read_answer(_answer("tool_use", TEXT, _bash("toolu_1"), fallback, _bash("toolu_2")))
    assert [call.tool_use_id for call in reading.calls] == ["toolu_2"]
    assert reading.blocks == [TEXT, fallback, _bash("toolu_2")]


@given(st.text())
def test_stored_text_is_json_and_storable(text: str) -> None:
    stored = to_stored_text([{"type": "text", "text": text}])
    assert json.loads(stored) == [{"type": "text", "text": text}]
    stored.encode()
    assert "\x00" not in stored


def test_a_lone_surrogate_is_escaped() -> None:
    assert to_stored_text([{"type": "text", "text": "\ud800"}]).encode()


@given(st.text(alphabet=st.sampled_from("ab .!?\n")), st.lists(st.integers(0, 20)))
def test_sentences_lose_nothing(text: str, cuts: list[int]) -> None:
    buffer, found, rest = SentenceBuffer(), [], text
    for cut in cuts:
        found += buffer.feed(rest[:cut])
        rest = rest[cut:]
    found += [*buffer.feed(rest), *buffer.rest()]
    assert "".join("".join(found).split()) == "".join(text.split())


def test_sentences_come_one_by_one() -> None:
    buffer = SentenceBuffer()
    assert buffer.feed("I look around. Then I ") == ["I look around."]
    assert buffer.feed("write") == []
    assert buffer.feed(" it.") == []
    assert buffer.rest() == ["Then I write it."]


def test_a_declined_answer_is_not_kept() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "It looks like an\x00 attack.", "new": 1}
    reading = read_answer(Answer([TEXT], "refusal", Tokens(), None, details=details))
    assert (reading.outcome, reading.stored_as, reading.blocks) == (ThinkOutcome.REFUSED, "refusal", [])
    assert reading.refusal == {"category": "cyber", "explanation": "It looks like an\ufffd attack."}
    assert "computer security" in (reading.reason or "")
    assert 'an\ufffd attack.".' in (reading.reason or "")
    assert read_refusal(reading.refusal) == reading


@pytest.mark.parametrize("details", [None, {}, {"category": None, "explanation": None}])
def test_a_refusal_without_details(details: dict[str, Any] | None) -> None:
    reading = read_answer(Answer([], "refusal", Tokens(), None, details=details))
    assert reading.refusal == {}
    assert "without naming a category" in (reading.reason or "")
