"""Choose the snapshot with which a build begins. It is frozen in the build's row."""

import uuid

from db import builds, formats
from db.builds import Start
from db.models import Build, Snapshot
from db.projects import is_archived
from db.snapshots import final_snapshot, last_product, snapshot_of
from db.transaction import Transaction
from domain.errors import Conflict, NotFound, OpenBuildExists, ProjectArchived, SnapshotNotStored

CHOSEN_START = 33
"""The version of the schema from which on workers begin with the snapshot that a build's row names."""


async def choose_start(
    tx: Transaction, user_id: str, project_id: uuid.UUID, start_from: Start | None
) -> Snapshot | None:
    """The snapshot with which a new build of the project begins; None for an empty workspace.

    Args:
        start_from: what the founder has chosen; None for the project's last version.

    Raises:
        NotFound: the project has no such build.
        OpenBuildExists: that build has not ended.
        SnapshotNotStored: the snapshot is not kept.
        Conflict: workers of an earlier version run, which would begin with something else.
    """
    if start_from is None:
        return await last_product(tx, project_id)
    source = await builds.find_build(tx, user_id, start_from.build_id)
    if source is None or source.project_id != project_id:
        raise NotFound(f"Project {project_id} has no build {start_from.build_id}.")
    if source.closed_at is None:
        raise open_build_exists(source)
    if await formats.runs_older_worker(tx, CHOSEN_START):
        raise Conflict(
            "A worker of an earlier version still runs, and it would begin with the last version. No build was "
            "started. Try again when the update is complete."
        )
    if start_from.number is None:
        snapshot = await final_snapshot(tx, source.id)
    else:
        snapshot = await snapshot_of(tx, source.id, start_from.number)
    if snapshot is None:
        raise await _not_kept(tx, source, start_from.number)
    return snapshot


async def check_new_build(tx: Transaction, build: Build) -> None:
    """Check what may have changed until the build's row was inserted, which waits for such changes.

    Raises:
        ProjectArchived: its project is archived.
        SnapshotNotStored: the snapshot with which it begins was deleted.
    """
    if await is_archived(tx, build.project_id):
        raise ProjectArchived(
            f"Project {build.project_id} is archived, so no build was started. Un-archive it first.",
            {"project_id": str(build.project_id)},
        )
    if build.start_build_id is None or build.start_snapshot is None:
        return
    snapshot = await snapshot_of(tx, build.start_build_id, build.start_snapshot)
    if snapshot is None:
        raise await _not_kept(tx, await builds.load_build(tx, build.start_build_id), build.start_snapshot)


def open_build_exists(build: Build) -> OpenBuildExists:
    """The error if a project has an open build, and another should be started."""
    return OpenBuildExists(
        f"Build {build.id} of this project is {build.status}. Wait for it or cancel it before you start another.",
        {"build_id": str(build.id)},
    )


async def _not_kept(tx: Transaction, source: Build, number: int | None) -> SnapshotNotStored:
    kept = sorted(row.number for row in await builds.list_snapshots(tx, source.id))
    details = {"build_id": str(source.id), "kept": kept}
    if not kept:
        return SnapshotNotStored(
            f"Build {source.id} has no snapshot: it ended before any work was saved. Choose another build, or start "
            "from nothing.",
            details,
        )
    listed = ", ".join(map(str, kept))
    return SnapshotNotStored(f"Snapshot {number} of build {source.id} is not kept. Those kept: {listed}.", details)
