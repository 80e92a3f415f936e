"""The requests that the rehearsal model accepts, and the form of its answers."""

import base64
import copy
import json
from typing import Any

import pytest

from local.rehearsal.cache import InputUsage
from local.rehearsal.control import Control
from local.rehearsal.error_faults import raise_error
from local.rehearsal.errors import ApiError
from local.rehearsal.hostile_replies import change_reply
from local.rehearsal.prefix import read_prefix
from local.rehearsal.replies import (
    PAUSE_TEXT,
    Envelope,
    Reply,
    TextPart,
    ThinkingPart,
    ToolPart,
    cut_to,
    message_json,
    output_tokens,
    stream_events,
)
from local.rehearsal.requests import check_request, parse_body
from local.rehearsal.seals import check_seals, new_tool_use_id, sign_thinking

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="  # one pixel


def tool_use(identifier: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": identifier, "name": "bash", "input": {"command": "ls"}}


def tool_result(identifier: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identifier, "content": "fine", **more}


def request(*messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    given = messages or (("user", "Begin."),)
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 100,
        "messages": [{"role": role, "content": content} for role, content in given],
        **more,
    }


VALID = [
    request(),
    request(("user", [{"type": "text", "text": "x"}]), system="S", max_tokens=0),
    request(("user", "a"), ("assistant", [tool_use()]), ("user", [tool_result(), {"type": "text", "text": "and"}])),
    request(("user", "a"), ("assistant", [tool_use(), tool_use("b")]), ("user", [tool_result("b"), tool_result()])),
    request(("user", "a"), ("assistant", [{"type": "text", "text": PAUSE_TEXT}])),
    request(thinking={"type": "adaptive"}),
    request(thinking={"type": "between_tools"}, output_config={"effort": "high"}),
    request(model="claude-haiku-5-5", thinking={"type": "disabled"}),
    request(("user", "a"), ("user", "b")),
    request(("user", "a"), ("system", "b")),
    request(
        ("user", "a"), ("system", "b"), ("system", "c"), ("assistant", "d"), ("user", "e"), model="claude-opus-5-5"
    ),
    request(
        ("user", "a"),
        ("assistant", [tool_use()]),
        ("user", [tool_result()]),
        ("system", [{"type": "text", "text": "b"}]),
    ),
    request(("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")),
    request(("user", "a"), ("assistant", [tool_use()]), ("assistant", "b"), ("user", [tool_result()]), ("user", "c")),
]

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
STRICT = {"name": "t", "strict": True, "input_schema": {"type": "object", "properties": {}}}

INVALID = {
    "max_tokens: Field required": {key: value for key, value in request().items() if key != "max_tokens"},
    "messages: Field required": {"model": "claude-sonnet-5-5", "max_tokens": 1},
    "model: Field required": {"max_tokens": 1, "messages": []},
    "maximum allowed": request(max_tokens=500_000),
    "at least one message": request() | {"messages": []},
    "first message": request(("assistant", "a"), ("user", "b")),
    "prefill": request(("user", "a"), ("assistant", "b")),
    "non-whitespace": request(("user", [{"type": "text", "text": " "}])),
    "system.0": request(system=[{"type": "text", "text": ""}]),
    "non-empty content": request(("user", [])),
    "without `tool_result` blocks": request(("user", "a"), ("assistant", [tool_use()]), ("user", "b")),
    "unexpected `tool_use_id`": request(("user", [tool_result()])),
    "single result": request(("user", "a"), ("assistant", [tool_use()]), ("user", [tool_result(), tool_result()])),
    "must come first": request(
        ("user", "a"), ("assistant", [tool_use()]), ("user", [{"type": "text", "text": "x"}, tool_result()])
    ),
    "ids must be unique": request(
        ("user", "a"), ("assistant", [tool_use(), tool_use()]), ("user", [tool_result()])
    ),
    "is_error": request(("user", "a"), ("assistant", [tool_use()]), ("user", [tool_result(content="", is_error=True)])),
    "valid dictionary": request(("user", "a"), ("assistant", [tool_use() | {"input": "x"}]), ("user", [tool_result()])),
    "not allowed in user": request(("user", [tool_use()])),
    "not allowed in assistant": request(("user", "a"), ("assistant", [IMAGE]), ("user", "b")),
    "role 'system' is not supported on this model": request(("user", "a"), ("system", "b"), model="claude-haiku-5-5"),
    "messages.1: role 'system' is not supported": request(
        ("user", "a"), ("system", "b"), fallbacks=[{"model": "claude-sonnet-5"}]
    ),
    "messages.2: role 'system' must follow": request(("user", "a"), ("assistant", "b"), ("system", "c"), ("user", "d")),
    "messages.2: role 'system' must precede an 'assistant' message or end the array": request(
        ("user", "a"), ("system", "b"), ("system", "c"), ("user", "d")
    ),
    "`tool_result` blocks immediately after": request(
        ("user", "a"), ("assistant", [tool_use()]), ("system", "b"), ("user", [tool_result()])
    ),
    "not allowed in system": request(("user", "a"), ("system", [IMAGE])),
    "budget_tokens": request(model="claude-sonnet-4-6", thinking={"type": "enabled", "budget_tokens": 5}),
    "greater than `thinking.budget_tokens`": request(
        model="claude-sonnet-4-6", thinking={"type": "enabled", "budget_tokens": 2000}
    ),
    '"thinking.type.disabled" is not supported for this model.': request(
        model="claude-opus-5-5", thinking={"type": "disabled"}
    ),
    '"thinking.type.enabled" is not supported for this model.': request(
        thinking={"type": "enabled", "budget_tokens": 1024}
    ),
    "To turn thinking off on this model, send": request(thinking={"type": "disabled"}),
    "thinking.between_tools.display": request(thinking={"type": "between_tools", "display": "summarized"}),
    "thinking.adaptive.display": request(thinking={"type": "adaptive", "display": "full"}),
    'tool_choice: type "tool" and "any" are not supported': request(
        model="claude-opus-5-5", tool_choice={"type": "any"}
    ),
    "Thinking may not be enabled": request(
        model="claude-opus-4-6", thinking={"type": "adaptive"}, tool_choice={"type": "any"}
    ),
    "output_config.effort: Input should be": request(output_config={"effort": "much"}),
    '"xhigh" is not supported with': request(
        model="claude-haiku-5-5", thinking={"type": "disabled"}, output_config={"effort": "xhigh"}
    ),
    "tool_use.id: String should match": request(
        ("user", "a"), ("assistant", [tool_use("functions.bash:0")]), ("user", [tool_result("functions.bash:0")])
    ),
    "is not a fallback model": request(fallbacks=[{"model": "claude-haiku-5-5"}]),
    "at most 3 items": request(fallbacks=[{"model": "claude-sonnet-5"}] * 4),
    "models must differ": request(fallbacks=[{"model": "claude-sonnet-5"}] * 2),
    "Tool names must be unique": request(tools=[{"name": "t", "input_schema": {"type": "object"}}] * 2),
    "additionalProperties": request(tools=[STRICT]),
    "not supported in strict mode": request(
        tools=[
            STRICT
            | {
                "input_schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"a": {"type": "string", "minLength": 1}},
                }
            }
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("given", VALID)
def test_accepts(given: dict[str, Any]) -> None:
    check_request(given)


@pytest.mark.parametrize("message", INVALID)
def test_refuses(message: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_request(INVALID[message])
    assert caught.value.kind == "invalid_request_error"
    assert message in caught.value.message


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ApiError) as caught:
        check_request(request(model="claude-unknown-1"))
    assert (caught.value.status, caught.value.kind) == (404, "not_found_error")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff"])
def test_a_body_that_is_not_an_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError, match="JSON"):
        parse_body(raw)


def test_a_lone_surrogate_is_read_as_it_was_sent() -> None:
    assert parse_body(b'{"text": "\\ud800"}') == {"text": "\ud800"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"data": "not base64!"}, "base64"),
        ({"media_type": "image/webp"}, "does not appear to be"),
        ({"data": base64.b64encode(b"\x89PNG\r\n\x1a\nbroken").decode()}, "Could not process"),
        ({"type": "url"}, "only base64"),
    ],
)
def test_broken_images_are_refused(source: dict[str, str], message: str) -> None:
    image = {"type": "image", "source": IMAGE["source"] | source}  # type: ignore[operator]
    with pytest.raises(ApiError, match=message):
        read_prefix(request(("user", [image])))


