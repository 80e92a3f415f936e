"""Request that a build's workspace is restored: commit the row first, then signal the build's workflow."""

import uuid

from clients.build_workflows import BuildWorkflows
from db import restores
from db.builds import find_snapshot
from db.models import Restore
from db.session import Sessions
from db.transaction import Transaction, request_transaction
from domain.audit import Action
from domain.errors import Conflict, KeyReused, NotFound, RestorePending, SnapshotNotStored
from domain.payloads import PendingInput
from services.audit import record
from services.builds import lock_build
from services.messages import require_accepts_messages
from services.notifications import notify_of_input


async def request_restore(
    sessions: Sessions,
    workflows: BuildWorkflows,
    user_id: str,
    build_id: uuid.UUID,
    *,
    snapshot: int | None,
    commit: str | None,
    idempotency_key: str | None,
) -> tuple[Restore, bool]:
    """Commit the request, then notify the build, which carries it out once, between two turns.

    Args:
        snapshot: the number of a kept snapshot, or None.
        commit: a commit that ended a phase, or its first digits; used if it is set.

    Returns:
        The restore, and whether it is new.

    Raises:
        NotFound, Conflict, DatabaseUnavailable: refused; nothing was stored.
    """
    async with request_transaction(sessions) as tx:
        build = await lock_build(tx, user_id, build_id)
        restore = None
        if idempotency_key is not None:
            restore = await restores.find_restore(tx, build.id, idempotency_key)
        is_new = restore is None
        if restore is None:
            require_accepts_messages(build)
            if commit is not None:
                commit = await _resolve_commit(tx, build.id, commit)
            else:
                await _require_stored(tx, build.id, snapshot or 0)
            await _require_none_pending(tx, build.id)
            restore = await restores.add_restore(
                tx, build.id, snapshot_number=snapshot, commit=commit, idempotency_key=idempotency_key
            )
            await record(
                tx,
                Action.BUILD_RESTORE,
                project_id=build.project_id,
                build_id=build.id,
                restore=restore.number,
                snapshot=snapshot,
            )
        elif not _has_target(restore, snapshot, commit):
            raise KeyReused("This Idempotency-Key was used for another restore. Use a new key.")
    if restore.state == "requested":
        await notify_of_input(sessions, workflows, build, PendingInput(restore=restore.number))
    return restore, is_new


def _has_target(restore: Restore, snapshot: int | None, commit: str | None) -> bool:
    if commit is not None and _is_same(restore.commit or "", commit):
        return True
    return snapshot is not None and restore.snapshot_number == snapshot


async def _require_none_pending(tx: Transaction, build_id: uuid.UUID) -> None:
    if pending := await restores.requested_restore(tx, build_id):
        raise RestorePending(
            f"The workspace is about to be restored to {restores.describe_target(pending)}, between two turns. Send "
            "your request after that.",
            {"number": pending.number},
        )


async def _require_stored(tx: Transaction, build_id: uuid.UUID, number: int) -> None:
    snapshot = await find_snapshot(tx, build_id, number)
    if snapshot is None:
        raise NotFound(f"Build {build_id} has no snapshot {number}.")
    if snapshot.state != "stored":
        why = "it was deleted" if snapshot.state == "deleted" else f"its state is `{snapshot.state}`"
        raise SnapshotNotStored(
            f"Snapshot {number} of build {build_id} can't be restored: {why}. Choose one from the list of snapshots.",
            {"state": snapshot.state},
        )


async def _resolve_commit(tx: Transaction, build_id: uuid.UUID, commit: str) -> str:
    """The commit as the build's rows have it, in the fewest digits that they use for it."""
    matches = [each for each in await restores.commits_of(tx, build_id) if _is_same(each, commit)]
    if not matches:
        raise NotFound(f"Build {build_id} has no phase that ended with commit {commit}.")
    shortest = min(matches, key=len)
    if not all(_is_same(each, shortest) for each in matches):
        raise Conflict(f"Several commits of build {build_id} begin with {commit}. Send more digits.")
    return shortest


def _is_same(one: str, other: str) -> bool:
    """Whether these are the same commit, each in full or by its first digits."""
    return bool(one and other) and (one.startswith(other.lower()) or other.lower().startswith(one))
