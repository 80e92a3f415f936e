"""Computes a build's state from the events of its live feed. Pure; displays nothing."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from domain.status import CLOSED

LINES_KEPT = 200
"""Keep at most this many lines of the feed."""

Look = Literal["narration", "done", "failed", "running", "phase", "note", "warning", "good"]

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """The text on one line, without characters that move a terminal's cursor or change its colours."""
    return " ".join(_CONTROLS.sub("", str(text)).split())


@dataclass(frozen=True)
class FeedEvent:
    """One event of a build's live feed."""

    id: int
    type: str
    turn: int | None
    created_at: datetime
    data: dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the view. `claim` names the attempt that wrote it, `call` the tool call that it shows."""

    text: str
    look: Look
    at: datetime
    turn: int | None = None
    claim: str | None = None
    call: str | None = None


@dataclass(frozen=True)
class FeedState:
    """A build's state after the events so far."""

    last_id: int = 0
    status: str = "queued"
    waiting_for: str | None = None
    reason: str | None = None
    wakes_at: str | None = None
    wake_command: str | None = None
    model_label: str | None = None
    turn: int = 0
    calls_done: int = 0
    calls_failed: int = 0
    budget_percent: int | None = None
    budget_level: str | None = None
    phases: tuple[str, ...] = ()
    preview_url: str | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    lines: tuple[Line, ...] = field(default=())

    @property
    def closed(self) -> bool:
        """Whether the build has ended."""
        return self.status in CLOSED

    def apply(self, event: FeedEvent) -> "FeedState":
        """The state after the event. Applying an event again changes nothing."""
        if event.id <= self.last_id:
            return self
        state = replace(self, last_id=event.id, began_at=self.began_at or event.created_at)
        if "budget_percent" in event.data:
            level = event.data.get("budget_level")
            state = replace(state, budget_percent=event.data["budget_percent"], budget_level=level)
        handler = _HANDLERS.get(event.type)
        return state if handler is None else handler(state, event, event.data)

    def _with_line(self, event: FeedEvent, text: object, look: Look, **more: str | None) -> "FeedState":
        line = Line(printable(text), look, event.created_at, event.turn, **more)
        return replace(self, lines=(*self.lines, line)[-LINES_KEPT:])

    def _without(self, *, claim: str | None = None, call: str | None = None) -> "FeedState":
        kept = (
            line
            for line in self.lines
            if not (claim is not None and line.claim == claim) and not (call is not None and line.call == call)
        )
        return replace(self, lines=tuple(kept))


def is_rehearsal(model_label: str | None) -> bool:
    """Whether the label is the rehearsal model's, which people must be told."""
    return (model_label or "").startswith("rehearsal model")


def describe_model(model_label: str | None) -> str:
    """The model's label, with a note if it is the rehearsal model."""
    label = printable(model_label or "not chosen yet")
    return f"{label}: always builds the same kind of product" if is_rehearsal(model_label) else label


Data = dict[str, Any]


