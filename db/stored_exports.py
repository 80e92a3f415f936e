"""Exports that are written in the background: their rows, and which of their files are due to be deleted."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from db import access, certificates
from db.models import Project, StoredExport
from db.transaction import Transaction
from domain.certificates import CertificateKind, Statement
from domain.exports import FILES_KEPT, KEPT

EXPORTS_PREFIX = "exports/"

_OVERLAP = timedelta(minutes=5)
"""An export that is requested this long after an erasure may have been read before that was committed."""


@dataclass(frozen=True)
class WrittenExport:
    """A file that is in the store.

    - `counts`: by kind of thing, how many it has.
    - `manifest_sha256`: of `manifest.json` in it.
    """

    object_key: str
    bytes: int
    sha256: str
    counts: Mapping[str, int]
    manifest_sha256: str


async def insert_export(
    tx: Transaction, user_id: str, project_id: uuid.UUID | None, requested_by: str, key: str | None
) -> StoredExport | None:
    """Insert an export of a project, or of the user's account; None if the same is being written, or the idempotency
    key is taken."""
    return await tx.session.scalar(
        insert(StoredExport)
        .values(id=uuid.uuid4(), user_id=user_id, project_id=project_id, requested_by=requested_by, idempotency_key=key)
        .on_conflict_do_nothing()
        .returning(StoredExport)
    )


async def find_export_by_key(tx: Transaction, user_id: str, key: str) -> StoredExport | None:
    """Return the export that the user's request with this key created, if the user may still see it."""
    query = select(StoredExport).where(StoredExport.idempotency_key == key, access.owned(StoredExport, user_id))
    return (await tx.session.scalars(query.where(StoredExport.user_id == user_id))).one_or_none()


async def find_open_export(tx: Transaction, user_id: str, project_id: uuid.UUID | None) -> StoredExport | None:
    """Return the user's export of the project, or of the account, that is not written yet."""
    of_project = StoredExport.project_id.is_(None) if project_id is None else StoredExport.project_id == project_id
    query = select(StoredExport).where(StoredExport.user_id == user_id, of_project, *_OPEN)
    return (await tx.session.scalars(query)).one_or_none()


async def find_export(tx: Transaction, export_id: uuid.UUID, user_id: str) -> StoredExport | None:
    """Return an export of the user's."""
    query = select(StoredExport).where(StoredExport.id == export_id, access.owned(StoredExport, user_id))
    return (await tx.session.scalars(query)).one_or_none()


async def list_exports(tx: Transaction, user_id: str, limit: int) -> list[StoredExport]:
    """Return the user's exports, the newest first."""
    query = select(StoredExport).where(access.owned(StoredExport, user_id))
    newest = query.order_by(StoredExport.requested_at.desc(), StoredExport.id.desc()).limit(limit)
    return list(await tx.session.scalars(newest))


async def exports_to_start(tx: Transaction, requested_before: datetime, started_before: datetime) -> list[uuid.UUID]:
    """Return exports without a file whose workflow is not known to have been started since they were requested; and
    those whose workflow was started so long ago that it may be gone."""
    is_new = StoredExport.started_at.is_(None) & (StoredExport.requested_at < requested_before)
    query = select(StoredExport.id).where(*_OPEN, is_new | (StoredExport.started_at < started_before))
    return list(await tx.session.scalars(query))


async def mark_started(tx: Transaction, export_id: uuid.UUID) -> None:
    """Note that the export's workflow was started, or runs."""
    started = update(StoredExport).where(StoredExport.id == export_id)
    await tx.session.execute(started.values(started_at=func.now()))


# ---- writing the file


async def claim_export(tx: Transaction, export_id: uuid.UUID, claim: uuid.UUID) -> StoredExport | None:
    """Take an export that is not written yet; None if it is, or was given up, or is gone. Earlier attempts lose it."""
    taken = update(StoredExport).where(StoredExport.id == export_id, *_OPEN).values(claim=claim)
    return await tx.session.scalar(taken.returning(StoredExport))


