"""Build rows: inserted once, read with their cost, and marked as started or to be cancelled."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from db.models import Build, FounderMessage, GateRun, LedgerEntry, Preview, Question, Snapshot
from db.paging import Position, page_after
from db.steering import AnsweredQuestion
from db.transaction import Transaction
from domain.build_options import BuildOptions
from domain.status import Status


@dataclass(frozen=True)
class BuildRequest:
    """A founder's request for a build. With an idempotency key, a repeat of it makes no second build."""

    project_id: uuid.UUID
    user_id: str
    goal: str
    idempotency_key: str | None = None
    options: BuildOptions = field(default_factory=BuildOptions)

    @property
    def body_hash(self) -> str:
        """Tells a repeat from another request with the same key. Options at their defaults are left out, so that a new
        option changes no hash that is stored."""
        options = self.options.changed()
        body = [str(self.project_id), self.goal, *([options] if options else [])]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CostedBuild:
    """A build, the cost of its model calls so far in µ$, and its open question to its founder, if any."""

    build: Build
    cost: int
    question: AnsweredQuestion | None = None


async def insert_build(tx: Transaction, request: BuildRequest) -> Build | None:
    """Insert a build and return its row; None if the idempotency key is taken or the project has an open build.

    Waits until a conflicting concurrent insert has committed or rolled back, so that its row can be read afterwards.
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
    """Return the build if it exists and belongs to this user."""
    return (await tx.session.scalars(select(Build).where(Build.id == build_id, Build.user_id == user_id))).one_or_none()


_COST = (
    select(func.coalesce(func.sum(LedgerEntry.cost), 0))
    .where(LedgerEntry.build_id == Build.id)
    .correlate(Build)
    .scalar_subquery()
)


_COSTED = (
    select(Build, _COST, Question, FounderMessage)
    .outerjoin(Question, and_(Question.build_id == Build.id, Question.closed_at.is_(None)))
    .outerjoin(FounderMessage, FounderMessage.question_id == Question.id)
)


def _costed(build: Build, cost: int, question: Question | None, answer: FounderMessage | None) -> CostedBuild:
    return CostedBuild(build, int(cost), None if question is None else AnsweredQuestion(question, answer))


async def read_build(tx: Transaction, user_id: str, build_id: uuid.UUID) -> CostedBuild | None:
    """Return the build with its cost if it exists and belongs to this user."""
    row = (await tx.session.execute(_COSTED.where(Build.id == build_id, Build.user_id == user_id))).one_or_none()
    return None if row is None else _costed(*row)


@dataclass(frozen=True)
class BuildFilter:
    """Which builds to list. A field that is None or empty matches every build."""

    statuses: Sequence[Status] = ()
    project_id: uuid.UUID | None = None
    is_open: bool | None = None


async def list_builds(
    tx: Transaction, user_id: str, filters: BuildFilter, after: Position | None, limit: int
) -> list[CostedBuild]:
    """Return up to `limit` of the user's builds with their costs, newest first."""
    query = _COSTED.where(Build.user_id == user_id)
    if filters.statuses:
        query = query.where(Build.status.in_(filters.statuses))
    if filters.project_id is not None:
        query = query.where(Build.project_id == filters.project_id)
    if filters.is_open is not None:
        query = query.where(Build.closed_at.is_(None) if filters.is_open else Build.closed_at.is_not(None))
    rows = await tx.session.execute(page_after(query, Build, after, limit))
    return [_costed(*row) for row in rows]


async def mark_started(tx: Transaction, build_id: uuid.UUID) -> None:
    """Record that the build's workflow is known to have started."""
    await tx.session.execute(
        update(Build).where(Build.id == build_id, Build.started_at.is_(None)).values(started_at=func.now())
    )


async def request_cancel(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Record that the founder wants to cancel the build. Return False if it has ended already."""
    marked_id = await tx.session.execute(
        update(Build)
        .where(Build.id == build_id, Build.closed_at.is_(None))
        .values(cancel_requested_at=func.coalesce(Build.cancel_requested_at, func.now()))
        .returning(Build.id)
    )
    return marked_id.one_or_none() is not None


async def find_preview(tx: Transaction, build_id: uuid.UUID) -> Preview | None:
    """Return the build's preview, if it ever had one."""
    return (await tx.session.scalars(select(Preview).where(Preview.build_id == build_id))).one_or_none()


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


async def find_screenshots(tx: Transaction, build_id: uuid.UUID) -> dict[str, str]:
    """Return the S3 keys of the last gate run's screenshots by viewport; empty if no gate run took any."""
    keys = await tx.session.scalar(
        select(GateRun.screenshots)
        .where(GateRun.build_id == build_id, GateRun.screenshots != {})
        .order_by(GateRun.number.desc())
        .limit(1)
    )
    return keys or {}
