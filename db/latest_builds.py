"""Read what a list of builds or projects says of each build, in a constant number of statements."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, or_, select, true
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased

from db.builds import LAST_TURN
from db.models import Build, Event, FounderMessage, GateRun, Question
from db.steering import AnsweredQuestion
from db.transaction import Transaction
from domain.events import NarrationEvent, TurnWithdrawnEvent


@dataclass(frozen=True)
class LatestBuild:
    """A project's newest build, its last turn, its open question, and the gate whose screenshots show its product."""

    build: Build
    turn: int
    question: AnsweredQuestion | None
    gate: GateRun | None


_LAST_SHOWN = (
    select(func.max(GateRun.number))
    .where(GateRun.build_id == Build.id, GateRun.screenshots != {}, GateRun.ended_at.is_not(None))
    .correlate(Build)
    .scalar_subquery()
)


async def latest_builds(tx: Transaction, project_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, LatestBuild]:
    """Return the newest build of each of these projects that has one."""
    newest = (
        select(Build.id)
        .where(Build.project_id.in_(project_ids))
        .ext(distinct_on(Build.project_id))
        .order_by(Build.project_id, Build.created_at.desc(), Build.id.desc())
    )
    rows = await tx.session.execute(
        select(Build, LAST_TURN, Question, FounderMessage, GateRun)
        .outerjoin(Question, (Question.build_id == Build.id) & Question.closed_at.is_(None))
        .outerjoin(FounderMessage, FounderMessage.question_id == Question.id)
        .outerjoin(GateRun, (GateRun.build_id == Build.id) & (GateRun.number == _LAST_SHOWN))
        .where(Build.id.in_(newest))
    )
    return {
        build.project_id: LatestBuild(
            build, int(turn), None if asked is None else AnsweredQuestion(asked, answer), gate
        )
        for build, turn, asked, answer, gate in rows
    }


async def last_sentences(tx: Transaction, build_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Return the last sentence that the agent of each of these builds has said. Withdrawn ones are left out."""
    claim = Event.data["claim"].as_string()
    withdrawn = aliased(Event)
    is_withdrawn = (
        select(withdrawn.id)
        .where(
            withdrawn.build_id == Event.build_id,
            withdrawn.id > Event.id,
            withdrawn.type == TurnWithdrawnEvent.type,
            withdrawn.data["claim"].as_string() == claim,
        )
        .exists()
    )
    last = (
        select(Event.data["text"].as_string().label("text"))
        .where(Event.build_id == Build.id, Event.type == NarrationEvent.type, or_(claim.is_(None), ~is_withdrawn))
        .order_by(Event.id.desc())
        .limit(1)
        .correlate(Build)
        .lateral()
    )
    rows = await tx.session.execute(select(Build.id, last.c.text).join(last, true()).where(Build.id.in_(build_ids)))
    return {build_id: text for build_id, text in rows}