def _status(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    status = str(data.get("status", state.status))
    state = replace(
        state,
        status=status,
        waiting_for=data.get("waiting_for"),
        reason=printable(data["reason"]) if data.get("reason") else None,
        wakes_at=data.get("wakes_at"),
        wake_command=data.get("wake_command"),
        ended_at=event.created_at if status in CLOSED else None,
    )
    look: Look = "good" if status == "ready" else "warning" if status in _WORRYING else "note"
    text = f"status: {status}" + (f" ({state.waiting_for})" if state.waiting_for else "")
    return state._with_line(event, f"{text}: {state.reason}" if state.reason else text, look)


_WORRYING = {"failed", "cancelled", "needs_input", "sleeping"}


def _model(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    label = printable(data.get("label") or data.get("model") or "")
    return replace(state, model_label=label)._with_line(event, f"model: {describe_model(label)}", "note")


def _turn_started(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    return replace(state, turn=max(state.turn, event.turn or 0))


def _narration(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    return state._with_line(event, data.get("text", ""), "narration", claim=data.get("claim"))


def _turn_withdrawn(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    state = state._without(claim=data.get("claim"))
    return state._with_line(event, f"turn {event.turn} was interrupted and starts again", "warning")


def _turn_answered(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    return replace(state, turn=max(state.turn, event.turn or 0))


def _tool_started(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    text = data.get("summary") or data.get("name", "")
    return state._with_line(event, text, "running", call=data.get("tool_use_id"))


def _tool_done(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    failed = bool(data.get("is_error"))
    state = state._without(call=data.get("tool_use_id"))
    state = replace(state, calls_done=state.calls_done + 1, calls_failed=state.calls_failed + failed)
    text = f"{data.get('summary') or data.get('name', '')} {float(data.get('seconds') or 0):.1f} s"
    return state._with_line(event, text, "failed" if failed else "done", call=data.get("tool_use_id"))


def _phase_completed(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    title = printable(data.get("title") or f"phase {data.get('phase')}")
    commit = str(data.get("commit") or "")[:7]
    return replace(state, phases=(*state.phases, title))._with_line(event, f"phase done: {title} [{commit}]", "phase")


def _preview(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    state = replace(state, preview_url=data.get("url") or state.preview_url)
    return state._with_line(event, f"preview: {data.get('state')} {data.get('url') or ''}", "note")


def _ready(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    state = replace(state, preview_url=data.get("preview_url") or state.preview_url)
    return state._with_line(event, f"ready: version {data.get('build_version')} at {state.preview_url}", "good")


def _gate_bounced(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    state = state._with_line(event, f"evidence gate {data.get('number')}: not passed yet", "warning")
    for finding in data.get("findings") or ():
        state = state._with_line(event, f"  {finding}", "warning")
    return state


def _question(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    state = state._with_line(event, f"asks you: {data.get('problem')}", "warning")
    for tried in data.get("tried") or ():
        state = state._with_line(event, f"  tried: {tried}", "warning")
    for number, option in enumerate(data.get("options") or (), 1):
        state = state._with_line(event, f"  {number}. {option}", "warning")
    return state._with_line(event, "  answer with a number or in your own words: cofounder answer", "warning")


def _restore(template: str) -> Any:
    def apply(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
        what = f"commit {data['commit']}" if data.get("commit") else f"snapshot {data.get('snapshot')}"
        return state._with_line(event, template.format(what=what, kept_as=data.get("kept_as")), "note")

    return apply


def _messages_read(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    count = len(data.get("numbers") or ())
    return state._with_line(event, f"the agent reads your {'message' if count == 1 else f'{count} messages'}", "note")


def _resumed(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
    where = data.get("continuing_from", "where it was")
    state = state._with_line(event, f"Resuming: {data.get('reason', '')}, continuing from {where}", "note")
    for change in data.get("changes") or ():
        state = state._with_line(event, change, "warning")
    return state


def _plain(look: Look, template: str) -> Any:
    def apply(state: FeedState, event: FeedEvent, data: Data) -> FeedState:
        values = {name: data.get(name, "") for name in ("number", "reason", "error", "text", "tests_run", "files")}
        return state._with_line(event, template.format(**values), look)

    return apply


_HANDLERS: dict[str, Any] = {
    "status": _status,
    "model": _model,
    "message": _plain("note", "you: {text}"),
    "question": _question,
    "answer": _plain("note", "you answered: {text}"),
    "messages_read": _messages_read,
    "restore_asked": _restore("you asked to restore the workspace to {what}"),
    "restore_done": _restore("the workspace is restored to {what}; its previous state is snapshot {kept_as}"),
    "restore_failed": _plain("warning", "{error}"),
    "turn_started": _turn_started,
    "narration": _narration,
    "turn_failed": _plain("warning", "the model call failed: {error}"),
    "turn_withdrawn": _turn_withdrawn,
    "turn_answered": _turn_answered,
    "tool_started": _tool_started,
    "tool_done": _tool_done,
    "phase_completed": _phase_completed,
    "snapshot_stored": _plain("note", "snapshot {number} stored ({reason}, {files} files)"),
    "snapshot_failed": _plain("warning", "snapshot {number} failed: {error}"),
    "guard": _plain("warning", "{text}"),
    "gate_started": _plain("note", "evidence gate {number}: starting the product in a fresh sandbox"),
    "gate_step": _plain("note", "  {text}"),
    "gate_bounced": _gate_bounced,
    "gate_passed": _plain("good", "evidence gate {number}: passed, {tests_run} tests ran"),
    "resumed": _resumed,
    "budget": _plain("warning", "{text}"),
    "preview": _preview,
    "hook_failed": _plain("warning", "after the build: {error}"),
    "ready": _ready,
}
