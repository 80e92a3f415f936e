"""Do one thing to many builds: rows first, then a workflow that carries them out at a rate.

The builds that a filter matches are written when the run is made. A build that does not fit the act any more when its
turn comes is skipped. Whatever dies in between, each build gets the act once: its row says whether it was decided, and
Temporal takes a signal with the same request id once.
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import bulk_runs, steering
from db.bulk_runs import Counts
from db.erasures import find_erasure_of
from db.formats import running_older, runs_older_worker
from db.models import Build, BulkRun, User
from db.session import Sessions
from db.transaction import Transaction, request_transaction, transaction
from db.users import UserChange, find_user
from domain.audit import Action, Author
from domain.bulk import (
    BATCH_SECONDS,
    MAX_ATTEMPTS,
    MAX_BUILDS,
    MAX_RATE,
    OF_ACCOUNTS,
    SAMPLE,
    BulkAct,
    BulkState,
    ItemState,
    why_not,
)
from domain.errors import CofounderError, Conflict, InvalidInput, KeyReused, NotFound
from domain.fleet_filter import FleetFilter
from domain.identity import How
from domain.payloads import BulkBatch
from domain.text import storable
from services.accounts import change_account
from services.audit import record
from services.builds import note_cancel, note_finish, note_wake, signal_cancel, signal_finish, signal_wake
from services.notifications import notify_budget_changed

FIRST_SCHEMA = 41
"""The first version of the schema whose workers know the workflow."""

UNSUSPEND_SCHEMA = 46
"""The first version of the schema whose workers know how to lift suspensions."""

_WHY_CHARACTERS = 300

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class NewRun:
    """What an operator asks for.

    - `where`: a filter, as text.
    - `rate`: builds a second.
    - `of_versions`: the builds of the versions that the filter names; see `services.fleet.builds_of_versions`.
    """

    act: BulkAct
    where: str
    rate: int
    reason: str
    idempotency_key: str | None = None
    of_versions: Collection[uuid.UUID] | None = None

    @property
    def body_hash(self) -> str:
        """Tells requests with the same key apart."""
        body = json.dumps([self.act, self.where, self.rate, self.reason])
        return hashlib.sha256(body.encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A run, with how many of its builds are in each state."""

    row: BulkRun
    counts: Counts

    @property
    def by(self) -> str:
        """Who made it, for other operators."""
        return Author(self.row.actor, How(self.row.how), credential_id=self.row.credential_id).name


@dataclass(frozen=True)
class Expected:
    """What a run would do to a build. `why_not`: why it would skip it; None if the act fits."""

    build_id: uuid.UUID
    user_id: str
    status: str
    why_not: str | None


@dataclass(frozen=True)
class DryRun:
    """What a run would do. `count`: builds that the filter matches; `fitting`: those that the act fits now."""

    count: int
    fitting: int
    sample: Sequence[Expected]


# ---- by operators


async def try_run(tx: Transaction, new: NewRun) -> DryRun:
    """Say what a run would do. Nothing is written.

    Raises:
        InvalidInput: the filter is not one, or matches every build or too many.
    """
    ids = await _matching(tx, new)
    expected = []
    changed: dict[str, str | None] = {}  # users, with why the act does not fit their other builds
    for start in range(0, len(ids), _READ):
        page = ids[start : start + _READ]
        found = await bulk_runs.candidates(tx, page)
        for build_id in page:
            if (build := found.get(build_id)) is None:
                continue
            reason = why_not(new.act, build)
            if new.act in OF_ACCOUNTS and reason is None:
                reason = changed.get(build.user_id)
                after = replace(build, is_user_suspended=new.act is BulkAct.SUSPEND)
                changed[build.user_id] = why_not(new.act, after)
            expected.append(Expected(build_id, build.user_id, build.status, reason))
    return DryRun(len(expected), sum(each.why_not is None for each in expected), expected[:SAMPLE])


_READ = 1_000
"""Builds read in one query."""


