"""Computes a build's state from the events of its live feed. Pure; displays nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeVar

from domain.events import (
    AnswerEvent,
    BudgetEvent,
    BudgetShare,
    BuildEvent,
    CompactedEvent,
    GateBouncedEvent,
    GatePassedEvent,
    GateStartedEvent,
    GateStepEvent,
    GuardEvent,
    HookFailedEvent,
    HostRefusedEvent,
    MessageEvent,
    MessagesReadEvent,
    MessageWithdrawnEvent,
    ModelEvent,
    NarrationEvent,
    PhaseCompletedEvent,
    PlanEvent,
    PreviewEvent,
    ProductJudgedEvent,
    PushedEvent,
    QuestionEvent,
    ReadyEvent,
    RestoreAskedEvent,
    RestoreDoneEvent,
    RestoreFailedEvent,
    RestoreTarget,
    ResumedEvent,
    SnapshotFailedEvent,
    SnapshotStoredEvent,
    StatusEvent,
    ToolDoneEvent,
    ToolStartedEvent,
    TurnAnsweredEvent,
    TurnFailedEvent,
    TurnStartedEvent,
    TurnWithdrawnEvent,
    read_event,
)
from domain.status import CLOSED

FINDING_LINES = 10
"""How many lines of a finding's evidence and remedy are shown. The agent reads all of them."""

LINES_KEPT = 200
"""Keep at most this many lines of the feed."""

UNKNOWN_CHARACTERS = 200
"""Show at most this much of an event of a type that this version does not know."""

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
    event_id: int = 0
    turn: int | None = None
    claim: str | None = None
    call: str | None = None


@dataclass(frozen=True)
class FeedState:
    """A build's state after the events so far."""

    last_id: int = 0
    status: str = "queued"
    waiting_for: str | None = None
    dependency: str | None = None
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
        known, handler = read_event(event.type, event.data), _HANDLERS.get(event.type)
        if known is None or handler is None:
            return _unknown(state, event)
        if isinstance(known, BudgetShare) and known.budget_percent is not None:
            state = replace(state, budget_percent=known.budget_percent, budget_level=known.budget_level)
        return handler(state, event, known)

    def _with_line(self, event: FeedEvent, text: object, look: Look, **more: str | None) -> "FeedState":
        line = Line(printable(text), look, event.created_at, event.id, event.turn, **more)
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


def _status(state: FeedState, line: FeedEvent, event: StatusEvent) -> FeedState:
    state = replace(
        state,
        status=event.status,
        waiting_for=event.waiting_for,
        dependency=event.dependency,
        reason=printable(event.reason) if event.reason else None,
        wakes_at=event.wakes_at,
        wake_command=event.wake_command,
        ended_at=line.created_at if event.status in CLOSED else None,
    )
    look: Look = "good" if event.status == "ready" else "warning" if event.status in _WORRYING else "note"
    waits_for = state.waiting_for or state.dependency
    text = f"status: {event.status}" + (f" ({waits_for})" if waits_for else "")
    return state._with_line(line, f"{text}: {state.reason}" if state.reason else text, look)


_WORRYING = {"failed", "cancelled", "needs_input", "sleeping", "waiting"}


def _model(state: FeedState, line: FeedEvent, event: ModelEvent) -> FeedState:
    label = printable(event.label or event.model)
    return replace(state, model_label=label)._with_line(line, f"model: {describe_model(label)}", "note")


def _turn(state: FeedState, line: FeedEvent, event: BuildEvent) -> FeedState:
    return replace(state, turn=max(state.turn, line.turn or 0))


def _narration(state: FeedState, line: FeedEvent, event: NarrationEvent) -> FeedState:
    return state._with_line(line, event.text, "narration", claim=event.claim)


def _turn_withdrawn(state: FeedState, line: FeedEvent, event: TurnWithdrawnEvent) -> FeedState:
    state = state._without(claim=event.claim)
    return state._with_line(line, f"turn {line.turn} was interrupted and starts again", "warning")


