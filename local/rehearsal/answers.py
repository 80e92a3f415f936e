"""What the server answers to a valid request: the reply, and what it is billed as."""

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from local.rehearsal.cache import InputUsage, PromptCache, breakpoints
from local.rehearsal.compaction import OWN_PROMPT_TOKENS, Cut, sign_block
from local.rehearsal.control import Fault, Limits, Registration
from local.rehearsal.conversation import Conversation, Turn, as_described, open_answer, write_trail
from local.rehearsal.errors import invalid
from local.rehearsal.fuzz import FuzzAnswer, FuzzBlock, fuzz_answer
from local.rehearsal.hostile_replies import change_reply
from local.rehearsal.judge import JudgeManner, is_structured, judge
from local.rehearsal.models import traits
from local.rehearsal.prefix import Prefix, content_blocks, read_prefix, text_tokens
from local.rehearsal.refusals import Refusal, decline, fallback_block, fallback_bodies, refusal_of
from local.rehearsal.replies import (
    Envelope,
    Iteration,
    Part,
    RawPart,
    Reply,
    TextPart,
    ThinkingPart,
    ToolPart,
    cut_to,
    output_tokens,
)
from local.rehearsal.script import FuzzScript, decide, play
from local.rehearsal.seals import new_tool_use_id, sign_thinking

STICKY_SECONDS = 3600.0
"""Seconds for which a conversation goes straight to the model that served it after a refusal."""

_NO_SUMMARY = {
    "compaction_max_tokens": "max_tokens",
    "compaction_refusal": "refusal",
    "compaction_tool_use": "tool_use",
    "compaction_end_turn": "end_turn",
    "compaction_context_exceeded": "model_context_window_exceeded",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "empty": "end_turn",
    "context_exceeded": "model_context_window_exceeded",
    "unknown_stop_reason": "a_reason_of_tomorrow",
}
"""The stop reason of a compaction without a summary, by fault."""

_SENTENCE_END = re.compile(r"[.!?…][^\w\s]*(?:\s|$)")


@dataclass(frozen=True)
class Ask:
    """A valid request, and what is registered for its conversation."""

    body: dict[str, Any]
    prefix: Prefix
    conversation: Conversation
    registration: Registration
    limits: Limits
    fault: Fault | None
    judge: JudgeManner | None = None

    @property
    def window(self) -> int:
        """Tokens of input and output together."""
        return window_of(self.body, self.limits)


@dataclass(frozen=True)
class Answer:
    """A reply, its envelope, and its samplings for the log."""

    reply: Reply
    envelope: Envelope
    iterations: tuple[Iteration, ...]


