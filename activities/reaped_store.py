"""The reaper's look at the object store: tombstones for what ended builds leave, and deleting what is due."""

import uuid
from datetime import UTC, datetime, timedelta

from activities.sandbox.phase_diffs import sweep_diffs
from activities.sandbox.snapshot_store import sweep_snapshots
from clients.object_store import ObjectStore
from db import money, reaper, stored_exports
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX
from db.stored_exports import EXPORTS_PREFIX
from db.tombstones import is_prefix, lock_due, spare
from db.transaction import transaction
from domain.exports import KEPT
from domain.payloads import ReapResult
from domain.verdicts import may_delete_object
from services.build_archives import archive_build, due_builds
from services.generation import count_generation
from services.reap.deletions import STEP, evidence_of
from services.reap.look import Budget, attempt, log

_ABANDONED = timedelta(hours=2)
"""Abort uploads older than this. A snapshot takes a quarter of an hour at most, so no one finishes them."""

_SWEEPS = (
    ("store, at once", timedelta(0)),
    ("store, later", timedelta(minutes=30)),
    ("store, a day later", timedelta(hours=25)),
)
"""Sweep up after a build when it has ended, again when a hung attempt of its last snapshot has ended too, and once more
when all of its objects are `_OLD`: those that have lost their row with the database are spared before."""

_GIVEN_UP = timedelta(hours=6)
"""Go on to the next builds if the store has not let a sweep succeed for this long."""

_OLD = timedelta(days=1)
"""Only an object older than this may be superfluous without a row of its number."""

_BATCH = 200
"""Objects deleted, or builds read, in one transaction."""


class StoreReaper:
    """Deletes objects by tombstone only, and only as long as the database is no older than the store."""

    def __init__(self, sessions: Sessions, store: ObjectStore, conversation_days: int | None = None) -> None:
        self._sessions = sessions
        self._store = store
        self._conversation_days = conversation_days

    async def look(self, budget: Budget) -> ReapResult:
        """Sweep up once.

        Raises:
            CofounderError: the store does not answer.
        """
        is_trusted = await self._check_generation()
        uploads = await self._store.abort_uploads(SNAPSHOTS_PREFIX, before=datetime.now(UTC) - _ABANDONED)
        for step, delay in _SWEEPS:
            await self._sweep_ended(step, delay, budget, is_trusted=is_trusted)
        await self._store.abort_uploads(EXPORTS_PREFIX, before=datetime.now(UTC) - _OLD)
        if is_trusted:
            await self._archive_old(budget)  # before what the store may refuse for good, by a lock of its objects
            await self._delete_exports(budget)
        objects = await self._delete_due(budget, is_trusted=is_trusted)
        return ReapResult(uploads=uploads, objects=objects)

    async def _check_generation(self) -> bool:
        """Whether the rows are the latest, so that what they do not name may go."""
        is_trusted = await count_generation(self._sessions, self._store)
        alert = (
            "The database is older than the object store: it was put back to an earlier state. No object is deleted. "
            "Run `cofounder recover --after-restore`."
        )
        if not is_trusted:
            log.error(alert)
        async with transaction(self._sessions) as tx:
            await reaper.record_alert(tx, STEP, None if is_trusted else alert)
        return is_trusted

    async def _archive_old(self, budget: Budget) -> None:
        """Archive the conversations of builds that have long ended, the oldest first."""
        if self._conversation_days is None:
            return
        for build_id in await due_builds(self._sessions, self._conversation_days, _BATCH):
            if budget.is_spent:
                return
            archived = archive_build(self._sessions, self._store, build_id, self._conversation_days)
            await attempt("archive a conversation", build_id, archived)

    async def _delete_exports(self, budget: Budget) -> None:
        """Delete the files of exports that have expired, and what attempts that lost their claim have left of them."""
        now = datetime.now(UTC)
        async with transaction(self._sessions) as tx:
            expired = await stored_exports.expired_exports(tx, now, _BATCH)
        for export_id in expired:
            if budget.is_spent:
                return
            await attempt("delete an export", export_id, self._delete_export(export_id))
        listed = await self._store.objects(EXPORTS_PREFIX)
        if old := [each.key for each in listed if each.written_at < now - KEPT - _OLD]:
            await self._store.delete_for_good(old)

    async def _delete_export(self, export_id: uuid.UUID) -> bool:
        await self._store.delete_for_good(await self._store.keys(f"{EXPORTS_PREFIX}{export_id}/"))
        async with transaction(self._sessions) as tx:
            await stored_exports.mark_deleted(tx, export_id)
        return True

    async def _sweep_ended(self, step: str, delay: timedelta, budget: Budget, *, is_trusted: bool) -> None:
        """Write tombstones for what killed attempts of builds that ended `delay` ago have left, once for each build."""
        now = datetime.now(UTC)
        async with transaction(self._sessions) as tx:
            after = await reaper.read_cursor(tx, step)
            after = max(after or now - _GIVEN_UP - delay, now - _GIVEN_UP - delay)
            ended = await reaper.builds_closed_between(tx, after, now - delay, _BATCH)
        for build_id, closed_at in ended:
            if budget.is_spent:
                return
            sweep = self._sweep(build_id, now - _OLD if is_trusted else None)
            if not await attempt("sweep up after a build", build_id, sweep):
                return
            async with transaction(self._sessions) as tx:
                await reaper.move_cursor(tx, step, closed_at)

    async def _sweep(self, build_id: uuid.UUID, unnumbered_before: datetime | None) -> bool:
        """Also mark the open calls of the build as estimated, in case it was terminated just before it did so itself.

        While a call is open, its user's other builds wait for it instead of sleeping.
        """
        async with transaction(self._sessions) as tx:
            await money.estimate_all_of(tx, build_id)
        await sweep_snapshots(self._sessions, self._store, build_id, unnumbered_before)
        await sweep_diffs(self._sessions, self._store, build_id, unnumbered_before)
        return True

    async def _delete_due(self, budget: Budget, *, is_trusted: bool) -> int:
        """Delete the objects whose tombstones are due, with all versions of them. A row that names one of them again
        waits for this and loses."""
        deleted = 0
        while is_trusted and not budget.is_spent:
            async with transaction(self._sessions) as tx:
                due = await lock_due(tx, _BATCH, datetime.now(UTC))
                keys = [each.key for each in due if may_delete_object(evidence_of(each), is_due=True)]
                objects = [each for each in keys if not is_prefix(each)]
                await self._store.delete_for_good(objects)
                late = [await self._delete_below(each) for each in keys if is_prefix(each)]
                await spare(tx, [each.key for each in due])
            deleted += len(objects) + sum(late)
            if len(due) < _BATCH:
                break
        return deleted

    async def _delete_below(self, prefix: str) -> int:
        """Delete what was written for an erased build after its erasure; return how many versions."""
        await self._store.abort_uploads(prefix)
        versions = await self._store.versions(prefix)
        await self._store.delete_versions(versions)
        return len(versions)
