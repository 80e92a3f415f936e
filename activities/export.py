"""The steps of an export: its file, or why there is none. Each may run again."""

import contextlib
import uuid

from temporalio import activity

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from clients.object_store import ObjectStore
from db import stored_exports
from db.models import StoredExport
from db.session import Access, Sessions
from db.stored_exports import EXPORTS_PREFIX
from db.transaction import transaction
from domain.payloads import ExportFailure, ExportRef
from services.export import ExportFile, export_account, export_project


class ExportActivities:
    """`write_export`, and `fail_export` if that is impossible."""

    def __init__(self, sessions: Sessions, store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store

    @activity.defn
    @application_errors
    async def write_export(self, request: ExportRef) -> None:
        """Write the file and note it with its certificate. An attempt writes an object of its own, which is deleted if
        another one has taken over, or the export is not wanted any more."""
        export_id, claim = uuid.UUID(request.export_id), uuid.uuid4()
        async with heartbeating():
            async with transaction(self._sessions) as tx:
                export = await stored_exports.claim_export(tx, export_id, claim)
            if export is None:
                return
            await self._delete_objects(export_id)
            key = f"{EXPORTS_PREFIX}{export_id}/{claim}.zip"
            file = await self._open(export)
            async with contextlib.aclosing(file.content) as content:
                stored = await self._store.put_stream(key, content)
            written = stored_exports.WrittenExport(
                key, stored.bytes, stored.sha256, file.summary.counts, file.summary.manifest_sha256
            )
            async with transaction(self._sessions) as tx:
                is_noted = await stored_exports.store_export(tx, export_id, claim, written)
            if not is_noted:
                await self._store.delete_for_good([key])

    @activity.defn
    @application_errors
    async def fail_export(self, failure: ExportFailure) -> None:
        """Note that there will be no file."""
        async with transaction(self._sessions) as tx:
            await stored_exports.fail_exports(tx, [uuid.UUID(failure.export_id)], failure.problem)

    async def _open(self, export: StoredExport) -> ExportFile:
        """Begin the file, with what its user may see."""
        sessions = self._sessions.acting(Access(export.user_id))
        if export.project_id is None:
            return await export_account(sessions, export.user_id)
        return await export_project(sessions, self._store, export.user_id, export.project_id)

    async def _delete_objects(self, export_id: uuid.UUID) -> None:
        """Delete what earlier attempts have left."""
        prefix = f"{EXPORTS_PREFIX}{export_id}/"
        await self._store.abort_uploads(prefix)
        await self._store.delete_for_good(await self._store.keys(prefix))
