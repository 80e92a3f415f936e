"""Ids of traces that follow from what they are about, so that anyone who knows a build and a turn finds its trace."""

import uuid
from dataclasses import dataclass

_SPAN_BITS = 2**64 - 1


@dataclass(frozen=True)
class TraceIds:
    """The ids of a trace and of its first span."""

    trace_id: int
    span_id: int


def turn_ids(build_id: uuid.UUID, turn: int) -> TraceIds:
    """The trace of a turn. All attempts at it share the trace."""
    return _ids(build_id, f"turn {turn}")


def build_ids(build_id: uuid.UUID) -> TraceIds:
    """The trace of what a build does outside of its turns: it starts, opens a workspace, sleeps, takes snapshots."""
    return _ids(build_id, "build")


def request_ids(request_id: str) -> TraceIds:
    """The trace of a request to the API: its id is the X-Request-Id."""
    number = int(request_id, 16)
    return TraceIds(number, number & _SPAN_BITS)


def _ids(build_id: uuid.UUID, what: str) -> TraceIds:
    trace, span = uuid.uuid5(build_id, what), uuid.uuid5(build_id, f"first span of {what}")
    return TraceIds(trace.int, span.int & _SPAN_BITS)