class Answers:
    """Answers requests. Remembers the prompt cache and which conversations fell back to another model."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.cache = PromptCache(clock)
        self._clock = clock
        self._sticky: dict[str, tuple[str, float]] = {}

    def answer(self, ask: Ask) -> Answer:
        """Return the answer, and read and write the prompt cache for it."""
        if ask.body.get("compaction") is not None:
            return self._compact(ask)
        return self._take_turn(ask)

    # An ordinary turn

    def _take_turn(self, ask: Ask) -> Answer:
        requested = ask.body["model"]
        refusal = refusal_of(ask.fault, ask.body["messages"])
        turn = (
            judge(ask.judge, ask.body, ask.conversation)
            if is_structured(ask.body)
            else decide(ask.registration.script, ask.conversation)
        )
        attempts = self._attempts(ask, refusal)
        iterations: list[Iteration] = []
        parts: tuple[Part, ...] = ()
        first_model = ""
        while True:
            body = attempts.pop(0)
            model = body["model"]
            usage, reply = self._sample(ask, body, turn)
            if refusal is None or not refusal.declines(model, requested):
                kind = "message" if model == requested else "fallback_message"
                iterations.append(Iteration(kind, model, usage, output_tokens(reply)))
                break
            declined = decline(reply, refusal)
            output = output_tokens(declined) if declined.parts else 0
            if not attempts:
                kind = "message" if model == requested else "fallback_message"
                details = declined.stop_details or {}
                if ask.body.get("fallbacks"):
                    details |= {"recommended_model": None}  # a model to retry, had an attempt been skipped
                reply, parts = replace(declined, stop_details=details), ()
                iterations.append(Iteration(kind, model, usage, output, billed=refusal.billed))
                break
            iterations.append(Iteration("message", model, usage, output, billed=refusal.billed))
            # Without streaming, the declined output is left out and the next model answers from scratch.
            said = (
                tuple(part for part in declined.parts if isinstance(part, TextPart)) if ask.body.get("stream") else ()
            )
            first_model = first_model or (model if said else "")
            parts += (*said, fallback_block(model, attempts[0]["model"], refusal))
        last = iterations[-1]
        if last.kind == "fallback_message":
            self._sticky[self._sticky_key(ask)] = (last.model, self._clock() + STICKY_SECONDS)
        envelope = Envelope(
            message_id=_message_id(),
            model=last.model,
            usage=last.usage,
            output=last.output,
            iterations=tuple(iterations) if ask.body.get("fallbacks") else (),
            first_model=first_model,
            no_usage=bool(ask.fault and ask.fault.kind == "zero_usage") or _hides_usage(ask),
        )
        return Answer(replace(reply, parts=(*parts, *reply.parts)), envelope, tuple(iterations))

    def _attempts(self, ask: Ask, refusal: Refusal | None) -> list[dict[str, Any]]:
        """Return the request as it is made to each model of the chain, the requested one first."""
        fallbacks = ask.body.get("fallbacks")
        sticky, expires = self._sticky.get(self._sticky_key(ask), ("", 0.0))
        if fallbacks and expires > self._clock():
            named = {entry["model"]: entry for entry in fallback_bodies(ask.body, refusal)}
            return [named.get(sticky) or fallback_bodies(ask.body | {"fallbacks": [{"model": sticky}]}, refusal)[0]]
        return [ask.body, *fallback_bodies(ask.body, refusal)]

    def _sticky_key(self, ask: Ask) -> str:
        return f"{ask.body['model']} {conversation_key(ask.prefix)}"

    def _sample(self, ask: Ask, body: dict[str, Any], turn: Turn) -> tuple[InputUsage, Reply]:
        prefix = ask.prefix if body is ask.body else read_prefix(body)
        usage = self.cache.serve(body["model"], prefix, breakpoints(prefix, body.get("cache_control")))
        kind = ask.fault.kind if ask.fault else None
        said = _fuzz(fuzz, prefix) if (fuzz := _fuzz_answer(ask)) else _say(turn, body, prefix, ask.registration.notes)
        reply = change_reply(said, kind, _earlier_id(body))
        room = ask.window - prefix.tokens
        if room < body["max_tokens"]:
            return usage, cut_to(reply, room, "model_context_window_exceeded")
        return usage, cut_to(reply, body["max_tokens"])

    # A compaction

    def _compact(self, ask: Ask) -> Answer:
        body, prefix = ask.body, ask.prefix
        usage = self.cache.serve(body["model"], prefix, breakpoints(prefix, body.get("cache_control")))
        instructions = str(body["compaction"].get("instructions") or "").strip()
        prompt = text_tokens(instructions) if instructions else OWN_PROMPT_TOKENS
        content = _summary(ask)
        output = text_tokens(content)
        stop_reason = _NO_SUMMARY.get(ask.fault.kind, "compaction") if ask.fault else "compaction"
        details = None
        if stop_reason == "refusal" and ask.fault:
            details = {"type": "refusal", "category": ask.fault.category, "explanation": ask.fault.explanation}
        if prefix.tokens + prompt + 1 > ask.window:
            stop_reason, prompt, output = "model_context_window_exceeded", 0, 0
        elif stop_reason == "compaction" and output > body["max_tokens"]:
            stop_reason = "max_tokens"
        if stop_reason == "max_tokens":
            output = body["max_tokens"]
        elif stop_reason != "compaction":
            output = min(output, 1)
        block = {"type": "compaction", "content": content, "signature": sign_block(content, _cut(ask))}
        parts = (RawPart(block, (), content),) if stop_reason == "compaction" else ()
        billed = not (details and ask.fault and not ask.fault.partial)
        iteration = Iteration(
            "compaction", body["model"], replace(usage, input=usage.input + prompt), output, billed=billed
        )
        envelope = Envelope(
            message_id=_message_id(),
            model=body["model"],
            usage=InputUsage(),
            output=0,
            iterations=(iteration,),
            no_usage=bool(ask.fault and ask.fault.kind == "zero_usage"),
        )
        return Answer(Reply(parts, stop_reason, details), envelope, (iteration,))


def window_of(body: dict[str, Any], limits: Limits) -> int:
    """Return the tokens of input and output together that a request may have."""
    return limits.window_tokens or traits(body["model"]).window


def check_window(body: dict[str, Any], prefix: Prefix, limits: Limits) -> None:
    """Refuse a prompt that is longer than the window.

    Raises:
        ApiError: it is.
    """
    window = window_of(body, limits)
    if prefix.tokens > window:
        raise invalid(f"prompt is too long: {prefix.tokens} tokens > {window} maximum")


def conversation_key(prefix: Prefix) -> str:
    """Return a key that all requests of a conversation share, from its tools, system prompt and first message."""
    return (prefix.tools[:4] + prefix.system[:4] + prefix.first).ljust(16, "0")


def _cut(ask: Ask) -> Cut:
    return Cut(ask.prefix.messages, ask.body["messages"][-1]["role"], ask.prefix.first)


def _summary(ask: Ask) -> str:
    exchanges = ask.conversation.exchanges
    said = [exchange.text for exchange in exchanges if exchange.text.strip()]
    written = dict.fromkeys(
        str(call.input["file_path"]) for exchange in exchanges for call in exchange.calls if call.input.get("file_path")
    )
    lines = [
        f"Summary of the conversation so far, {len(exchanges)} turns of the rehearsal model.",
        *([f"The last step: {said[-1][:400]}"] if said else []),
        *([f"Files in these turns: {', '.join(list(written)[-20:])}."] if written else []),
    ]
    script = play(ask.registration.script, ask.conversation)
    lines.append(write_trail(script, exchanges, open_answer(ask.body["messages"])))
    return "\n".join(lines)


def _fuzz_answer(ask: Ask) -> FuzzAnswer | None:
    """The answer of a fuzz script: hostile first, then the product and the end of the turn in turn."""
    script = ask.registration.script
    if not isinstance(script, FuzzScript) or is_structured(ask.body):
        return None
    # Of user messages, since what is refused adds no message of the assistant.
    number = sum(message["role"] == "user" for message in ask.body["messages"])
    if number <= script.turns:
        return fuzz_answer(script.seed, number, [tool["name"] for tool in ask.body.get("tools", ())])
    if (number - script.turns) % 2:
        call = json.dumps({"command": script.product, "timeout_seconds": 60})
        return FuzzAnswer((FuzzBlock("text", "Now the product."), FuzzBlock("call", call, "bash")), "tool_use")
    return FuzzAnswer((FuzzBlock("text", "Everything is done."),), "end_turn")


def _hides_usage(ask: Ask) -> bool:
    answer = _fuzz_answer(ask)
    return answer is not None and not answer.has_usage


def _fuzz(answer: FuzzAnswer, prefix: Prefix) -> Reply:
    parts: list[Part] = []
    for block in answer.blocks:
        match block.kind:
            case "text":
                parts.append(TextPart(block.text))
            case "thinking" | "update":
                parts.append(_thought(block.text, prefix, is_note=block.kind == "update"))
            case "redacted":
                parts.append(RawPart({"type": "redacted_thinking", "data": secrets.token_hex(20)}))
            case "call":
                identifier = new_tool_use_id(prefix) if block.id is None else block.id
                parts.append(ToolPart(identifier, block.name, block.text))
    details = {"type": "refusal", "category": "cyber", "explanation": "A fuzz model declines."}
    return Reply(tuple(parts), answer.stop_reason, details if answer.stop_reason == "refusal" else None)


def _say(turn: Turn, body: dict[str, Any], prefix: Prefix, notes: str) -> Reply:
    """Return the turn as message blocks with fresh ids, and with thinking in the form that the request asks for.

    Between tool calls some models speak in progress updates, which are thinking blocks (the vendor's page "Thinking",
    "Progress updates between tool calls"; there is at most one before each call).
    """
    row, thinking = traits(body["model"]), body.get("thinking") or {}
    kind = thinking.get("type") or ("adaptive" if row.thinks_by_default else "disabled")
    display = thinking.get("display") or row.display
    parts: list[Part] = []
    if turn.thinking and kind in ("enabled", "adaptive"):
        parts.append(_thought(turn.thinking if display == "summarized" else "", prefix))
    if turn.text and turn.calls and notes != "silent" and _is_update(turn.text, body, kind, display, notes):
        shown = kind == "between_tools" or display in ("summarized", "updates")
        parts.append(_thought(turn.text if shown else "", prefix, is_note=True))
    elif turn.text and not (turn.calls and notes == "silent"):
        parts.append(TextPart(turn.text))
    parts += [
        ToolPart(new_tool_use_id(prefix), call.tool, json.dumps(as_described(call, body), ensure_ascii=False))
        for call in turn.calls
    ]
    return Reply(tuple(parts), "tool_use" if turn.calls else "end_turn")


def _is_update(text: str, body: dict[str, Any], kind: str, display: str, notes: str) -> bool:
    which = traits(body["model"]).notes
    if which == "text" or kind == "disabled":
        return False
    if notes == "updates":
        return True
    if notes == "lenient" and display == "summarized" and kind != "between_tools":
        return False
    return which == "all" or len(_SENTENCE_END.findall(text)) > 2


def _thought(text: str, prefix: Prefix, *, is_note: bool = False) -> ThinkingPart:
    return ThinkingPart(text, sign_thinking(text, prefix), is_note)


def _earlier_id(body: dict[str, Any]) -> str | None:
    ids = [
        str(block["id"])
        for message in body["messages"]
        for block in content_blocks(message["content"])
        if block["type"] == "tool_use"
    ]
    return ids[-1] if ids else None


def _message_id() -> str:
    return "msg_01" + secrets.token_hex(10)
