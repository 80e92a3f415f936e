"""Measures how much of a build's histories each turn takes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from domain.names import build_workflow_id


@dataclass(frozen=True)
class TurnShare:
    """One turn's part of a history, from its `think` to the next one. Sizes are in bytes."""

    events: int
    bytes: int
    largest_payload: int


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
        )
        for start, end in itertools.pairwise(starts)
    ]


def largest_payload(event: HistoryEvent) -> int:
    """Return the bytes of an event's largest payload among its inputs, results and summary."""
    attributes = getattr(event, event.WhichOneof("attributes") or "")
    payloads = [*getattr(getattr(attributes, "input", None), "payloads", [])]
    payloads += getattr(getattr(attributes, "result", None), "payloads", [])
    return max((payload.ByteSize() for payload in [*payloads, event.user_metadata.summary]), default=0)


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
