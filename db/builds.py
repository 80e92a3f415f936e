"""Build rows: inserted once, read with their cost, and marked as started or to be cancelled."""

import hashlib
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import and_, cast, func, select, text, true, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import aliased

from db import access
from db.models import (
    Artifact,
    Build,
    FounderMessage,
    GateRun,
    LedgerEntry,
    Project,
    Question,
    Snapshot,
    Turn,
    UnderstandingSession,
    User,
)
from db.paging import Position, page_after
from db.steering import AnsweredQuestion, open_agent_questions
from db.transaction import Transaction
from domain.build_options import BuildOptions
from domain.errors import RowsAreAhead, StaleClaim
from domain.judge import Judgement
from domain.lost_calls import JUDGE
from domain.payloads import FinishBuild, StatusChange
from domain.status import CLOSED, Status


@dataclass(frozen=True)
class Start:
    """The snapshot with which a build begins. `number` is None for the build's final or else its last one."""

    build_id: uuid.UUID
    number: int | None = None


@dataclass(frozen=True)
class BuildRequest:
    """A founder's request for a build. With an idempotency key, a repeat of it makes no second build.

    `start_from`: by default the project's last version, if there is one.
    """

    project_id: uuid.UUID
    user_id: str
    goal: str
    idempotency_key: str | None = None
    options: BuildOptions = field(default_factory=BuildOptions)
    start_from: Start | None = None

    @property
    def body_hash(self) -> str:
        """Tells a repeat from another request with the same key. Options at their defaults are left out, so that a new
        option changes no hash that is stored."""
        options = self.options.changed()
        body: list[Any] = [str(self.project_id), self.goal, *([options] if options else [])]
        if self.start_from is not None:
            body.append({"start_from": [str(self.start_from.build_id), self.start_from.number]})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CostedBuild:
    """A build, the cost of its model calls so far in µ$, and its open question to its founder, if any."""

    build: Build
    cost: int
    question: AnsweredQuestion | None = None
    sandbox_seconds: int = 0
    """How long a sandbox has run for it today."""
    judge_cost: int = 0
    """What of the cost is the judge's, in µ$."""
    judgement: tuple[int, Judgement] | None = None
    """How its last judge has judged, and the number of that gate."""
    project_name: str = ""
    turn: int = 0
    """The number of its last turn; 0 before the first."""
    agent_questions: Sequence[Question] = ()
    """What its agent has asked without waiting, as long as that can be answered."""
    start_version: int | None = None
    """The version of the build with whose snapshot it begins; None if that made none."""


async def insert_build(tx: Transaction, request: BuildRequest, start: Snapshot | None = None) -> Build | None:
    """Insert a build and return its row; None if the idempotency key is taken or the project has an open build.

    Waits until a conflicting concurrent insert has committed or rolled back, so that its row can be read afterwards.
    Also waits for the deletion of the snapshot with which it begins, and for the archiving of the project.

    `start`: the snapshot with which it begins.
    """
    rows = await tx.session.scalars(
        insert(Build)
        .values(
            id=uuid.uuid4(),
            project_id=request.project_id,
            user_id=request.user_id,
            goal=request.goal,
            idempotency_key=request.idempotency_key,
            body_hash=request.body_hash,
            start_build_id=None if start is None else start.build_id,
            start_snapshot=None if start is None else start.number,
            **request.options.model_dump(),
        )
        .on_conflict_do_nothing()
        .returning(Build)
    )
    return rows.one_or_none()


async def find_build_by_key(tx: Transaction, user_id: str, idempotency_key: str) -> Build | None:
    """Return the build that a request with this key created."""
    return (
        await tx.session.scalars(
            select(Build).where(Build.user_id == user_id, Build.idempotency_key == idempotency_key)
        )
    ).one_or_none()


async def find_open_build(tx: Transaction, project_id: uuid.UUID) -> Build | None:
    """Return the project's open build; there is at most one."""
    return (
        await tx.session.scalars(select(Build).where(Build.project_id == project_id, Build.closed_at.is_(None)))
    ).one_or_none()


async def find_build(tx: Transaction, user_id: str, build_id: uuid.UUID) -> Build | None:
    """Return the build if it exists and this user may see it."""
    return (
        await tx.session.scalars(select(Build).where(Build.id == build_id, access.owned(Build, user_id)))
    ).one_or_none()


_COST = (
    select(func.coalesce(func.sum(LedgerEntry.cost), 0))
    .where(LedgerEntry.build_id == Build.id)
    .correlate(Build)
    .scalar_subquery()
)


_JUDGE_COST = (
    select(func.coalesce(func.sum(LedgerEntry.cost), 0))
    .where(LedgerEntry.build_id == Build.id, LedgerEntry.kind == JUDGE)
    .correlate(Build)
    .scalar_subquery()
)

