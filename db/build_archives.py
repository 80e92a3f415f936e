"""Archives of closed builds' conversations: which are due, their rows, and deleting what an archive has."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, text

from db import certificates
from db.models import Base, Build, BuildArchive, Compaction, Event, Message, Prompt, ToolCall, Turn
from db.transaction import Transaction
from domain.certificates import CertificateKind, Statement

ARCHIVES_PREFIX = "archives/"

ARCHIVED: Mapping[str, type[Base]] = {
    table.__tablename__: table for table in (Prompt, Turn, Compaction, Message, ToolCall, Event)
}
"""The tables whose rows of a build an archive has, by name: the conversation and the feed. All else stays in rows."""


@dataclass(frozen=True)
class StoredArchive:
    """An archive that is in the store, verified.

    - `rows`: by table, how many it has.
    - `rule`: why the rows may go, for the certificate.
    """

    build_id: uuid.UUID
    object_key: str
    bytes: int
    sha256: str
    rows: Mapping[str, int]
    images: Sequence[str]
    manifest_sha256: str
    rule: str


async def builds_to_archive(
    tx: Transaction, closed_from: datetime | None, closed_before: datetime, limit: int
) -> list[tuple[uuid.UUID, datetime]]:
    """Return up to `limit` builds that closed in this time and have no archive, and when they closed; the oldest first.

    Without `closed_from` it reads every build that was ever archived.
    """
    query = (
        select(Build.id, Build.closed_at)
        .outerjoin(BuildArchive, BuildArchive.build_id == Build.id)
        .where(Build.closed_at < closed_before, BuildArchive.build_id.is_(None))
        .order_by(Build.closed_at)
        .limit(limit)
    )
    if closed_from is not None:
        query = query.where(Build.closed_at >= closed_from)
    rows = await tx.session.execute(query)
    return [(build_id, closed_at) for build_id, closed_at in rows if closed_at is not None]


async def find_archive(tx: Transaction, build_id: uuid.UUID) -> BuildArchive | None:
    """Return the archive of a build's conversation, if it has one."""
    return await tx.session.get(BuildArchive, build_id)


async def count_rows(tx: Transaction, build_id: uuid.UUID) -> dict[str, int]:
    """Count the build's rows of each table that is archived."""
    return {
        name: int(await tx.session.scalar(select(func.count()).select_from(table).filter_by(build_id=build_id)) or 0)
        for name, table in ARCHIVED.items()
    }


async def replace_rows(tx: Transaction, archive: StoredArchive) -> bool:
    """Note the archive, delete the rows that it has, and issue the certificate of that.

    Does nothing and returns False if they are not those rows, or the build is gone.
    """
    build = await tx.session.get(Build, archive.build_id, with_for_update=True)
    if build is None or await count_rows(tx, archive.build_id) != dict(archive.rows):
        return False
    tx.session.add(
        BuildArchive(
            build_id=archive.build_id,
            object_key=archive.object_key,
            bytes=archive.bytes,
            sha256=archive.sha256,
            rows=dict(archive.rows),
            images=list(archive.images),
        )
    )
    await tx.session.flush()
    await tx.session.execute(text("select set_config('cofounder.archive', :id, true)"), {"id": str(archive.build_id)})
    for table in ARCHIVED.values():
        await tx.session.execute(delete(table).filter_by(build_id=archive.build_id))
    statement = Statement(
        kind=CertificateKind.ARCHIVE,
        user_id=build.user_id,
        project_id=build.project_id,
        build_id=build.id,
        rule=archive.rule,
        counts={**archive.rows, "bytes": archive.bytes},
        file_sha256=archive.sha256,
        manifest_sha256=archive.manifest_sha256,
    )
    await certificates.issue(tx, uuid.uuid4(), statement)
    return True