def test_images_count_by_their_area() -> None:
    assert read_prefix(request(("user", [IMAGE]))).tokens == 1


class TestSeals:
    """A conversation must come back exactly as it was served."""

    def served(self) -> dict[str, Any]:
        """Return a conversation whose second message the model served."""
        first = request(("user", "Begin."), system="S", thinking={"type": "adaptive"})
        prefix = read_prefix(first)
        thought = {"type": "thinking", "thinking": "Hm.", "signature": sign_thinking("Hm.", prefix)}
        identifier = new_tool_use_id(prefix)
        first["messages"] += [
            {"role": "assistant", "content": [thought, tool_use(identifier)]},
            {"role": "user", "content": [tool_result(identifier)]},
        ]
        return first

    def check(self, given: dict[str, Any]) -> None:
        check_seals(given, read_prefix(given))

    def test_unchanged_is_fine(self) -> None:
        self.check(self.served())

    def test_a_moved_cache_marker_is_no_change(self) -> None:
        given = self.served()
        given["system"] = [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]
        self.check(given)

    @pytest.mark.parametrize(("field", "value"), [("thinking", "Hm!"), ("signature", "AAAA"), ("signature", "?")])
    def test_a_changed_thinking_block_is_refused(self, field: str, value: str) -> None:
        given = self.served()
        given["messages"][1]["content"][0][field] = value
        with pytest.raises(ApiError, match="Invalid `signature`"):
            self.check(given)

    def test_the_order_of_keys_counts(self) -> None:
        given = self.served()
        self.check(given)
        given["messages"].append({"role": "assistant", "content": [tool_use(new_tool_use_id(read_prefix(given)))]})
        self.check(given)
        result = given["messages"][2]["content"][0]
        given["messages"][2]["content"][0] = dict(reversed(result.items()))
        with pytest.raises(ApiError, match="the earlier messages changed"):
            self.check(given)

    def test_a_changed_prefix_is_refused_and_named(self) -> None:
        changes: dict[str, Any] = {
            "system prompt": {"system": "T"},
            "tools": {"tools": [{"name": "t", "input_schema": {"type": "object"}}]},
        }
        for name, change in changes.items():
            with pytest.raises(ApiError, match=f"the {name} changed"):
                self.check(self.served() | change)
        given = self.served()
        given["messages"][0]["content"] = "Begin!"
        with pytest.raises(ApiError, match="the earlier messages changed"):
            self.check(given)

    def test_tool_calls_without_thinking_blocks_are_sealed_too(self) -> None:
        given = self.served()
        del given["messages"][1]["content"][0]
        given["system"] = "T"
        with pytest.raises(ApiError, match="system prompt changed"):
            self.check(given)

    def test_without_thinking_nothing_is_frozen(self) -> None:
        given = self.served() | {"model": "claude-sonnet-4-6"}
        del given["messages"][1]["content"][0], given["thinking"]
        given["system"] = "T"
        self.check(given)

    def test_what_follows_a_pause_is_sealed_with_it(self) -> None:
        given = self.served()
        paused = copy.deepcopy(given)
        paused["messages"] = [given["messages"][0], {"role": "assistant", "content": PAUSE_TEXT}]
        identifier = new_tool_use_id(read_prefix(paused))
        pause = {"type": "text", "text": PAUSE_TEXT}
        answer = {"role": "user", "content": [tool_result(identifier)]}
        merged = {"role": "assistant", "content": [pause, tool_use(identifier)]}
        self.check(given | {"messages": [given["messages"][0], merged, answer]})
        apart = [{"role": "assistant", "content": [pause]}, {"role": "assistant", "content": [tool_use(identifier)]}]
        self.check(given | {"messages": [given["messages"][0], *apart, answer]})