_LAST_JUDGED = (
    select(func.max(GateRun.number))
    .where(GateRun.build_id == Build.id, GateRun.judgement.is_not(None))
    .correlate(Build)
    .scalar_subquery()
)

_SANDBOX_SECONDS = func.sandbox_seconds(Build.id, func.date(func.timezone("UTC", func.clock_timestamp())))

LAST_TURN = (
    select(func.coalesce(func.max(Turn.number), 0)).where(Turn.build_id == Build.id).correlate(Build).scalar_subquery()
)
"""The number of a build's last turn; 0 before the first."""

_Start = aliased(Build)

_START_VERSION = (
    select(_Start.build_version).where(_Start.id == Build.start_build_id).correlate(Build).scalar_subquery()
)

_COSTED = (
    select(
        Build,
        _COST,
        _SANDBOX_SECONDS,
        Question,
        FounderMessage,
        _JUDGE_COST,
        GateRun,
        Project.name,
        LAST_TURN,
        _START_VERSION,
    )
    .join(Project, Project.id == Build.project_id)
    .outerjoin(Question, and_(Question.build_id == Build.id, Question.closed_at.is_(None)))
    .outerjoin(FounderMessage, FounderMessage.question_id == Question.id)
    .outerjoin(GateRun, and_(GateRun.build_id == Build.id, GateRun.number == _LAST_JUDGED))
)


def _costed(
    build: Build,
    cost: int,
    seconds: int,
    question: Question | None,
    answer: FounderMessage | None,
    judge_cost: int,
    judged: GateRun | None,
    project_name: str,
    turn: int,
    start_version: int | None,
) -> CostedBuild:
    return CostedBuild(
        build,
        int(cost),
        question=None if question is None else AnsweredQuestion(question, answer),
        sandbox_seconds=int(seconds),
        judge_cost=int(judge_cost),
        judgement=None if judged is None else (judged.number, Judgement.model_validate(judged.judgement)),
        project_name=project_name,
        turn=int(turn),
        start_version=start_version,
    )


async def read_build(tx: Transaction, user_id: str, build_id: uuid.UUID) -> CostedBuild | None:
    """Return the build with its cost if it exists and this user may see it."""
    row = (await tx.session.execute(_COSTED.where(Build.id == build_id, access.owned(Build, user_id)))).one_or_none()
    return None if row is None else (await _with_agent_questions(tx, [_costed(*row)]))[0]


async def _with_agent_questions(tx: Transaction, costed: Sequence[CostedBuild]) -> list[CostedBuild]:
    questions = await open_agent_questions(tx, [each.build.id for each in costed if each.build.closed_at is None])
    return [
        replace(each, agent_questions=[asked for asked in questions if asked.build_id == each.build.id])
        for each in costed
    ]


@dataclass(frozen=True)
class BuildFilter:
    """Which builds to list. A field that is None or empty matches every build."""

    statuses: Sequence[Status] = ()
    project_id: uuid.UUID | None = None
    is_open: bool | None = None
    started_by: str | None = None


async def list_builds(
    tx: Transaction, user_id: str, filters: BuildFilter, after: Position | None, limit: int
) -> list[CostedBuild]:
    """Return up to `limit` of the builds that the user may see, with their costs, newest first."""
    query = _COSTED.where(access.owned(Build, user_id))
    if filters.statuses:
        query = query.where(Build.status.in_(filters.statuses))
    if filters.project_id is not None:
        query = query.where(Build.project_id == filters.project_id)
    if filters.started_by is not None:
        query = query.where(Build.user_id == filters.started_by)
    if filters.is_open is not None:
        query = query.where(Build.closed_at.is_(None) if filters.is_open else Build.closed_at.is_not(None))
    rows = await tx.session.execute(page_after(query, Build, after, limit))
    return await _with_agent_questions(tx, [_costed(*row) for row in rows])


async def mark_started(tx: Transaction, build_id: uuid.UUID) -> None:
    """Record that the build's workflow is known to have started."""
    await tx.session.execute(
        update(Build).where(Build.id == build_id, Build.started_at.is_(None)).values(started_at=func.now())
    )


async def change_settings(
    tx: Transaction, build_id: uuid.UUID | None, changes: Mapping[str, int | str | None]
) -> list[Build]:
    """Change settings of an open build, or of all of them if there is no id; returns the builds."""
    chosen = Build.closed_at.is_(None) if build_id is None else and_(Build.id == build_id, Build.closed_at.is_(None))
    changed = (
        update(Build)
        .where(chosen)
        .values(settings=Build.settings.concat(cast(dict(changes), JSONB)), settings_version=Build.settings_version + 1)
        .returning(Build)
    )
    return list((await tx.session.scalars(changed)).all())


