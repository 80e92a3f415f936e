"""Binds ids to the log lines of every activity, and counts what activities do."""

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from prometheus_client import Histogram
from structlog.contextvars import bound_contextvars
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from domain.names import build_of_workflow
from domain.payloads import GateResult, ThinkResult
from observing import metrics, traces

_REMEMBERED = 10_000
"""Builds whose start or wake is remembered until they call the model."""

ENDS_WAIT = frozenset({"claim_place", "check_budget", "claim_permit"})
"""Activities after which a build goes on, or waits again. Only the time since the last of them counts: a build that
waits for its user's other builds or for a sandbox is not slow."""

_REAPER_STEPS = {
    "reap_builds": "builds",
    "reap_sandboxes": "sandboxes",
    "sweep_store": "store",
    "repeat_nudges": "nudges",
}

_PROBER = "prober"

STEPS = frozenset({_PROBER, *_REAPER_STEPS.values()})
"""What runs by a schedule: the values of the label `step` of `SCHEDULE_AT`."""


class ActivityLogs(Interceptor):
    """Each log line of an activity has `build_id`, `activity` and `attempt`, and its `turn` and `tool_use_id`."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See the SDK."""
        return _Logged(next)


class _Logged(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        with bound_contextvars(**log_context(activity.info(), input.args)):
            return await super().execute_activity(input)


def log_context(info: activity.Info, args: Any) -> dict[str, Any]:
    """What the log lines of an activity say about it."""
    context: dict[str, Any] = {"activity": info.activity_type, "attempt": info.attempt}
    if info.workflow_id is not None:
        build_id = build_of_workflow(info.workflow_id)
        context |= {"workflow_id": info.workflow_id} if build_id is None else {"build_id": str(build_id)}
    request = args[0] if args else None
    for name in ("turn", "tool_use_id"):
        if (value := getattr(request, name, None)) is not None:
            context[name] = value
    return context


MODEL_SECONDS: ContextVar["CallTime | None"] = ContextVar("model_seconds", default=None)
"""The time of the model calls of the activity that runs."""


class CallTime:
    """When an activity began to call the model, and how long its calls took, in seconds."""

    def __init__(self) -> None:
        self.began_at: float | None = None
        """Seconds since the epoch."""
        self.seconds = 0.0
        self.exemplar: dict[str, str] | None = None
        """The trace of the turn that calls."""

    def begin(self) -> None:
        """Note that a call begins."""
        self.began_at = self.began_at or time.time()
        self.exemplar = self.exemplar or traces.exemplar()


class ActivityMetrics(Interceptor):
    """Counts turns, snapshots, gates and steps of the reaper, and measures how long builds wait for their next call."""

    def __init__(self) -> None:
        self._waits = _Waits()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See the SDK."""
        return _Measured(next, self._waits)


class _Measured(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, waits: "_Waits") -> None:
        super().__init__(next)
        self._waits = waits

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info, calls, began = activity.info(), CallTime(), time.monotonic()
        token = MODEL_SECONDS.set(calls)
        result: Any = None
        try:
            result = await super().execute_activity(input)
            return result
        finally:
            MODEL_SECONDS.reset(token)
            self._note(info, result, time.monotonic() - began, calls)

    def _note(self, info: activity.Info, result: Any, seconds: float, calls: CallTime) -> None:
        self._waits.note(info, calls)
        if (count := COUNTS.get(info.activity_type)) is not None:
            count(info.activity_type, result, seconds, calls)


def _count_turn(_: str, result: Any, seconds: float, calls: CallTime) -> None:
    outcome = result.outcome if isinstance(result, ThinkResult) else "error"
    metrics.TURNS.labels(outcome).inc()
    if calls.began_at is not None:
        metrics.TURN_OVERHEAD.observe(max(0.0, seconds - calls.seconds), calls.exemplar)


def _count_snapshot(_: str, result: Any, seconds: float, __: CallTime) -> None:
    metrics.SNAPSHOTS.labels("failed" if result is None else "stored").inc()
    if result is not None:
        metrics.SNAPSHOT_SECONDS.observe(seconds)


def _count_gate(_: str, result: Any, __: float, ___: CallTime) -> None:
    kind = "error" if not isinstance(result, GateResult) else "passed" if result.passed else "findings"
    metrics.GATES.labels(kind).inc()


def _count_reaper_step(name: str, result: Any, seconds: float, _: CallTime) -> None:
    step = _REAPER_STEPS[name]
    metrics.REAPER_SECONDS.labels(step).observe(seconds)
    if result is not None:
        metrics.SCHEDULE_AT.labels(step).set_to_current_time()
    else:
        metrics.REAPER_FAILURES.labels(step).inc()


def _count_probe(_: str, result: Any, __: float, ___: CallTime) -> None:
    if result is not None:
        metrics.SCHEDULE_AT.labels(_PROBER).set_to_current_time()


COUNTS: dict[str, Callable[[str, Any, float, CallTime], None]] = {
    "think": _count_turn,
    "snapshot_workspace": _count_snapshot,
    "run_evidence_gate": _count_gate,
    "probe": _count_probe,
    **dict.fromkeys(_REAPER_STEPS, _count_reaper_step),
}


class _Waits:
    """When builds were admitted or woken, until they call the model.

    A build's activities run on any worker, so one of several workers sees only a share of the waits. That share is a
    fair sample.
    """

    def __init__(self) -> None:
        self._since: OrderedDict[uuid.UUID, tuple[Histogram, float]] = OrderedDict()

    def note(self, info: activity.Info, calls: CallTime) -> None:
        """Remember an activity that ends a wait, and measure at one that has called the model."""
        if info.activity_type not in ENDS_WAIT and info.activity_type != "think":
            return
        build_id = None if info.workflow_id is None else build_of_workflow(info.workflow_id)
        if build_id is None:
            return
        if info.activity_type != "think":
            self._begin(build_id, info)
        elif calls.began_at is not None and (since := self._since.pop(build_id, None)) is not None:
            histogram, at = since
            histogram.observe(max(0.0, calls.began_at - at), calls.exemplar)

    def _begin(self, build_id: uuid.UUID, info: activity.Info) -> None:
        histogram = self._since[build_id][0] if build_id in self._since else metrics.WAKE_TO_CALL
        if info.activity_type == "claim_place":
            histogram = metrics.START_TO_CALL
        elif info.activity_type == "claim_permit" and build_id not in self._since:
            return
        self._since[build_id] = (histogram, info.scheduled_time.timestamp())
        self._since.move_to_end(build_id)
        if len(self._since) > _REMEMBERED:
            self._since.popitem(last=False)
