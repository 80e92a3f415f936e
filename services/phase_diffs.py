"""The phases of a build with what they have changed, and their patches from the object store."""

import asyncio
import contextlib
import uuid
import zlib
from dataclasses import dataclass

from db.models import Build, PhaseDiff
from db.phase_diffs import COMMIT_DIGITS, list_diffs, stored_commits
from db.progress import read_progress
from db.transaction import Transaction
from domain.errors import NotFound
from domain.progress import Phase, worked_seconds
from domain.workspace_diff import StoredDiff
from services.stored_snapshots import ArchiveSource

_STORED_MOST = 16 * 1024 * 1024
"""Read no diff that has more bytes than this, unpacked."""


@dataclass(frozen=True)
class ChangedPhase:
    """A phase that has ended. `snapshot` is the number of its snapshot, while it is stored."""

    phase: Phase
    seconds: float
    snapshot: int | None
    diff: PhaseDiff | None


async def list_phases(tx: Transaction, build: Build) -> list[ChangedPhase]:
    """Return the phases of a build that have ended, in order."""
    milestones = (await read_progress(tx, build.id)).milestones
    diffs = {row.phase: row for row in await list_diffs(tx, build.id)}
    snapshots = await stored_commits(tx, build.id)
    seconds = worked_seconds(milestones, build.started_at)
    return [
        ChangedPhase(phase, took, snapshots.get((phase.commit or "")[:COMMIT_DIGITS]), diffs.get(phase.number))
        for phase, took in zip(milestones.phases, seconds, strict=True)
    ]


async def read_stored_diff(store: ArchiveSource, row: PhaseDiff) -> StoredDiff:
    """Return the patches of a phase.

    Raises:
        NotFound: they are not in the store any more.
    """
    unpacked = bytearray()
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        async with contextlib.aclosing(store.stream(row.object_key)) as pieces:
            async for piece in pieces:
                unpacked += await asyncio.to_thread(unpack.decompress, piece, _STORED_MOST + 1 - len(unpacked))
                if len(unpacked) > _STORED_MOST:
                    break
        return StoredDiff.model_validate_json(bytes(unpacked))
    except (NotFound, ValueError, zlib.error) as error:
        raise missing_diff(row.build_id, row.phase) from error


def missing_diff(build_id: uuid.UUID, phase: int) -> NotFound:
    """The error for a phase whose changes are not known."""
    return NotFound(
        f"The changes of phase {phase} of build {build_id} were not stored: an earlier version built it, or its "
        "snapshot failed. `git log --patch` in a download shows them."
    )