REPLY = Reply(
    (
        ThinkingPart("Hm.", "c2ln"),
        TextPart("I look at the files, then I decide."),
        ToolPart("toolu_1", "bash", json.dumps({"command": "echo 'ü'" * 100})),
    ),
    "tool_use",
)


def test_a_stream_adds_up_to_the_message() -> None:
    envelope = Envelope("msg_1", "claude-sonnet-5-5", InputUsage(input=3))
    events = [event.data for event in stream_events(REPLY, envelope)]
    message = message_json(REPLY, envelope)
    text = "".join(event["delta"]["text"] for event in events if event.get("delta", {}).get("type") == "text_delta")
    pieces = [e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
    assert text == message["content"][1]["text"]
    assert json.loads("".join(pieces)) == message["content"][2]["input"]
    assert len(pieces) > 4
    assert [events[0]["type"], events[1]["type"], events[-1]["type"]] == ["message_start", "ping", "message_stop"]
    assert events[-2]["usage"]["output_tokens"] == message["usage"]["output_tokens"] == output_tokens(REPLY)


def test_max_tokens_tears_the_last_block() -> None:
    torn = cut_to(REPLY, 40)
    assert torn.stop_reason == "max_tokens"
    assert output_tokens(torn) <= 40
    last = torn.parts[-1]
    assert isinstance(last, ToolPart)
    with pytest.raises(ValueError, match="line 1"):
        json.loads(last.input_json)
    assert cut_to(REPLY, 10_000) == REPLY


def test_faults_count_requests_that_match() -> None:
    control = Control()
    control.load({"faults": [{"kind": "overloaded", "match": "A", "after": 1, "times": 2}], "scripts": []})
    hits = [control.take_fault(system) for system in ("A", "B", "A", "A", "A")]
    assert [hit.kind if hit else None for hit in hits] == [None, None, "overloaded", "overloaded", None]


def test_the_later_script_wins() -> None:
    control = Control()
    control.load(
        {
            "scripts": [
                {"match": "A", "script": {"kind": "long", "turns": 1}},
                {"match": "A", "script": {"kind": "long", "turns": 2}},
            ]
        }
    )
    assert control.script_for("xAx").model_dump()["turns"] == 2
    assert control.script_for("x").kind == "product"


def test_faults_change_replies() -> None:
    def changed(kind: Any) -> Reply:
        return change_reply(REPLY, kind)

    assert changed("empty") == Reply((), "end_turn")
    assert changed("pause_turn").parts == (TextPart(PAUSE_TEXT),)
    assert changed("context_exceeded").stop_reason == "model_context_window_exceeded"
    assert changed("unknown_stop_reason").stop_reason not in ("end_turn", "tool_use")
    broken = changed("broken_tool_json").parts[-1]
    assert isinstance(broken, ToolPart)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(broken.input_json)
    assert change_reply(REPLY, None) == REPLY


def test_a_spend_limit_says_so_in_its_details() -> None:
    with pytest.raises(ApiError) as caught:
        raise_error("spend_limit")
    error = caught.value.body("req_1")["error"]
    assert error["error_code"] == error["details"]["error_code"] == "enforced_spend_limit_reached"
