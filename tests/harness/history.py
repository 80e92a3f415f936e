"""Measures how much of a build's histories each turn takes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from domain.names import MONEY, WAKE, build_workflow_id

_WAKES = (WAKE, MONEY)


@dataclass(frozen=True)
class TurnShare:
    """One turn's part of a history, from its `think` to the next one. Sizes are in bytes."""

    events: int
    bytes: int
    largest_payload: int
    wakes: int
    """Signals that end a wait. One after which the step fails again adds to the turn."""


def shares_of(events: Sequence[HistoryEvent]) -> list[TurnShare]:
    """Cut one run's history at each `think`. Leaves out what comes before the first one, and the last turn."""
    starts = [
        index
        for index, event in enumerate(events)
        if event.activity_task_scheduled_event_attributes.activity_type.name == "think"
    ]
    return [
        TurnShare(
            end - start,
            sum(event.ByteSize() for event in events[start:end]),
            max(largest_payload(event) for event in events[start:end]),
            sum(map(_is_wake, events[start:end])),
        )
        for start, end in itertools.pairwise(starts)
    ]


def _is_wake(event: HistoryEvent) -> bool:
    return event.workflow_execution_signaled_event_attributes.signal_name in _WAKES


def largest_payload(event: HistoryEvent) -> int:
    """Return the bytes of an event's largest payload among its inputs, results and summary."""
    attributes = getattr(event, event.WhichOneof("attributes") or "")
    payloads = [*getattr(getattr(attributes, "input", None), "payloads", [])]
    payloads += getattr(getattr(attributes, "result", None), "payloads", [])
    return max((payload.ByteSize() for payload in [*payloads, event.user_metadata.summary]), default=0)


def failure_size(event: HistoryEvent) -> int:
    """Return the bytes of the failure in an event, or of the one that the attempt before ended with; 0 without one."""
    attributes = getattr(event, event.WhichOneof("attributes") or "")
    failures = [getattr(attributes, name, None) for name in ("failure", "last_failure")]
    return sum(failure.ByteSize() for failure in failures if failure is not None)


async def chain_of(client: Client, build_id: str) -> list[Sequence[HistoryEvent]]:
    """Return the histories of all runs in a build's chain, in order."""
    workflow_id = build_workflow_id(build_id)
    run_id = (await client.get_workflow_handle(workflow_id).describe()).run_id
    chain: list[Sequence[HistoryEvent]] = []
    while run_id:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        chain.insert(0, history.events)
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return chain
