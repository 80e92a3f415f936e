"""Restore a build's workspace to a snapshot or commit that its founder chose, between two turns."""

import shlex
import uuid

from temporalio import activity

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.runtime.workspace_lock import lock_workspace
from activities.sandbox.product import GIT, SMALL_SECONDS, stop_processes
from activities.sandbox.snapshot_store import CHANGES, restore_snapshot
from clients.object_store import ObjectStore
from clients.sandbox import Sandbox, Sandboxes
from clients.sandbox_runner import WORKSPACE
from clients.workspace_lock import WorkspaceLock
from db.models import Restore
from db.restores import describe_target, end_restore, load_restore, snapshot_at
from db.session import Sessions
from db.snapshots import snapshot_of
from db.transaction import transaction
from domain.payloads import FinishRestore, RestoredWorkspace, RestoreWorkspace

_INCOMPLETE = "The workspace was being restored to {target}, and that did not finish."
"""Kept in the sandbox meanwhile: no snapshot is taken, and resuming the sandbox restores the current snapshot first."""


class RestoreActivities:
    """The activities `restore_workspace` and `finish_restore`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store

    @activity.defn
    @application_errors
    async def restore_workspace(self, request: RestoreWorkspace) -> RestoredWorkspace:
        """Restore the workspace to the target of the restore's row, and verify it.

        Another attempt does all of it again, with the same result: the agent does not work meanwhile. A stale attempt
        that comes back after that no longer holds the lock on the workspace.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            SandboxGone: the workspace has to be restored elsewhere first.
            StaleClaim: a later attempt holds the lock.
            NeedsPerson: the store refuses.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating():
            async with transaction(self._sessions) as tx:
                restore = await load_restore(tx, build_id, request.number)
                commit = restore.commit
                if commit is None:
                    snapshot = await snapshot_of(tx, build_id, restore.snapshot_number or 0)
                else:
                    snapshot = await snapshot_at(tx, build_id, commit)
            if restore.state != "requested":
                return RestoredWorkspace(done=restore.state == "done")
            sandbox = await self._sandboxes.connect(request.sandbox_id)
            lock = await lock_workspace(sandbox)
            if commit is not None and await _has_commit(sandbox, commit):
                snapshot = None
            elif snapshot is None:
                why = "It was deleted." if commit is None else "Neither its git nor a kept snapshot has that commit."
                return await self._give_up(restore, why)
            changes = shlex.quote(f'["{_INCOMPLETE.format(target=describe_target(restore))}"]')
            await lock.run(f"printf %s {changes} >{CHANGES}")
            await stop_processes(lock)
            if snapshot is not None:
                await restore_snapshot(self._store, sandbox, snapshot, lock)
            if commit is not None:
                await _reset(lock, commit)
            await lock.run(f"rm -f {CHANGES}")
            return RestoredWorkspace(done=True)

    @activity.defn
    @application_errors
    async def finish_restore(self, request: FinishRestore) -> None:
        """Record that the restore is done and stored."""
        async with transaction(self._sessions) as tx:
            await end_restore(
                tx,
                uuid.UUID(request.build_id),
                request.number,
                kept_as=request.snapshot_before,
                stored_as=request.snapshot_after,
            )

    async def _give_up(self, restore: Restore, why: str) -> RestoredWorkspace:
        """Record that the restore is impossible. Nothing was changed."""
        error = f"The workspace stays as it is: it could not be restored to {describe_target(restore)}. {why}"
        async with transaction(self._sessions) as tx:
            await end_restore(tx, restore.build_id, restore.number, error=error)
        return RestoredWorkspace(done=False)


async def _has_commit(sandbox: Sandbox, commit: str) -> bool:
    command = f"{GIT} cat-file -e {commit}^{{commit}}"
    return (await sandbox.run(command, timeout_seconds=SMALL_SECONDS, cwd="/")).exit_code == 0


async def _reset(lock: WorkspaceLock, commit: str) -> None:
    """Set HEAD and all files to the commit; only ignored files stay.

    Build a new index first: flags in the old one (skip-worktree, assume-unchanged) would keep files as they are. Remove
    untracked files twice, because removing a .gitignore changes what is ignored.
    """
    await lock.run(f"""
set -e
cd {WORKSPACE}
rm -rf .git/index .git/index.lock .git/rebase-merge .git/rebase-apply
{GIT} read-tree HEAD || true
{GIT} reset --quiet --hard {commit}
{GIT} clean --quiet -ffd
{GIT} clean --quiet -ffd
[ "$({GIT} rev-parse HEAD)" = "$({GIT} rev-parse '{commit}^{{commit}}')" ]
[ -z "$({GIT} status --porcelain=v1)" ]
""")
