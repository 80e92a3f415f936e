"""Traces of OpenTelemetry: one for each turn of a build, one for the rest of it, and one for each request to the API.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set; the other standard OTEL_ variables
hold, too. Spans have ids, names, numbers and times, and never what anyone has written: an error is its type.

Workflows make no spans, so that a replay makes none either.
"""

import asyncio
import importlib.metadata
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from observing.trace_ids import TraceIds, build_ids

Attributes = Mapping[str, str | int | Sequence[str]]


class _Tracing:
    """Where this process's spans go.

    It is not OpenTelemetry's global provider: SDKs that find one there make spans of their own, whose contents are
    theirs to choose.
    """

    tracer: trace.Tracer = trace.NoOpTracer()


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_FLUSH_SECONDS = 5.0

FORCED_IDS: ContextVar[TraceIds | None] = ContextVar("forced_trace_ids", default=None)
"""The ids of the next span that begins a trace."""


def are_wanted(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process exports traces, by the standard variables of OpenTelemetry."""
    variables = os.environ if environment is None else environment
    return (
        any(variables.get(name) for name in _ENDPOINTS)
        and variables.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and variables.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    )


@asynccontextmanager
async def exported_traces(service: str) -> AsyncIterator[None]:
    """Export the spans that are made in the block, if traces are wanted.

    Args:
        service: the name of this program, unless OTEL_SERVICE_NAME is another.
    """
    if not are_wanted():
        yield
        return
    from observing.trace_export import open_exporter  # importing the SDK takes time that no other process has to spend

    provider = open_exporter(service, importlib.metadata.version("cofounder"))
    _Tracing.tracer = provider.get_tracer("cofounder")
    try:
        yield
    finally:
        _Tracing.tracer = trace.NoOpTracer()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await asyncio.to_thread(provider.shutdown)
        except TimeoutError:
            pass  # the receiver does not answer, and no one waits for it


@contextmanager
def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """A span around the block, with the type of the error that ends it."""
    with _Tracing.tracer.start_as_current_span(
        name,
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            note_error(made, error)
            raise


def note_error(made: Span, error: BaseException) -> None:
    """Mark the span as failed, without the error's text: it may quote what someone has written."""
    made.set_attribute("error.type", type(error).__name__)
    made.set_status(Status(StatusCode.ERROR))


def first_span(
    name: str,
    ids: TraceIds,
    attributes: Attributes | None = None,
    *,
    links: Sequence[SpanContext] = (),
    kind: SpanKind = SpanKind.INTERNAL,
    start_ns: int | None = None,
) -> Span:
    """Start the first span of a trace with these ids. The caller ends it."""
    token = FORCED_IDS.set(ids)
    try:
        return _Tracing.tracer.start_span(
            name,
            context=Context(),
            kind=kind,
            attributes=attributes,
            links=[Link(each) for each in links],
            start_time=start_ns,
        )
    finally:
        FORCED_IDS.reset(token)


def start_under(ids: TraceIds, name: str, attributes: Attributes) -> Span:
    """Start a span below a trace's first span. The caller ends it."""
    parent = trace.set_span_in_context(NonRecordingSpan(context_of(ids)), Context())
    return _Tracing.tracer.start_span(name, context=parent, attributes=attributes)


def note_build_start(build_id: uuid.UUID) -> None:
    """Begin the trace of a build, and link it with the request in which this runs."""
    here = current_context()
    if here.is_valid:
        ids = build_ids(build_id)
        first_span("build", ids, {"cofounder.build_id": str(build_id)}, links=[here]).end()
        trace.get_current_span().add_link(context_of(ids))


def context_of(ids: TraceIds) -> SpanContext:
    """The first span of a trace, which another process may have made or will make."""
    return SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def current(made: Span) -> AbstractContextManager[Span]:
    """Let what happens in the block be part of the span. The caller ends it."""
    return trace.use_span(made, record_exception=False, set_status_on_exception=False)


def current_context() -> SpanContext:
    """The span in which this runs."""
    return trace.get_current_span().get_span_context()


def exemplar() -> dict[str, str] | None:
    """The current trace, for an observation of a histogram: a dashboard leads from a slow bucket to a trace in it."""
    here = current_context()
    return {"trace_id": f"{here.trace_id:032x}"} if here.is_valid and here.trace_flags.sampled else None


def log_ids() -> dict[str, Any]:
    """The ids of the current span, for log lines; empty without one."""
    here = current_context()
    return {"trace_id": f"{here.trace_id:032x}", "span_id": f"{here.span_id:016x}"} if here.is_valid else {}
