"""Exports that are written in the background. The row is committed first; then a workflow writes the file."""

import uuid
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import stored_exports
from db.erasures import find_erasure_of
from db.models import StoredExport
from db.projects import lock_project
from db.session import Access, Sessions
from db.transaction import Transaction, request_transaction, transaction
from db.users import require_user
from domain.audit import Action
from domain.errors import Conflict, KeyReused, NotFound
from domain.exports import ExportState, state_of
from services.audit import record

log = structlog.get_logger(__name__)

_YOUNG = timedelta(seconds=15)
"""Leave younger rows alone: the request that made them starts the workflow itself."""

_PERHAPS_GONE = timedelta(hours=1)
"""Start the workflow of an export again after this time. One that still runs is left alone."""


async def request_export(
    sessions: Sessions, workflows: BuildWorkflows, user_id: str, project_id: uuid.UUID | None, key: str | None
) -> StoredExport:
    """Have all that a project has, or without a project what is known of the user, written into the object store.

    If the same is being written already, or the request is a repeat, this returns that export.

    Args:
        key: the idempotency key.

    Raises:
        NotFound: there is no such project, or the user may not see it.
        Conflict: it is being deleted.
        KeyReused: the key was used for another request.
    """
    async with request_transaction(sessions) as tx:
        await require_user(tx, user_id)
        if project_id is not None and await lock_project(tx, user_id, project_id) is None:
            raise NotFound(f"There is no project {project_id}.")
        erasure = await find_erasure_of(tx, user_id, project_id)
        if erasure is not None and erasure.finished_at is None:
            what = "The account" if project_id is None else "The project"
            raise Conflict(f"{what} is being deleted, so it can't be exported any more.")
        requested_by = user_id if tx.author is None else tx.author.actor
        export = await stored_exports.insert_export(tx, user_id, project_id, requested_by, key)
        if export is None:
            export = await _earlier(tx, user_id, project_id, key)
        else:
            await record(tx, Action.EXPORT_CREATE, project_id=project_id, export_id=export.id)
    if export.stored_at is None and export.failed_at is None:
        await _start_or_leave_to_reaper(sessions, workflows, export.id)
    return export


async def _earlier(tx: Transaction, user_id: str, project_id: uuid.UUID | None, key: str | None) -> StoredExport:
    """The export that is there instead of a new one."""
    by_key = None if key is None else await stored_exports.find_export_by_key(tx, user_id, key)
    if by_key is not None and by_key.project_id != project_id:
        raise KeyReused(
            "This Idempotency-Key was used for another request. Use a new key for a new export.",
            {"export_id": str(by_key.id)},
        )
    found = by_key or await stored_exports.find_open_export(tx, user_id, project_id)
    if found is None:
        raise Conflict("An earlier export has ended just now. Ask for it again.")
    return found


async def require_export(tx: Transaction, user_id: str, export_id: uuid.UUID) -> StoredExport:
    """The export.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    export = await stored_exports.find_export(tx, export_id, user_id)
    if export is None:
        raise NotFound(f"There is no export {export_id}.")
    return export


def require_file(export: StoredExport) -> str:
    """The key of the export's file.

    Raises:
        Conflict: it is not written yet.
        NotFound: it was deleted, or could not be written.
    """
    state = export_state(export)
    if state is ExportState.EXPIRED:
        raise NotFound(f"The file of export {export.id} was deleted. Ask for a new export.")
    if state is ExportState.FAILED:
        raise NotFound(f"Export {export.id} has no file. {export.problem}")
    if export.object_key is None:
        raise Conflict(f"Export {export.id} is not written yet. Try again in a minute.")
    return export.object_key


def export_state(export: StoredExport) -> ExportState:
    """How far the export is."""
    return state_of(
        claimed=export.claim is not None,
        failed_at=export.failed_at,
        expires_at=export.expires_at,
        now=datetime.now(UTC),
    )


async def start_unstarted(sessions: Sessions, workflows: BuildWorkflows) -> int:
    """Start the workflows of exports that have none, because of a crash or a loss of Temporal's namespace. Returns how
    many exports it looked at."""
    now = datetime.now(UTC)
    async with transaction(sessions) as tx:
        unstarted = await stored_exports.exports_to_start(tx, now - _YOUNG, now - _PERHAPS_GONE)
    for export_id in unstarted:
        await _start(sessions, workflows, export_id)
    return len(unstarted)


async def _start_or_leave_to_reaper(sessions: Sessions, workflows: BuildWorkflows, export_id: uuid.UUID) -> None:
    try:
        await _start(sessions, workflows, export_id)
    except (RPCError, RuntimeError) as error:
        log.warning("the reaper will start the export", export_id=str(export_id), error=error)


async def _start(sessions: Sessions, workflows: BuildWorkflows, export_id: uuid.UUID) -> None:
    await workflows.start_export(export_id)
    async with request_transaction(sessions.acting(Access.everything())) as tx:
        await stored_exports.mark_started(tx, export_id)