async def create_run(sessions: Sessions, workflows: BuildWorkflows, new: NewRun) -> Run:
    """Write a run and its builds, then start its workflow. A repeat with the same key returns the same run.

    Raises:
        InvalidInput: the filter is not one, or matches every build or too many.
        KeyReused: the key was used for another run.
        Conflict: a process of an earlier version runs, which does not know the act.
        DatabaseUnavailable: nothing was written.
    """
    async with request_transaction(sessions) as tx:
        author = _author(tx)
        row = None
        if new.idempotency_key is not None:
            row = await bulk_runs.find_by_key(tx, author.actor, new.idempotency_key)
        if row is not None and row.body_hash != new.body_hash:
            raise KeyReused(
                "This Idempotency-Key was used for another run. Use a new key for a new run.", {"run_id": str(row.id)}
            )
        if row is None:
            row = await _insert(tx, new, author)
        counts = await bulk_runs.counts_of(tx, row)
    if row.state == BulkState.RUNNING:
        await start_run(sessions, workflows, row.id)
    return Run(row, counts)


async def _insert(tx: Transaction, new: NewRun, author: Author) -> BulkRun:
    ids = await _matching(tx, new)
    if new.act == BulkAct.UNSUSPEND and (older := await running_older(tx, UNSUSPEND_SCHEMA)):
        names = ", ".join(f"{each.count} {each.role} of version {each.version}" for each in older)
        raise Conflict(
            f"Processes of an earlier version run that do not know this act ({names}), so nothing was written. Try "
            "again once they have ended: `cofounder ops fleet` shows the processes."
        )
    row = BulkRun(
        id=uuid.uuid4(),
        act=new.act,
        filter=new.where,
        rate=new.rate,
        reason=new.reason,
        actor=author.actor,
        how=author.how,
        credential_id=author.credential_id,
        idempotency_key=new.idempotency_key,
        body_hash=new.body_hash,
        state=BulkState.RUNNING if ids else BulkState.FINISHED,
        total=len(ids),
        ended_at=None if ids else datetime.now(UTC),
    )
    await record(tx, Action.BULK_CREATE, bulk_run=row.id, act=new.act, builds=len(ids))
    return await bulk_runs.add_run(tx, row, ids)


async def _matching(tx: Transaction, new: NewRun) -> list[uuid.UUID]:
    """The builds that the filter matches, the oldest first."""
    where = FleetFilter.parse(new.where)
    if where.is_empty:
        raise InvalidInput(
            "The filter is empty, so it would match every build that there ever was. Name a condition, such as "
            "open=true.",
            "where",
        )
    if not 1 <= new.rate <= MAX_RATE:
        raise InvalidInput(f"The rate has to be from 1 to {MAX_RATE} builds a second.", "rate_per_second")
    ids = await bulk_runs.matching(tx, where, MAX_BUILDS + 1, new.of_versions)
    if len(ids) > MAX_BUILDS:
        raise InvalidInput(
            f"The filter matches more than {MAX_BUILDS} builds, the most of one run. Add a condition.", "where"
        )
    return ids


async def read_run(tx: Transaction, run_id: uuid.UUID) -> Run:
    """Return a run.

    Raises:
        NotFound: there is none.
    """
    row = await bulk_runs.find_run(tx, run_id)
    if row is None:
        raise _no_run(run_id)
    return Run(row, await bulk_runs.counts_of(tx, row))


async def list_runs(tx: Transaction, limit: int, after: tuple[datetime, uuid.UUID] | None = None) -> list[Run]:
    """Return runs, the newest first; those after the given one."""
    rows = await bulk_runs.list_runs(tx, limit, after)
    return [Run(row, await bulk_runs.counts_of(tx, row)) for row in rows]


async def stop_run(tx: Transaction, run_id: uuid.UUID) -> Run:
    """Let a run do no more. Within a second, it goes to no further build; those that it has reached stay so.

    Raises:
        NotFound: there is none.
        Conflict: it has finished.
    """
    row = await _lock(tx, run_id)
    if row.state == BulkState.FINISHED:
        raise Conflict("This run has finished, so there is nothing to stop.")
    if row.state == BulkState.RUNNING:
        await bulk_runs.stop(tx, row, _author(tx).name)
        await record(tx, Action.BULK_STOP, bulk_run=run_id)
    return await read_run(tx, run_id)