async def request_cancel(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Record that the founder wants to cancel the build. Return False if it has ended already."""
    marked_id = await tx.session.execute(
        update(Build)
        .where(Build.id == build_id, Build.closed_at.is_(None))
        .values(cancel_requested_at=func.coalesce(Build.cancel_requested_at, func.now()))
        .returning(Build.id)
    )
    return marked_id.one_or_none() is not None


async def list_snapshots(tx: Transaction, build_id: uuid.UUID) -> list[Snapshot]:
    """Return the build's stored snapshots, the current one first."""
    return list(
        await tx.session.scalars(
            select(Snapshot)
            .where(Snapshot.build_id == build_id, Snapshot.state == "stored")
            .order_by(Snapshot.number.desc())
        )
    )


async def find_snapshot(tx: Transaction, build_id: uuid.UUID, number: int) -> Snapshot | None:
    """Return the build's snapshot with this number, whatever its state."""
    return (
        await tx.session.scalars(select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.number == number))
    ).one_or_none()


async def check_builds_table(tx: Transaction) -> None:
    """Read from the table of builds, to see whether the database answers and has its tables.

    Raises:
        DBAPIError: it does not, or has not.
    """
    await tx.session.execute(text("select 1 from builds limit 1"))


# ---- what the activities of a build read and write


async def load_build(tx: Transaction, build_id: uuid.UUID) -> Build:
    """Return the build, whichever user it belongs to.

    Raises:
        NoResultFound: it does not exist.
    """
    return await tx.session.get_one(Build, build_id)


