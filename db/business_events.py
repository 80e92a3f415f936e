"""Business events: what other systems learn of a build."""

import uuid

from sqlalchemy.dialects.postgresql import insert

from db.models import Build, BusinessEvent
from db.transaction import Transaction


async def add_artifact_event(tx: Transaction, build: Build) -> None:
    """Add the event that a ready build has generated its product. A build has one: a repeat adds nothing."""
    await tx.session.execute(
        insert(BusinessEvent)
        .values(
            id=uuid.uuid4(),
            type="artifact_generated",
            project_id=build.project_id,
            build_id=build.id,
            data={"artifact": "mvp", "build_version": build.build_version, "user_id": build.user_id},
        )
        .on_conflict_do_nothing()
    )