async def resume_run(sessions: Sessions, workflows: BuildWorkflows, run_id: uuid.UUID) -> Run:
    """Let a run go on that was stopped, and try again the builds that have failed.

    Raises:
        NotFound: there is none.
        Conflict: it has finished, and nothing has failed.
        DatabaseUnavailable: nothing was changed.
    """
    async with request_transaction(sessions) as tx:
        row = await _lock(tx, run_id)
        counts = await bulk_runs.counts_of(tx, row)
        if row.state != BulkState.RUNNING:
            if not counts.pending and not counts.failed:
                raise Conflict("This run has reached all of its builds, so there is nothing to resume.")
            await bulk_runs.resume(tx, row)
            await record(tx, Action.BULK_RESUME, bulk_run=run_id)
        run = await read_run(tx, run_id)
    await start_run(sessions, workflows, run_id, is_resumed=True)
    return run


async def start_run(
    sessions: Sessions, workflows: BuildWorkflows, run_id: uuid.UUID, *, is_resumed: bool = False
) -> bool:
    """Start the workflow of a run, unless it runs. Returns whether it was started now.

    The reaper does this again for each run whose row says that it runs, so nothing that fails here is lost.
    """
    try:
        async with request_transaction(sessions) as tx:
            run = await bulk_runs.find_run(tx, run_id)
            first = UNSUSPEND_SCHEMA if run is not None and run.act == BulkAct.UNSUSPEND else FIRST_SCHEMA
            if await runs_older_worker(tx, first):
                log.warning("a bulk run waits until no older worker runs", run_id=str(run_id))
                return False  # it would take the workflow and not know it
        return await workflows.start_bulk(run_id, is_resumed=is_resumed)
    except (CofounderError, RPCError, RuntimeError) as error:
        log.warning("the reaper will start the bulk run", run_id=str(run_id), error=error)
        return False


async def _stop_unknown(tx: Transaction, run_id: uuid.UUID) -> None:
    """Stop a run of a later version. An operator resumes it once all workers know its act."""
    row = await _lock(tx, run_id)
    log.error("a bulk run was stopped: this version does not know its act", run_id=str(run_id), act=row.act)
    if row.state == BulkState.RUNNING:
        await bulk_runs.stop(tx, row, f"a worker that does not know the act {row.act}")


async def _lock(tx: Transaction, run_id: uuid.UUID) -> BulkRun:
    row = await bulk_runs.lock_run(tx, run_id)
    if row is None:
        raise _no_run(run_id)
    return row


def _no_run(run_id: uuid.UUID) -> NotFound:
    return NotFound(f"There is no bulk run {run_id}. `cofounder ops bulk list` shows them.")


def _author(tx: Transaction) -> Author:
    return tx.author or Author(actor="operator", how=How.COMMAND_LINE)


# ---- by workers


