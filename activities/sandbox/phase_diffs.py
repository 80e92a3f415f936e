"""What a phase has changed: read in the sandbox, stored beside its snapshot. A failure costs only the diff."""

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import structlog

from clients.archive import PackedArchive
from clients.git_diff import DIFF_SECONDS, GitDiffs, diff_phase
from clients.object_store import ObjectStore
from clients.sandbox import Sandbox
from db.phase_diffs import DIFFS_PREFIX, commits_before, keys_by_phase
from db.session import Sessions
from db.tombstones import doom
from db.transaction import transaction
from domain.payloads import SnapshotReason, TakeSnapshot
from domain.verdicts import ObjectEvidence, may_doom_object
from domain.workspace_diff import StoredDiff, WorkspaceDiff, read_diff

LONGEST_SECONDS = DIFF_SECONDS + 15.0
"""Seconds after which a phase is recorded without its diff."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PutDiff:
    """A diff that is in the store under this key, and that no row names yet."""

    diff: WorkspaceDiff
    key: str


class PhaseDiffs:
    """Makes and stores the diffs of phases."""

    def __init__(self, sessions: Sessions, store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store

    @asynccontextmanager
    async def task(
        self, request: TakeSnapshot, sandbox: Sandbox, packed: PackedArchive, key: str
    ) -> AsyncIterator[asyncio.Task[PutDiff | None]]:
        """Make the diff of the phase that the snapshot ends, while the block runs. Leaving the block gives it up.

        The task logs its errors and raises none. Its result is None if there is no diff.
        """
        task = asyncio.create_task(self._make(request, sandbox, packed, key))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _make(self, request: TakeSnapshot, sandbox: Sandbox, packed: PackedArchive, key: str) -> PutDiff | None:
        if request.reason != SnapshotReason.PHASE or request.phase is None or packed.commit is None:
            return None
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                async with transaction(self._sessions) as tx:
                    before = await commits_before(tx, uuid.UUID(request.build_id), request.phase)
                git = await diff_phase(sandbox, packed.commit, before.phases, before.start)
                diff, content = await asyncio.to_thread(_pack, git)
                await self._store.put(key, content, "application/gzip")
                return PutDiff(diff, key)
        except Exception as error:  # whatever it is: the snapshot is worth more
            _log.warning("a phase has no diff", build_id=request.build_id, phase=request.phase, error=error)
            return None


def _pack(git: GitDiffs) -> tuple[WorkspaceDiff, bytes]:
    stored = StoredDiff(phase=read_diff(git.phase), build=None if git.build is None else read_diff(git.build))
    return stored.phase, gzip.compress(stored.model_dump_json().encode(), mtime=0)


def diff_key(build_id: uuid.UUID, phase: int, claim: uuid.UUID) -> str:
    """The key of an attempt's diff. It holds the claim, so no two attempts write the same object."""
    return f"{_prefix(build_id)}{phase:06d}-{claim.hex[:12]}.json.gz"


async def sweep_diffs(
    sessions: Sessions, store: ObjectStore, build_id: uuid.UUID, unnumbered_before: datetime | None
) -> int:
    """Write tombstones for diffs of an ended build that no row names; returns how many. They go days later.

    Diffs that rows name stay as long as the build's rows: snapshots are rotated, and what each phase has changed is
    shown all the same.

    Args:
        unnumbered_before: also doom objects without a row of their phase that were written before this time.
    """
    listed = await store.objects(_prefix(build_id))
    async with transaction(sessions) as tx:
        named = await keys_by_phase(tx, build_id)

        def is_doomed(key: str, written_at: datetime) -> bool:
            number = key.rpartition("/")[2].partition("-")[0]
            phase = int(number) if number.isdecimal() else None
            return may_doom_object(
                ObjectEvidence(
                    is_ours=phase is not None,
                    has_row=phase in named,
                    is_named=phase is not None and named.get(phase) == key,
                    is_old=unnumbered_before is not None and written_at < unnumbered_before,
                    is_trusted=unnumbered_before is not None,
                )
            )

        superfluous = [each.key for each in listed if is_doomed(each.key, each.written_at)]
        return await doom(tx, build_id, superfluous, "no phase needs it")


def _prefix(build_id: uuid.UUID) -> str:
    return f"{DIFFS_PREFIX}{build_id}/"