async def is_gone(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Whether there is no such build: it was erased."""
    return await tx.session.scalar(select(Build.id).where(Build.id == build_id)) is None


async def pin_inputs(tx: Transaction, build: Build, brief: Artifact, interview: UnderstandingSession | None) -> None:
    """Write to the build's row which versions of brief and interview it was started with."""
    build.brief_version = brief.version
    build.session_id = interview.id if interview else None
    await tx.session.flush()


async def record_model(tx: Transaction, build: Build, model: str, label: str) -> None:
    """Write the build's model and the label that people read to its row."""
    build.model, build.model_label = model, label
    await tx.session.flush()


async def record_status(tx: Transaction, change: StatusChange, reason: str | None) -> str | None:
    """Write the workflow's status to the build's row, unless the row has a newer one or is closed.

    A status that closes the build is written whatever status the row has.

    `reason`: the change's, in characters that can be stored.

    Returns:
        The build's user; None if nothing was written.
    """
    closed = change.status in CLOSED
    is_newer = true() if closed else Build.status_seq < change.seq
    return await tx.session.scalar(
        update(Build)
        .where(Build.id == uuid.UUID(change.build_id), is_newer, Build.closed_at.is_(None))
        .values(
            status=change.status,
            status_seq=func.greatest(Build.status_seq + 1, change.seq) if closed else change.seq,
            status_at=func.now(),
            waiting_for=change.waiting_for,
            dependency=change.dependency,
            reason=reason,
            wakes_at=change.wakes_at,
            started_at=func.coalesce(Build.started_at, func.now()),
            **({"closed_at": func.now(), "sandbox_id": None} if closed else {}),
        )
        .returning(Build.user_id)
    )


async def keep_status(tx: Transaction, change: StatusChange) -> None:
    """Take the change's sequence number, and leave the status as it is."""
    await tx.session.execute(
        update(Build)
        .where(Build.id == uuid.UUID(change.build_id), Build.status_seq < change.seq, Build.closed_at.is_(None))
        .values(status_seq=change.seq)
    )


async def has_status(tx: Transaction, change: StatusChange, reason: str | None) -> bool:
    """Lock the build's row until the transaction ends, and return whether it says just what the change says."""
    build = await tx.session.get_one(Build, uuid.UUID(change.build_id), with_for_update={"key_share": True})
    row = build.status, build.waiting_for, build.dependency, build.reason, build.wakes_at
    return row == (change.status, change.waiting_for, change.dependency, reason, change.wakes_at)


async def require_recorded(tx: Transaction, change: StatusChange) -> None:
    """Check that the build's row has this status, which was not written now.

    Raises:
        RowsAreAhead: it has a later one.
    """
    build = await tx.session.get_one(Build, uuid.UUID(change.build_id), populate_existing=True)
    is_recorded = build.status == change.status and (build.closed_at is not None or build.status_seq == change.seq)
    if not is_recorded:
        raise RowsAreAhead(f"The build is {build.status} since it was {change.status}.")


async def require_open(tx: Transaction, build_id: uuid.UUID) -> None:
    """Check that the build has not ended.

    Raises:
        RowsAreAhead: it has.
    """
    if await has_ended(tx, build_id):
        raise RowsAreAhead("The build has ended, so nothing is done for it any more.")


async def lock_build_to_finish(tx: Transaction, build_id: uuid.UUID) -> Build:
    """Lock the build's row until the transaction ends, also against references to it, and return it.

    Raises:
        NoResultFound: the build does not exist.
    """
    return await tx.session.get_one(Build, build_id, with_for_update=True)


async def finish(
    tx: Transaction, build: Build, request: FinishBuild, workspace_path: str, version: int | None = None
) -> int:
    """Close a locked build as ready, and lock its project. Return its version.

    `version`: the one to give it, unless another build of the project has it. Otherwise it gets the project's next one.
    """
    project = await tx.session.get_one(Project, build.project_id, with_for_update=True)
    if version is None or await _has_version(tx, build.project_id, version):
        version = project.last_build_version + 1
    project.last_build_version = max(project.last_build_version, version)
    build.build_version = version
    build.status, build.status_seq, build.status_at = Status.READY, request.seq, func.now()
    build.waiting_for = build.dependency = build.reason = build.wakes_at = None
    build.sandbox_id, build.preview_url = request.sandbox_id, request.preview_url
    build.workspace_path = workspace_path
    build.phases_completed = request.phases_completed
    build.closed_at = func.now()
    build.lost_at = None
    await tx.session.flush()
    return version


async def _has_version(tx: Transaction, project_id: uuid.UUID, version: int) -> bool:
    query = select(Build.id).where(Build.project_id == project_id, Build.build_version == version)
    return await tx.session.scalar(query) is not None


async def complete_phase(tx: Transaction, build_id: uuid.UUID, phase: int) -> bool:
    """Count a completed phase in the build's row. Return False if it was counted before."""
    counted = await tx.session.scalar(
        update(Build)
        .where(Build.id == build_id, Build.phases_completed < phase)
        .values(phases_completed=phase)
        .returning(Build.id)
    )
    return counted is not None


async def has_ended(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Whether the build is closed."""
    return await tx.session.scalar(select(Build.closed_at).where(Build.id == build_id)) is not None


# ---- the sandbox that a build's row names


async def recorded_sandbox(tx: Transaction, build_id: uuid.UUID) -> str | None:
    """Return the sandbox that the build's row names."""
    return await tx.session.scalar(select(Build.sandbox_id).where(Build.id == build_id))


async def handed_over_sandbox(tx: Transaction, build_id: uuid.UUID) -> str | None:
    """Return the sandbox that a ready build has handed to its preview; None for any other build."""
    return await tx.session.scalar(select(Build.sandbox_id).where(Build.id == build_id, Build.status == Status.READY))


async def record_sandbox(tx: Transaction, build_id: uuid.UUID, sandbox_id: str, recorded: str | None) -> None:
    """Name the sandbox in the build's row.

    `recorded`: the sandbox that the row named when this attempt began.

    Raises:
        StaleClaim: another attempt has named another sandbox since.
    """
    is_unchanged = Build.sandbox_id.is_not_distinct_from(recorded) | (Build.sandbox_id == sandbox_id)
    written = await tx.session.scalar(
        update(Build).where(Build.id == build_id, is_unchanged).values(sandbox_id=sandbox_id).returning(Build.id)
    )
    if written is None:
        raise StaleClaim(f"Another attempt has opened another sandbox than {sandbox_id}.")


async def forget_sandboxes(tx: Transaction, build_id: uuid.UUID, sandbox_ids: Collection[str]) -> None:
    """Take the sandbox out of the build's row if it is one of these, which were killed."""
    await tx.session.execute(
        update(Build).where(Build.id == build_id, Build.sandbox_id.in_(sandbox_ids)).values(sandbox_id=None)
    )


# ---- what the reaper repairs


async def unstarted_builds(tx: Transaction, limit: int, *, before: datetime) -> list[tuple[Build, str]]:
    """Return up to `limit` open builds that are not known to have started, each with its plan.

    Only those created before `before`, the oldest first.
    """
    rows = await tx.session.execute(
        select(Build, User.plan)
        .join(User, Build.user_id == User.id)
        .where(Build.started_at.is_(None), Build.closed_at.is_(None), Build.created_at < before)
        .order_by(Build.created_at, Build.id)
        .limit(limit)
    )
    return [(build, plan) for build, plan in rows]


async def close_stopped_build(tx: Transaction, build_id: uuid.UUID, status: Status, reason: str) -> bool:
    """Close a build whose workflow was stopped from outside. Return False if it is closed already."""
    closed = await tx.session.scalar(
        update(Build)
        .where(Build.id == build_id, Build.closed_at.is_(None))
        .values(
            status=status,
            status_seq=Build.status_seq + 1,
            waiting_for=None,
            dependency=None,
            wakes_at=None,
            sandbox_id=None,
            reason=reason,
            lost_at=None,
            closed_at=func.now(),
        )
        .returning(Build.id)
    )
    return closed is not None
