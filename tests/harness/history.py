"""Measures how much of a build's histories each turn takes."""

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from domain.names import build_workflow_id

_AFTER_RESTS = ("resume_workspace", "check_budget")


@dataclass(frozen=True)
class TurnShare:
    """One turn's part of a history, from its `think` to the next one. Sizes are in bytes."""

    events: int
    bytes: int
    largest_payload: int
    rests: int
    """Waits for a person or for budget that have ended. A step that fails again after one adds to the turn."""


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
            sum(map(_ends_rest, events[start:end])),
        )
        for start, end in itertools.pairwise(starts)
    ]


def _ends_rest(event: HistoryEvent) -> bool:
    return event.activity_task_scheduled_event_attributes.activity_type.name in _AFTER_RESTS


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
    return [events async for _, events in runs_of(client, build_id)][::-1]


async def runs_of(client: Client, build_id: str) -> AsyncIterator[tuple[str, Sequence[HistoryEvent]]]:
    """Yield the id and the history of each run in a build's chain, the last one first."""
    workflow_id = build_workflow_id(build_id)
    run_id = (await client.get_workflow_handle(workflow_id).describe()).run_id
    while run_id:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        yield run_id, history.events
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