def _tool_started(state: FeedState, line: FeedEvent, event: ToolStartedEvent) -> FeedState:
    state = state._without(call=event.tool_use_id)
    return state._with_line(line, event.summary or event.name, "running", call=event.tool_use_id)


def _tool_done(state: FeedState, line: FeedEvent, event: ToolDoneEvent) -> FeedState:
    state = state._without(call=event.tool_use_id)
    state = replace(state, calls_done=state.calls_done + 1, calls_failed=state.calls_failed + event.is_error)
    text = f"{event.summary or event.name} {event.seconds:.1f} s"
    return state._with_line(line, text, "failed" if event.is_error else "done", call=event.tool_use_id)


def _phase_completed(state: FeedState, line: FeedEvent, event: PhaseCompletedEvent) -> FeedState:
    title = printable(event.title or f"phase {event.phase}")
    text = f"phase done: {title} [{(event.commit or '')[:7]}]"
    return replace(state, phases=(*state.phases, title))._with_line(line, text, "phase")


def _preview(state: FeedState, line: FeedEvent, event: PreviewEvent) -> FeedState:
    state = replace(state, preview_url=event.url or state.preview_url)
    detail = f": {printable(event.reason)}" if event.reason else f" {event.url or ''}"
    return state._with_line(line, f"preview: {event.state}{detail}", "note")


def _ready(state: FeedState, line: FeedEvent, event: ReadyEvent) -> FeedState:
    state = replace(state, preview_url=event.preview_url or state.preview_url)
    return state._with_line(line, f"ready: version {event.build_version} at {state.preview_url}", "good")


def _host_refused(state: FeedState, line: FeedEvent, event: HostRefusedEvent) -> FeedState:
    text = f"the sandbox may not reach {event.host}; the agent goes on without. {event.remedy}"
    return state._with_line(line, text, "warning")


def _gate_bounced(state: FeedState, line: FeedEvent, event: GateBouncedEvent) -> FeedState:
    state = state._with_line(line, f"evidence gate {event.number}: not passed yet", "warning")
    for finding in event.findings:
        cause, *rest = finding.splitlines() or [""]
        shown = rest if len(rest) <= FINDING_LINES else [*rest[: FINDING_LINES - 2], "…", rest[-1]]
        for text in (cause, *shown):
            state = state._with_line(line, f"  {text}", "warning")
    return state


def _gate_passed(state: FeedState, line: FeedEvent, event: GatePassedEvent) -> FeedState:
    tests = _counted(event.tests_run, "test")
    return state._with_line(line, f"evidence gate {event.number}: passed, {tests} ran", "good")


def _counted(count: int | None, noun: str) -> str:
    return f"{count or 0} {noun}{'' if count == 1 else 's'}"


def _product_judged(state: FeedState, line: FeedEvent, event: ProductJudgedEvent) -> FeedState:
    if event.reason is not None:
        return state._with_line(line, f"  not judged: {event.reason}. The other checks decide", "warning")
    if not event.findings:
        return state._with_line(line, f"  judged by {event.model}: nothing that was asked for is missing", "note")
    if event.returned:
        return state._with_line(line, f"  judged by {event.model}: the agent gets its findings", "note")
    left = f"  judged by {event.model}: the agent had its findings twice, and these are left"
    state = state._with_line(line, left, "warning")
    for finding in event.findings:
        state = state._with_line(line, f"  {finding}", "warning")
    return state


def _question(state: FeedState, line: FeedEvent, event: QuestionEvent) -> FeedState:
    goes_on = "" if event.default is None else f" (goes on with “{event.default}” until you answer)"
    state = state._with_line(line, f"asks you: {event.problem}{goes_on}", "warning")
    for tried in event.tried:
        state = state._with_line(line, f"  tried: {tried}", "warning")
    for number, option in enumerate(event.options, 1):
        state = state._with_line(line, f"  {number}. {option}", "warning")
    return state._with_line(line, "  answer with a number or in your own words: cofounder answer", "warning")


