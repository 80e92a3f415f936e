"""One build of any user, with what its tables say of it, for operators."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from db.fleet_builds import FleetBuild, find_fleet_builds
from db.models import Build, Event, LedgerEntry, Permit, Snapshot
from db.transaction import Transaction

EVENTS = 50
"""The last events that are shown."""


@dataclass(frozen=True)
class LedgerSum:
    """The calls of one kind and state with a model, and their cost in µ$."""

    model: str
    kind: str
    state: str
    calls: int
    cost: int


@dataclass(frozen=True)
class WholeBuild:
    """A build's row and what belongs to it."""

    build: FleetBuild
    row: Build
    permit: Permit | None
    snapshots: Sequence[Snapshot]
    """Those that are not deleted, the newest first."""
    ledger: Sequence[LedgerSum]
    events: Sequence[Event]
    """The last ones, the newest first."""


async def read_whole_build(tx: Transaction, build_id: uuid.UUID) -> WholeBuild | None:
    """Read a build with what belongs to it; None if there is none."""
    found = await find_fleet_builds(tx, [build_id])
    row = await tx.session.get(Build, build_id)
    if not found or row is None:
        return None
    snapshots = await tx.session.scalars(
        select(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.state != "deleted")
        .order_by(Snapshot.number.desc())
    )
    sums = await tx.session.execute(
        select(
            LedgerEntry.model,
            LedgerEntry.kind,
            LedgerEntry.state,
            func.count(),
            func.coalesce(func.sum(LedgerEntry.cost), 0),
        )
        .where(LedgerEntry.build_id == build_id)
        .group_by(LedgerEntry.model, LedgerEntry.kind, LedgerEntry.state)
        .order_by(LedgerEntry.model, LedgerEntry.kind, LedgerEntry.state)
    )
    events = await tx.session.scalars(
        select(Event).where(Event.build_id == build_id).order_by(Event.id.desc()).limit(EVENTS)
    )
    return WholeBuild(
        build=found[0],
        row=row,
        permit=await tx.session.get(Permit, build_id),
        snapshots=snapshots.all(),
        ledger=[LedgerSum(model, kind, state, int(calls), int(cost)) for model, kind, state, calls, cost in sums],
        events=events.all(),
    )
