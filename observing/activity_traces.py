"""Makes the spans of activities: those of a turn in the turn's trace, all others of a build in the build's."""

import uuid
from contextvars import ContextVar
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Span
from structlog.contextvars import bind_contextvars
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from domain.names import build_of_workflow
from domain.payloads import ThinkOutcome, ThinkResult
from observing import genai, traces
from observing.trace_ids import TraceIds, build_ids, turn_ids
from observing.traces import Attributes

BUILD = "cofounder.build_id"
TURN = "cofounder.turn"
ATTEMPT = "cofounder.attempt"

OF_A_TURN = frozenset({"think", "compact", "read_plan"})

OF_A_TOOL_CALL = "dispatch_tool"
"""It begins its span itself, once it knows the turn: its request does not name it."""

UNTRACED = frozenset({"keep_preview"})
"""Lasts for hours."""

_ANSWERED = frozenset({ThinkOutcome.TOOL_USE, ThinkOutcome.END_TURN, ThinkOutcome.CONTINUE, ThinkOutcome.REFUSED})


class ActivityTraces(Interceptor):
    """Makes a span for each attempt of an activity of a build, and one for each turn that was answered."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See the SDK."""
        return _Traced(next)


class _Traced(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        build_id = None if info.workflow_id is None else build_of_workflow(info.workflow_id)
        if build_id is None or info.activity_type in UNTRACED:
            return await super().execute_activity(input)
        attempt = _Attempt(build_id, info)
        turn: int | None = getattr(input.args[0], "turn", None) if input.args else None
        token = _CURRENT.set(attempt)
        try:
            if info.activity_type != OF_A_TOOL_CALL:
                attempt.begin(info.activity_type, turn if info.activity_type in OF_A_TURN else None)
            result = await super().execute_activity(input)
        except BaseException as error:
            attempt.end(error)
            raise
        finally:
            _CURRENT.reset(token)
        attempt.end()
        if isinstance(result, ThinkResult) and result.outcome in _ANSWERED and turn is not None:
            _make_turn(build_id, turn, info, result)
        return result


class _Attempt:
    """An attempt of an activity, and its span once it has begun."""

    def __init__(self, build_id: uuid.UUID, info: activity.Info) -> None:
        self._build_id = build_id
        self._info = info
        self._span: Span | None = None

    def begin(self, name: str, turn: int | None, attributes: Attributes | None = None) -> None:
        """Begin its span, in which everything happens that this task does from now on."""
        if self._span is not None:
            return
        ids = build_ids(self._build_id) if turn is None else turn_ids(self._build_id, turn)
        self._span = traces.start_under(
            ids, name, {**_labels(self._build_id, turn), ATTEMPT: self._info.attempt, **(attributes or {})}
        )
        context.attach(trace.set_span_in_context(self._span))  # never detached: the task ends with the attempt
        bind_contextvars(**traces.log_ids())

    def end(self, error: BaseException | None = None) -> None:
        """End its span."""
        if self._span is None:
            return
        if error is not None:
            traces.note_error(self._span, error)
        self._span.end()


_CURRENT: ContextVar[_Attempt | None] = ContextVar("traced_attempt", default=None)


def note_tool_call(tool: str, tool_use_id: str, turn: int) -> None:
    """Say which tool call the activity that runs is about. Its log lines name its turn from now on."""
    bind_contextvars(turn=turn)
    if (attempt := _CURRENT.get()) is not None:
        attributes: Attributes = {
            genai.OPERATION: genai.EXECUTE_TOOL,
            genai.TOOL_NAME: tool,
            genai.TOOL_CALL_ID: tool_use_id,
        }
        attempt.begin(f"{genai.EXECUTE_TOOL} {tool}", turn, attributes)


def _make_turn(build_id: uuid.UUID, turn: int, info: activity.Info, result: ThinkResult) -> None:
    """Make the first span of a turn's trace, of which its attempts and tool calls are parts.

    It lasts from the first attempt to the answer. The tool calls come after that.
    """
    ids: TraceIds = turn_ids(build_id, turn)
    attributes: Attributes = {
        **_labels(build_id, turn),
        genai.OPERATION: genai.INVOKE_AGENT,
        genai.AGENT: "cofounder",
        "cofounder.outcome": result.outcome,
        "cofounder.tool_calls": len(result.calls),
    }
    start_ns = int(info.scheduled_time.timestamp() * 1e9)
    links = [traces.context_of(build_ids(build_id))]
    traces.first_span(f"turn {turn}", ids, attributes, links=links, start_ns=start_ns).end()


def _labels(build_id: uuid.UUID, turn: int | None) -> dict[str, str | int]:
    return {BUILD: str(build_id)} | ({} if turn is None else {TURN: turn})
