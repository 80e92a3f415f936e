"""Builds as the API asks for them: made once, read with their cost, marked."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Build, FounderMessage, GateRun, LedgerEntry, Preview, Question, Snapshot
from db.paging import Position, page_after
from db.steering import AnsweredQuestion
from domain.status import MAX_NIGHTS, SleepPolicy, Status


@dataclass(frozen=True)
class BuildRequest:
    """A founder's request for a build. With an idempotency key, a repeat of it makes no second build."""

    project_id: uuid.UUID
    user_id: str
    goal: str
    idempotency_key: str | None = None
    sleep_policy: SleepPolicy = SleepPolicy.SLEEP
    max_nights: int = MAX_NIGHTS

    @property
    def body_hash(self) -> str:
        """Tells a repeat from another request with the same key. Options at their defaults are left out, so that a new
        option changes no hash that is stored."""
        options: dict[str, Any] = {}
        if self.sleep_policy is not SleepPolicy.SLEEP:
            options["sleep_policy"] = self.sleep_policy
        if self.max_nights != MAX_NIGHTS:
            options["max_nights"] = self.max_nights
        body = [str(self.project_id), self.goal, *([options] if options else [])]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CostedBuild:
    """A build, what its model calls cost so far in µ$, and the question that it has put to its founder, if it has."""

    build: Build
    cost: int
    question: AnsweredQuestion | None = None


async def insert_build(session: AsyncSession, request: BuildRequest) -> Build | None:
    """The new build's row; None where the idempotency key is taken or the project has an open build.

    Waits for a concurrent insert of the same to commit or not, so that afterwards the other row can be read.
    """
    rows = await session.scalars(
        insert(Build)
        .values(
            id=uuid.uuid4(),
            project_id=request.project_id,
            user_id=request.user_id,
            goal=request.goal,
            idempotency_key=request.idempotency_key,
            body_hash=request.body_hash,
            sleep_policy=request.sleep_policy,
            max_nights=request.max_nights,
        )
        .on_conflict_do_nothing()
        .returning(Build)
    )
    return rows.one_or_none()


async def find_build_by_key(session: AsyncSession, user_id: str, idempotency_key: str) -> Build | None:
    """The build that was made by a request with this key."""
    return (
        await session.scalars(select(Build).where(Build.user_id == user_id, Build.idempotency_key == idempotency_key))
    ).one_or_none()


async def find_open_build(session: AsyncSession, project_id: uuid.UUID) -> Build | None:
    """The project's open build; there is at most one."""
    return (
        await session.scalars(select(Build).where(Build.project_id == project_id, Build.closed_at.is_(None)))
    ).one_or_none()


async def find_build(session: AsyncSession, user_id: str, build_id: uuid.UUID) -> Build | None:
    """The build, if it exists and is this user's."""
    return (await session.scalars(select(Build).where(Build.id == build_id, Build.user_id == user_id))).one_or_none()


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


async def read_build(session: AsyncSession, user_id: str, build_id: uuid.UUID) -> CostedBuild | None:
    """The build with its cost, if it exists and is this user's."""
    found = (await session.execute(_COSTED.where(Build.id == build_id, Build.user_id == user_id))).one_or_none()
    return None if found is None else _costed(*found)


@dataclass(frozen=True)
class BuildFilter:
    """Which builds are wanted; what is None or empty does not narrow them."""

    statuses: Sequence[Status] = ()
    project_id: uuid.UUID | None = None
    is_open: bool | None = None


async def list_builds(
    session: AsyncSession, user_id: str, wanted: BuildFilter, after: Position | None, limit: int
) -> list[CostedBuild]:
    """Up to `limit` of the user's builds with their costs, newest first."""
    query = _COSTED.where(Build.user_id == user_id)
    if wanted.statuses:
        query = query.where(Build.status.in_(wanted.statuses))
    if wanted.project_id is not None:
        query = query.where(Build.project_id == wanted.project_id)
    if wanted.is_open is not None:
        query = query.where(Build.closed_at.is_(None) if wanted.is_open else Build.closed_at.is_not(None))
    found = await session.execute(page_after(query, Build, after, limit))
    return [_costed(*row) for row in found]


async def mark_started(session: AsyncSession, build_id: uuid.UUID) -> None:
    """Note that the build's workflow is known to have been started."""
    await session.execute(
        update(Build).where(Build.id == build_id, Build.started_at.is_(None)).values(started_at=func.now())
    )


async def request_cancel(session: AsyncSession, build_id: uuid.UUID) -> bool:
    """Note that the founder wants the build to end; False where it has ended."""
    noted = await session.execute(
        update(Build)
        .where(Build.id == build_id, Build.closed_at.is_(None))
        .values(cancel_requested_at=func.coalesce(Build.cancel_requested_at, func.now()))
        .returning(Build.id)
    )
    return noted.one_or_none() is not None


async def find_preview(session: AsyncSession, build_id: uuid.UUID) -> Preview | None:
    """The build's preview, if it ever had one."""
    return (await session.scalars(select(Preview).where(Preview.build_id == build_id))).one_or_none()


async def list_snapshots(session: AsyncSession, build_id: uuid.UUID) -> list[Snapshot]:
    """The build's stored snapshots, the current one first."""
    return list(
        await session.scalars(
            select(Snapshot)
            .where(Snapshot.build_id == build_id, Snapshot.state == "stored")
            .order_by(Snapshot.number.desc())
        )
    )


async def find_snapshot(session: AsyncSession, build_id: uuid.UUID, number: int) -> Snapshot | None:
    """The build's snapshot with this number, whatever its state."""
    return (
        await session.scalars(select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.number == number))
    ).one_or_none()


async def find_screenshots(session: AsyncSession, build_id: uuid.UUID) -> dict[str, str]:
    """The S3 keys of the last gate run's screenshots, by viewport; empty where no gate took any."""
    kept = await session.scalar(
        select(GateRun.screenshots)
        .where(GateRun.build_id == build_id, GateRun.screenshots != {})
        .order_by(GateRun.number.desc())
        .limit(1)
    )
    return kept or {}
