"""The versions of projects: their ready builds, with what people choose one by."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import aliased

from db.models import Build, GateRun, Preview, Project, Snapshot
from db.transaction import Transaction


@dataclass(frozen=True)
class Version:
    """A ready build, with its last evidence gate, its preview, its snapshot and the version that it began with."""

    build: Build
    gate: GateRun | None
    preview: Preview | None
    snapshot: Snapshot | None
    """The final one; None if nothing of it is stored."""
    start_version: int | None


_LAST_GATE = (
    select(func.max(GateRun.number))
    .where(GateRun.build_id == Build.id, GateRun.ended_at.is_not(None))
    .correlate(Build)
    .scalar_subquery()
)

_Kept = aliased(Snapshot)

_FINAL = (
    select(_Kept.number)
    .where(_Kept.build_id == Build.id, _Kept.state == "stored")
    .order_by(_Kept.final.desc(), _Kept.number.desc())
    .limit(1)
    .correlate(Build)
    .scalar_subquery()
)

_Start = aliased(Build)

_VERSIONS = (
    select(Build, GateRun, Preview, Snapshot, _Start.build_version)
    .outerjoin(GateRun, and_(GateRun.build_id == Build.id, GateRun.number == _LAST_GATE))
    .outerjoin(Preview, Preview.build_id == Build.id)
    .outerjoin(Snapshot, and_(Snapshot.build_id == Build.id, Snapshot.number == _FINAL))
    .outerjoin(_Start, _Start.id == Build.start_build_id)
    .where(Build.build_version.is_not(None))
)


async def list_versions(tx: Transaction, project_id: uuid.UUID, before: int | None, limit: int) -> list[Version]:
    """Return up to `limit` of the project's versions before the one with this number, the newest first."""
    query = _VERSIONS.where(Build.project_id == project_id)
    if before is not None:
        query = query.where(Build.build_version < before)
    return await _read(tx, query.order_by(Build.build_version.desc()).limit(limit))


async def latest_versions(tx: Transaction, project_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Version]:
    """Return the newest version of each of these projects that has one."""
    newest = _VERSIONS.join(
        Project, and_(Project.id == Build.project_id, Project.last_build_version == Build.build_version)
    ).where(Build.project_id.in_(project_ids))
    return {version.build.project_id: version for version in await _read(tx, newest)}


async def _read(tx: Transaction, query: Select[*tuple[Any, ...]]) -> list[Version]:
    return [Version(*row) for row in await tx.session.execute(query)]
