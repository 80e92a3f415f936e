"""How builds stand, for those who follow all of theirs at once."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from db import access
from db.builds import LAST_TURN
from db.models import Build, Membership, Preview, Project
from db.transaction import Transaction


@dataclass(frozen=True)
class BuildState:
    """A build at one moment. `preview` is None if it never had one."""

    build_id: uuid.UUID
    project_id: uuid.UUID
    payer: str
    status: str
    waiting_for: str | None
    phase: int
    turn: int
    last_event_id: int
    preview: "PreviewState | None"


@dataclass(frozen=True)
class PreviewState:
    """A build's preview at one moment."""

    state: str
    url: str | None
    expires_at: datetime | None
    reason: str | None


async def who_may_see(
    tx: Transaction, build_ids: Collection[uuid.UUID], user_ids: Collection[str]
) -> dict[str, set[uuid.UUID]]:
    """Return which of the builds each of the users may see; users without any are left out.

    The transaction has to see every row. Use it to find out whom to ask for, and read with the access of each user.
    """
    rows = await tx.session.execute(
        select(Membership.user_id, Build.id)
        .join(Project, Project.org_id == Membership.org_id)
        .join(Build, Build.project_id == Project.id)
        .where(Build.id.in_(build_ids), Membership.user_id.in_(user_ids))
    )
    found: dict[str, set[uuid.UUID]] = {}
    for user_id, build_id in rows:
        found.setdefault(user_id, set()).add(build_id)
    return found


async def read_states(tx: Transaction, user_id: str, build_ids: Collection[uuid.UUID]) -> Sequence[BuildState]:
    """Return how those of the builds stand that the user may see."""
    rows = await tx.session.execute(
        select(Build, LAST_TURN, Preview)
        .outerjoin(Preview, Preview.build_id == Build.id)
        .where(Build.id.in_(build_ids), access.owned(Build, user_id))
        .order_by(Build.created_at, Build.id)
    )
    return [
        BuildState(
            build_id=build.id,
            project_id=build.project_id,
            payer=build.user_id,
            status=build.status,
            waiting_for=build.waiting_for,
            phase=build.phases_completed,
            turn=int(turn),
            last_event_id=build.last_event_id,
            preview=None
            if preview is None
            else PreviewState(preview.state, preview.url, preview.expires_at, preview.reason),
        )
        for build, turn, preview in rows
    ]