def _messages_read(state: FeedState, line: FeedEvent, event: MessagesReadEvent) -> FeedState:
    count = len(event.numbers)
    return state._with_line(line, f"the agent reads your {'message' if count == 1 else f'{count} messages'}", "note")


def _resumed(state: FeedState, line: FeedEvent, event: ResumedEvent) -> FeedState:
    state = state._with_line(line, f"Resuming: {event.reason}, continuing from {event.continuing_from}", "note")
    for change in event.changes:
        state = state._with_line(line, change, "warning")
    return state


def _target(event: RestoreTarget) -> str:
    return f"commit {event.commit}" if event.commit else f"snapshot {event.snapshot}"


def _unknown(state: FeedState, line: FeedEvent) -> FeedState:
    """An event of a later version: its type, and what it says."""
    values = [f"{key} {value}" for key, value in line.data.items() if isinstance(value, (str, int, float))]
    return state._with_line(line, f"{line.type}: {', '.join(values)}"[:UNKNOWN_CHARACTERS].strip(), "note")


E = TypeVar("E", bound=BuildEvent)
_Handler = Callable[[FeedState, FeedEvent, Any], FeedState]
_HANDLERS: dict[str, _Handler] = {}


def _on(model: type[E], handler: Callable[[FeedState, FeedEvent, E], FeedState]) -> None:
    _HANDLERS[model.type] = handler


def _line(model: type[E], look: Look, text: Callable[[E], str]) -> None:
    _on(model, lambda state, line, event: state._with_line(line, text(event), look))


_on(StatusEvent, _status)
_on(ModelEvent, _model)
_line(MessageEvent, "note", lambda event: f"you: {event.text}")
_line(MessageWithdrawnEvent, "note", lambda event: f"you took message {event.number} back")
_on(QuestionEvent, _question)
_line(AnswerEvent, "note", lambda event: f"you answered: {event.text}")
_on(MessagesReadEvent, _messages_read)
_line(RestoreAskedEvent, "note", lambda event: f"you asked to restore the workspace to {_target(event)}")
_line(
    RestoreDoneEvent,
    "note",
    lambda event: f"the workspace is restored to {_target(event)}; its previous state is snapshot {event.kept_as}",
)
_line(RestoreFailedEvent, "warning", lambda event: event.error or "")
_on(TurnStartedEvent, _turn)
_on(NarrationEvent, _narration)
_line(TurnFailedEvent, "warning", lambda event: f"the model call failed: {event.error}")
_on(TurnWithdrawnEvent, _turn_withdrawn)
_on(TurnAnsweredEvent, _turn)
_line(CompactedEvent, "note", lambda event: event.reason)
_on(ToolStartedEvent, _tool_started)
_on(ToolDoneEvent, _tool_done)
_on(PhaseCompletedEvent, _phase_completed)
_line(
    SnapshotStoredEvent,
    "note",
    lambda event: f"snapshot {event.number} stored ({event.reason}, {_counted(event.files, 'file')})",
)
_line(SnapshotFailedEvent, "warning", lambda event: f"snapshot {event.number} failed: {event.error}")
_line(GuardEvent, "warning", lambda event: event.text)
_line(PlanEvent, "note", lambda event: f"plan: {event.done} of {event.done + event.open} stories done")
_line(
    GateStartedEvent,
    "note",
    lambda event: f"evidence gate {event.number}: starting the product in a fresh sandbox",
)
_line(GateStepEvent, "note", lambda event: f"  {event.text}")
_on(ProductJudgedEvent, _product_judged)
_on(GateBouncedEvent, _gate_bounced)
_on(HostRefusedEvent, _host_refused)
_on(GatePassedEvent, _gate_passed)
_on(ResumedEvent, _resumed)
_line(BudgetEvent, "warning", lambda event: event.text)
_on(PreviewEvent, _preview)
_line(PushedEvent, "good", lambda event: f"pushed {event.commit[:7]} to {event.branch} of {event.repository}")
_line(HookFailedEvent, "warning", lambda event: f"after the build: {event.error}")
_on(ReadyEvent, _ready)