class BulkRuns:
    """Carries runs out."""

    def __init__(self, sessions: Sessions, workflows: BuildWorkflows) -> None:
        self._sessions = sessions
        self._workflows = workflows

    async def carry_out(self, run_id: uuid.UUID) -> BulkBatch:
        """Do the act to the next builds of a run, at its rate, for some seconds.

        Raises:
            RPCError, SQLAlchemyError, CofounderError: no build could be reached; those that were tried stay pending.
        """
        loop = asyncio.get_running_loop()
        ends_at, tried = loop.time() + BATCH_SECONDS, 0
        while loop.time() < ends_at:
            async with transaction(self._sessions) as tx:
                run = await bulk_runs.find_run(tx, run_id)
                if run is not None and run.act not in list(BulkAct):
                    await _stop_unknown(tx, run_id)
                    return BulkBatch(tried=tried, is_over=True)
                ids = [] if run is None else await bulk_runs.claim(tx, run_id, run.rate)
                if run is None or (not ids and await bulk_runs.finish(tx, run_id)):
                    return BulkBatch(tried=tried, is_over=True)
            acting = self._sessions.by(Author(run.actor, How(run.how), credential_id=run.credential_id))
            begun = loop.time()
            # One second's builds, each at its own moment of it.
            outcomes = await asyncio.gather(
                *(self._at(begun + place / run.rate, acting, run, build_id) for place, build_id in enumerate(ids))
            )
            tried += len(ids)
            troubles = [each for each in outcomes if each is not None]
            if len(troubles) == len(ids):
                raise troubles[0]
            await asyncio.sleep(begun + len(ids) / run.rate - loop.time())
        return BulkBatch(tried=tried)

    async def _at(self, moment: float, acting: Sessions, run: BulkRun, build_id: uuid.UUID) -> Exception | None:
        """Do the act to one build; returns the error if another attempt may succeed."""
        await asyncio.sleep(moment - asyncio.get_running_loop().time())
        try:
            await self._do(acting, run, build_id)
        except (CofounderError, RPCError, RuntimeError, SQLAlchemyError, OSError) as error:
            text = storable(str(error) or type(error).__name__, _WHY_CHARACTERS)
            log.warning("an act of a bulk run failed", run_id=str(run.id), build_id=str(build_id), error=error)
            if isinstance(error, SQLAlchemyError | OSError):
                return error
            async with transaction(self._sessions) as tx:
                item = await bulk_runs.lock_item(tx, run.id, build_id)
                item.why = text
                if item.attempts >= MAX_ATTEMPTS:
                    await bulk_runs.settle(tx, run.id, build_id, ItemState.FAILED, text)
            return error
        return None

    async def _do(self, acting: Sessions, run: BulkRun, build_id: uuid.UUID) -> None:
        build = await self._decide(acting, run, build_id)
        if build is None:
            return
        is_reached = await self._notify(run, build)
        async with transaction(self._sessions) as tx:
            if is_reached:
                await bulk_runs.settle(tx, run.id, build_id, ItemState.DONE)
            else:
                why = "Temporal has no running workflow of this build."
                await bulk_runs.settle(tx, run.id, build_id, ItemState.FAILED, why)

    async def _decide(self, acting: Sessions, run: BulkRun, build_id: uuid.UUID) -> Build | None:
        """Write down the act in the build's rows and the audit, once; None if the build is settled."""
        async with transaction(acting) as tx:
            build = await steering.lock_build(tx, build_id)
            item = await bulk_runs.lock_item(tx, run.id, build_id)
            if build is None or item.state != ItemState.PENDING:
                return None
            if not await bulk_runs.is_running(tx, run.id):
                return None  # it was stopped after this worker had taken the build
            if item.decided_at is not None:
                return build  # an earlier attempt may have died before the workflow got it
            user = await self._user(tx, run, build)
            erasure = await find_erasure_of(tx, build.user_id, None) if run.act in OF_ACCOUNTS else None
            candidate = bulk_runs.candidate_of(build, user is not None and user.suspended, erasure is not None)
            reason = why_not(BulkAct(run.act), candidate)
            if reason is not None:
                await bulk_runs.settle(tx, run.id, build_id, ItemState.SKIPPED, reason)
                return None
            match run.act:
                case BulkAct.WAKE:
                    await note_wake(tx, build, run.id)
                case BulkAct.CANCEL:
                    await note_cancel(tx, build, run.id)
                case BulkAct.FINISH:
                    await note_finish(tx, build, run.id)
                case _:
                    today = datetime.now(UTC).date()
                    account = UserChange(suspended=run.act == BulkAct.SUSPEND)
                    await change_account(tx, build.user_id, account, today, run.id)
            item.decided_at = datetime.now(UTC)
            return build

    @staticmethod
    async def _user(tx: Transaction, run: BulkRun, build: Build) -> User | None:
        """The build's user. Locked if the act concerns it: other builds of the user are tried at the same time."""
        return await find_user(tx, build.user_id, locked=run.act in OF_ACCOUNTS)

    async def _notify(self, run: BulkRun, build: Build) -> bool:
        """Tell the workflow; returns False if there is none. Temporal takes a signal of this run once."""
        request_id = f"{run.id}/{build.id}"
        match run.act:
            case BulkAct.WAKE:
                return await signal_wake(self._sessions, self._workflows, build, request_id)
            case BulkAct.CANCEL:
                return await signal_cancel(self._sessions, self._workflows, build)
            case BulkAct.FINISH:
                return await signal_finish(self._sessions, self._workflows, build, request_id)
            case _:
                try:
                    await notify_budget_changed(self._sessions, self._workflows, build.user_id)
                except (RPCError, RuntimeError) as error:
                    log.warning("the reaper will notify the builds", user_id=build.user_id, error=error)
                return True
