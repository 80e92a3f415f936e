"""What the phases of a build have changed: one row for each phase, and its patches in the object store."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from db.models import Event, PhaseDiff, Snapshot
from db.snapshots import first_snapshot
from db.transaction import Transaction
from domain.events import PhaseCompletedEvent
from domain.workspace_diff import WorkspaceDiff

DIFFS_PREFIX = "diffs/"
"""Prefix of the keys of all diffs in the object store."""

COMMIT_DIGITS = 12
"""Digits of a commit's hash in the events of phases."""

_BASES_MOST = 20
"""Look for the commit that a phase began with among the ends of so many phases before it."""


@dataclass(frozen=True)
class CommitsBefore:
    """Commits that a phase may have begun with, the likeliest first; and the one that its build began with, if any."""

    phases: Sequence[str]
    start: str | None


async def commits_before(tx: Transaction, build_id: uuid.UUID, phase: int) -> CommitsBefore:
    """Return the commits with which earlier phases of the build have ended, the newest first."""
    events = await tx.session.scalars(
        select(Event.data)
        .where(Event.build_id == build_id, Event.type == PhaseCompletedEvent.type)
        .order_by(Event.id.desc())
        .limit(_BASES_MOST + 1)
    )
    ended = [PhaseCompletedEvent.model_validate(data) for data in events]
    commits = [event.commit for event in ended if event.commit is not None and event.phase < phase]
    start = await first_snapshot(tx, build_id)
    return CommitsBefore(commits[:_BASES_MOST], None if start is None else start.commit)


async def insert_diff(tx: Transaction, build_id: uuid.UUID, phase: int, diff: WorkspaceDiff, object_key: str) -> bool:
    """Insert the row of a phase. Return False if there is one already, which stays."""
    inserted = await tx.session.scalar(
        insert(PhaseDiff)
        .values(
            build_id=build_id,
            phase=phase,
            commit=diff.commit,
            base=diff.base,
            files=diff.files,
            additions=diff.additions,
            deletions=diff.deletions,
            object_key=object_key,
        )
        .on_conflict_do_nothing(index_elements=["build_id", "phase"])
        .returning(PhaseDiff.phase)
    )
    return inserted is not None


async def list_diffs(tx: Transaction, build_id: uuid.UUID) -> list[PhaseDiff]:
    """Return the rows of a build's phases, in order."""
    return list(
        await tx.session.scalars(select(PhaseDiff).where(PhaseDiff.build_id == build_id).order_by(PhaseDiff.phase))
    )


async def find_diff(tx: Transaction, build_id: uuid.UUID, phase: int) -> PhaseDiff | None:
    """Return the row of a phase."""
    return await tx.session.get(PhaseDiff, (build_id, phase))


async def last_diff(tx: Transaction, build_id: uuid.UUID) -> PhaseDiff | None:
    """Return the row of the build's last phase that has one."""
    return await tx.session.scalar(
        select(PhaseDiff).where(PhaseDiff.build_id == build_id).order_by(PhaseDiff.phase.desc()).limit(1)
    )


async def stored_commits(tx: Transaction, build_id: uuid.UUID) -> dict[str, int]:
    """Return the number of the stored snapshot of each phase that has one, by the beginning of the commit's hash.

    Events of phases have `COMMIT_DIGITS` of it.
    """
    rows = await tx.session.execute(
        select(Snapshot.commit, Snapshot.number)
        .where(
            Snapshot.build_id == build_id,
            Snapshot.state == "stored",
            Snapshot.reason == "phase",
            Snapshot.commit.is_not(None),
        )
        .order_by(Snapshot.number)
    )
    return {str(commit)[:COMMIT_DIGITS]: number for commit, number in rows}


async def keys_by_phase(tx: Transaction, build_id: uuid.UUID) -> dict[int, str]:
    """Return the keys of the objects that a build's diffs name, by phase."""
    rows = await tx.session.execute(select(PhaseDiff.phase, PhaseDiff.object_key).where(PhaseDiff.build_id == build_id))
    return {phase: key for phase, key in rows}
