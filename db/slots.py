"""Slots limit how many builds of a user run at once. A build holds one from `starting` to its end, even asleep."""

import uuid

from sqlalchemy import func, select, tuple_, update

from db.models import Build, PlanTier, User
from db.transaction import Transaction
from domain.payloads import SlotClaim


async def claim_slot(tx: Transaction, build_id: uuid.UUID) -> SlotClaim:
    """Take a slot if one is free for this build, under the lock on the user's row. First come, first served."""
    build = await tx.session.get_one(Build, build_id)
    free, running = await _free_slots(tx, build.user_id)
    await tx.session.refresh(build)
    if build.admitted_at is not None or build.closed_at is not None:
        return SlotClaim(claimed=True)
    ahead = await tx.session.scalar(
        select(func.count())
        .select_from(Build)
        .where(
            Build.user_id == build.user_id,
            Build.closed_at.is_(None),
            Build.admitted_at.is_(None),
            tuple_(Build.created_at, Build.id) < tuple_(build.created_at, build.id),
        )
    )
    if int(ahead or 0) >= free:
        return SlotClaim(claimed=False, running=running, ahead=int(ahead or 0))
    await tx.session.execute(update(Build).where(Build.id == build_id).values(admitted_at=func.now()))
    return SlotClaim(claimed=True)


async def builds_next_in_queue(tx: Transaction, user_id: str) -> list[uuid.UUID]:
    """Return the queued builds for which a slot is free now, oldest first."""
    free, _ = await _free_slots(tx, user_id)
    if free <= 0:
        return []
    builds = await tx.session.scalars(
        select(Build.id)
        .where(Build.user_id == user_id, Build.closed_at.is_(None), Build.admitted_at.is_(None))
        .order_by(Build.created_at, Build.id)
        .limit(free)
    )
    return list(builds)


async def _free_slots(tx: Transaction, user_id: str) -> tuple[int, int]:
    """Lock the user's row, and return how many slots are free and how many are taken."""
    await tx.session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
    running = (
        select(func.count())
        .select_from(Build)
        .where(Build.user_id == user_id, Build.closed_at.is_(None), Build.admitted_at.is_not(None))
        .scalar_subquery()
    )
    query = select(PlanTier.concurrent_builds, running).join(User, User.plan == PlanTier.name).where(User.id == user_id)
    slots, taken = (await tx.session.execute(query)).one()
    return slots - taken, taken