async def store_export(tx: Transaction, export_id: uuid.UUID, claim: uuid.UUID, written: WrittenExport) -> bool:
    """Note the file and issue the certificate. Does nothing and returns False if the claim was lost.

    Only the newest files of the user's exports of the same thing stay; the others expire now.
    """
    query = select(StoredExport).where(StoredExport.id == export_id, StoredExport.claim == claim, *_OPEN)
    export = (await tx.session.scalars(query.with_for_update())).one_or_none()
    if export is None:
        return False
    statement = Statement(
        kind=CertificateKind.EXPORT,
        user_id=export.user_id,
        project_id=export.project_id,
        build_id=None,
        rule=f"requested by {export.requested_by}",
        counts={**written.counts, "bytes": written.bytes},
        file_sha256=written.sha256,
        manifest_sha256=written.manifest_sha256,
    )
    certificate = await certificates.issue(tx, export.id, statement)
    export.stored_at = certificate.issued_at
    export.object_key, export.bytes, export.sha256 = written.object_key, written.bytes, written.sha256
    export.expires_at = certificate.issued_at + KEPT
    await tx.session.flush()
    same = (
        StoredExport.user_id == export.user_id,
        StoredExport.project_id.is_not_distinct_from(export.project_id),
        StoredExport.expires_at > certificate.issued_at,
    )
    kept = select(StoredExport.id).where(*same).order_by(StoredExport.stored_at.desc()).limit(FILES_KEPT)
    superseded = update(StoredExport).where(*same, StoredExport.id.not_in(kept))
    await tx.session.execute(superseded.values(expires_at=certificate.issued_at))
    return True


async def fail_exports(tx: Transaction, export_ids: Sequence[uuid.UUID], problem: str) -> None:
    """Give up those of the exports that are not written yet."""
    unwritten = update(StoredExport).where(StoredExport.id.in_(export_ids), *_OPEN)
    await tx.session.execute(unwritten.values(failed_at=func.now(), problem=problem))


# ---- deleting the files


async def expired_exports(tx: Transaction, now: datetime, limit: int) -> list[uuid.UUID]:
    """Return exports whose files are to be deleted, the oldest first."""
    query = select(StoredExport.id).where(StoredExport.expires_at <= now, StoredExport.deleted_at.is_(None))
    return list(await tx.session.scalars(query.order_by(StoredExport.expires_at).limit(limit)))


async def mark_deleted(tx: Transaction, export_id: uuid.UUID) -> None:
    """Note that the export's file was deleted."""
    await tx.session.execute(update(StoredExport).where(StoredExport.id == export_id).values(deleted_at=func.now()))


async def exports_with(
    tx: Transaction, projects: Sequence[uuid.UUID], user_id: str | None, requested_at: datetime
) -> list[StoredExport]:
    """Return the exports that have something of the projects, and all of the user's.

    An account's export has the rows of the projects that the user has made, until the erasure of a project is
    requested, at this time.
    """
    makers = select(Project.user_id).where(Project.id.in_(projects))
    of_makers = (StoredExport.project_id.is_(None), StoredExport.user_id.in_(makers))
    was_before = StoredExport.requested_at < requested_at + _OVERLAP
    condition = or_(
        StoredExport.project_id.in_(projects), StoredExport.user_id == user_id, and_(*of_makers, was_before)
    )
    return list(await tx.session.scalars(select(StoredExport).where(condition).order_by(StoredExport.id)))


async def unwritten_exports(tx: Transaction, export_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of the exports that have no file, because they are being written or were given up."""
    query = select(StoredExport.id).where(StoredExport.id.in_(export_ids), StoredExport.stored_at.is_(None))
    return list(await tx.session.scalars(query))


_OPEN = (StoredExport.stored_at.is_(None), StoredExport.failed_at.is_(None))
