"""Stores what a phase has changed, without a sandbox."""

import gzip
import uuid

from clients.object_store import ObjectStore
from db.feed import append_events
from db.phase_diffs import insert_diff
from db.transaction import transaction
from domain.events import PhaseCompletedEvent
from domain.workspace_diff import FileDiff, StoredDiff, WorkspaceDiff
from tests.harness.api_server import RunningApi

PATCH = "diff --git a/app.py b/app.py\n--- a/app.py\n+++ b/app.py\n@@ -1,1 +1,1 @@\n-a\n+b\n"


def make_diff(commit: str, base: str | None = None, **file: object) -> WorkspaceDiff:
    """Return a diff of one file."""
    change = FileDiff.model_validate(
        {"path": "app.py", "status": "modified", "additions": 1, "deletions": 1, "patch": PATCH} | file
    )
    counts = {"files": 1, "additions": change.additions, "deletions": change.deletions}
    return WorkspaceDiff(base=base, commit=commit, **counts, changes=(change,))


async def end_phase(api: RunningApi, build_id: str, phase: int, commit: str, title: str = "A page") -> None:
    """Write the event with which a phase ends."""
    event = PhaseCompletedEvent(phase=phase, commit=commit, title=title)
    async with transaction(api.sessions) as tx:
        await append_events(tx, uuid.UUID(build_id), [event], turn=phase)


async def store_diff(api: RunningApi, build_id: str, phase: int, stored: StoredDiff) -> str:
    """Store the changes of a phase. Return the object's key."""
    key = f"diffs/{build_id}/{phase}"
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put(key, gzip.compress(stored.model_dump_json().encode()))
    async with transaction(api.sessions) as tx:
        await insert_diff(tx, uuid.UUID(build_id), phase, stored.phase, key)
    return key
