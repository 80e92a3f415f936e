"""Stores files as a build's snapshot, with archive and manifest, without a sandbox."""

import hashlib
import io
import tarfile
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func

from clients.archive import read_archive
from clients.object_store import ObjectStore
from db.models import Snapshot
from db.transaction import transaction
from domain.manifest import digest, render_manifest
from tests.harness.api_server import RunningApi

Member = tuple[str, bytes, dict[str, Any]]
"""A member of an archive: its name, content and further attributes of `TarInfo`."""


def make_archive(members: Sequence[Member]) -> bytes:
    """Return a tar.gz of these members, in this order. Surrogates in names are bytes that are not UTF-8."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for name, content, attributes in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


async def store_files(
    api: RunningApi, build_id: str, members: Sequence[Member], number: int = 1, **columns: Any
) -> None:
    """Store the members as the build's snapshot with this number. `columns`: of its row."""
    archive = make_archive(members)
    entries = read_archive(io.BytesIO(archive))
    manifest = render_manifest(entries)
    key = f"test/{build_id}/{number}"
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put(f"{key}.tar.gz", archive)
    await store.put(f"{key}.manifest.jsonl", manifest.encode("ascii"))
    row = await api.row(build_id)
    values = {
        "state": "stored",
        "reason": "phase",
        "archive_key": f"{key}.tar.gz",
        "manifest_key": f"{key}.manifest.jsonl",
        "archive_bytes": len(archive),
        "archive_sha256": hashlib.sha256(archive).hexdigest(),
        "manifest_sha256": digest(manifest),
        "files": len(entries),
        "stored_at": func.now(),
    }
    ids = {"id": uuid.uuid4(), "build_id": row.id, "project_id": row.project_id, "claim": uuid.uuid4()}
    async with transaction(api.sessions) as tx:
        tx.session.add(Snapshot(**ids, number=number, **{**values, **columns}))
