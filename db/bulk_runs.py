"""Acts on many builds: runs, and the state of each of their builds."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import UUID, bindparam, exists, func, insert, select, text, tuple_, update

from db.fleet_builds import matches
from db.models import Build, BulkRun, BulkRunBuild, Erasure, User
from db.transaction import Transaction
from domain.bulk import BulkAct, BulkState, Candidate, ItemState
from domain.fleet_filter import FleetFilter
from domain.status import Status


@dataclass(frozen=True)
class Counts:
    """How many builds of a run are in each state."""

    pending: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0


async def add_run(tx: Transaction, run: BulkRun, build_ids: Sequence[uuid.UUID]) -> BulkRun:
    """Insert a run and the rows of its builds, in this order."""
    tx.session.add(run)
    await tx.session.flush()
    rows = [
        {"run_id": run.id, "build_id": build_id, "position": position} for position, build_id in enumerate(build_ids)
    ]
    for start in range(0, len(rows), _ROWS):
        await tx.session.execute(insert(BulkRunBuild), rows[start : start + _ROWS])
    await tx.session.refresh(run)
    return run


_ROWS = 5_000
"""Rows inserted in one statement."""


async def matching(
    tx: Transaction, where: FleetFilter, limit: int, of_versions: Collection[uuid.UUID] | None = None
) -> list[uuid.UUID]:
    """Return the builds that a filter matches, the oldest first. `of_versions`: as in `db.fleet_builds.matches`."""
    query = select(Build.id).where(matches(where, of_versions)).order_by(Build.created_at, Build.id)
    return list(await tx.session.scalars(query.limit(limit)))


async def find_by_key(tx: Transaction, actor: str, idempotency_key: str) -> BulkRun | None:
    """Return the run that a request with this key made."""
    query = select(BulkRun).where(BulkRun.actor == actor, BulkRun.idempotency_key == idempotency_key)
    return (await tx.session.scalars(query)).one_or_none()


async def find_run(tx: Transaction, run_id: uuid.UUID) -> BulkRun | None:
    """Return a run."""
    return await tx.session.get(BulkRun, run_id, populate_existing=True)


async def is_running(tx: Transaction, run_id: uuid.UUID) -> bool:
    """Whether the row says that the run goes on. No one can stop it until the transaction ends."""
    state = select(BulkRun.state).where(BulkRun.id == run_id).with_for_update(read=True)
    return await tx.session.scalar(state) == BulkState.RUNNING


async def lock_run(tx: Transaction, run_id: uuid.UUID) -> BulkRun | None:
    """Return a run, locked until the transaction ends."""
    return await tx.session.get(BulkRun, run_id, populate_existing=True, with_for_update={"key_share": True})


async def list_runs(tx: Transaction, limit: int, after: tuple[datetime, uuid.UUID] | None = None) -> list[BulkRun]:
    """Return runs, the newest first; those after the given one."""
    query = select(BulkRun).order_by(BulkRun.created_at.desc(), BulkRun.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(BulkRun.created_at, BulkRun.id) < after)
    return list(await tx.session.scalars(query))


async def running_runs(tx: Transaction) -> list[uuid.UUID]:
    """Return the runs that are to be carried out, the oldest first."""
    query = select(BulkRun.id).where(text("bulk_runs.state = 'running'")).order_by(BulkRun.created_at)
    return list(await tx.session.scalars(query))


async def counts_of(tx: Transaction, run: BulkRun) -> Counts:
    """How many builds of a run are in each state: as its row says if it has finished, else counted now."""
    # A worker of an older version finishes a run without counting; its row then has another end than the counts.
    if run.state == BulkState.FINISHED and run.counted_at is not None and run.counted_at == run.ended_at:
        return Counts(done=run.done or 0, skipped=run.skipped or 0, failed=run.failed or 0)
    query = select(BulkRunBuild.state, func.count()).where(BulkRunBuild.run_id == run.id).group_by(BulkRunBuild.state)
    return Counts(**{state: number for state, number in await tx.session.execute(query)})


@dataclass(frozen=True)
class RunBuild:
    """A build of a run, with what the build is now."""

    item: BulkRunBuild
    user_id: str
    status: str


async def list_builds(
    tx: Transaction, run_id: uuid.UUID, limit: int, after: int | None = None, state: ItemState | None = None
) -> list[RunBuild]:
    """Return builds of a run in its order; those after the position, and only those in the state."""
    query = (
        select(BulkRunBuild, Build.user_id, Build.status)
        .join(Build, Build.id == BulkRunBuild.build_id)
        .where(BulkRunBuild.run_id == run_id)
        .order_by(BulkRunBuild.position)
        .limit(limit)
    )
    if after is not None:
        query = query.where(BulkRunBuild.position > after)
    if state is not None:
        query = query.where(BulkRunBuild.state == state)
    return [RunBuild(*row) for row in await tx.session.execute(query)]


async def stop(tx: Transaction, run: BulkRun, by: str) -> None:
    """Let a run do no more."""
    run.state, run.stopped_by, run.ended_at = BulkState.STOPPED, by, datetime.now(UTC)
    await tx.session.flush()


async def resume(tx: Transaction, run: BulkRun) -> None:
    """Let a run go on, and try again what has failed. Whether to wake or finish a build is decided again: it may have
    gone on since. A cancel stays decided, since its row says so."""
    values: dict[str, Any] = {"state": ItemState.PENDING, "attempts": 0, "why": None}
    if run.act in (BulkAct.WAKE, BulkAct.FINISH):
        values["decided_at"] = None
    await tx.session.execute(
        update(BulkRunBuild)
        .where(BulkRunBuild.run_id == run.id, BulkRunBuild.state == ItemState.FAILED)
        .values(**values)
    )
    run.state, run.stopped_by, run.ended_at = BulkState.RUNNING, None, None
    await tx.session.flush()


# ---- carrying out

_CLAIM = text(
    """
    update bulk_run_builds set attempts = attempts + 1, at = now()
    where run_id = :run and build_id in (
        select pending.build_id from bulk_run_builds as pending
        where pending.run_id = :run and pending.state = 'pending'
            and exists (select from bulk_runs where bulk_runs.id = :run and bulk_runs.state = 'running')
        order by pending.attempts, pending.position limit :limit
    )
    returning build_id
    """
).bindparams(bindparam("run", type_=UUID(as_uuid=True)))


async def claim(tx: Transaction, run_id: uuid.UUID, limit: int) -> list[uuid.UUID]:
    """Count an attempt for the next builds of a run, and return them; none if the run does not run."""
    rows = await tx.execute(_CLAIM, {"run": run_id, "limit": limit})
    return [build_id for (build_id,) in rows]


async def lock_item(tx: Transaction, run_id: uuid.UUID, build_id: uuid.UUID) -> BulkRunBuild:
    """Return the row of a build of a run, locked until the transaction ends."""
    return await tx.session.get_one(
        BulkRunBuild, (run_id, build_id), populate_existing=True, with_for_update={"key_share": True}
    )


async def settle(
    tx: Transaction, run_id: uuid.UUID, build_id: uuid.UUID, state: ItemState, why: str | None = None
) -> None:
    """Write what has become of a build, unless that is written."""
    await tx.session.execute(
        update(BulkRunBuild)
        .where(
            BulkRunBuild.run_id == run_id,
            BulkRunBuild.build_id == build_id,
            BulkRunBuild.state == ItemState.PENDING,
        )
        .values(state=state, why=why, at=func.now())
    )


async def finish(tx: Transaction, run_id: uuid.UUID) -> bool:
    """Write that a run is finished if none of its builds is pending. Return whether it does not run any more."""
    is_pending = exists().where(BulkRunBuild.run_id == run_id, BulkRunBuild.state == ItemState.PENDING)
    counts = {
        state.value: select(func.count())
        .where(BulkRunBuild.run_id == run_id, BulkRunBuild.state == state)
        .scalar_subquery()
        for state in (ItemState.DONE, ItemState.SKIPPED, ItemState.FAILED)
    }
    await tx.session.execute(
        update(BulkRun)
        .where(BulkRun.id == run_id, BulkRun.state == BulkState.RUNNING, ~is_pending)
        .values(state=BulkState.FINISHED, ended_at=func.now(), counted_at=func.now(), **counts)
    )
    state = await tx.session.scalar(select(BulkRun.state).where(BulkRun.id == run_id))
    return state != BulkState.RUNNING


async def candidates(tx: Transaction, build_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Candidate]:
    """Return what decides whether an act fits these builds."""
    erased = exists().where(Erasure.user_id == User.id, Erasure.project_id.is_(None), Erasure.finished_at.is_(None))
    query = select(Build, User.suspended, erased).join(User, User.id == Build.user_id).where(Build.id.in_(build_ids))
    return {build.id: candidate_of(build, *user) for build, *user in await tx.session.execute(query)}


def candidate_of(build: Build, suspended: bool, being_erased: bool) -> Candidate:
    """What decides whether an act fits the build. `suspended`, `being_erased`: its user is."""
    return Candidate(
        status=Status(build.status),
        is_closed=build.closed_at is not None,
        is_cancelled=build.cancel_requested_at is not None,
        has_passed=build.gate_passed_at is not None,
        user_id=build.user_id,
        is_user_suspended=suspended,
        is_user_being_erased=being_erased,
    )
