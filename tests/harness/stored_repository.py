"""Stores a git repository as a build's snapshot, without a sandbox."""

import hashlib
import io
import tarfile
import uuid
from pathlib import Path

from sqlalchemy import func

from clients.object_store import ObjectStore
from db.models import Snapshot
from db.transaction import transaction
from tests.harness.api_server import RunningApi
from tests.harness.git_server import git


def make_repository(path: Path, branch: str = "main") -> str:
    """Make a repository with one commit in a new directory, and return the commit."""
    path.mkdir()
    git("init", "-q", "-b", branch, ".", cwd=path)
    (path / "app.py").write_text("print('hello')\n")
    git("add", "-A", cwd=path)
    git("commit", "-qm", "Add the app", cwd=path)
    return git("rev-parse", "HEAD", cwd=path)


async def store_repository(api: RunningApi, build_id: str, repository: Path, number: int = 1) -> None:
    """Store the repository as the build's snapshot with this number."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(repository, arcname=".")
    key = f"test/{build_id}/{number}"
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put(key, packed.getvalue())
    row = await api.row(build_id)
    async with transaction(api.sessions) as tx:
        tx.session.add(
            Snapshot(
                id=uuid.uuid4(),
                build_id=row.id,
                project_id=row.project_id,
                number=number,
                state="stored",
                claim=uuid.uuid4(),
                reason="end",
                archive_key=key,
                manifest_key="m",
                archive_sha256=hashlib.sha256(packed.getvalue()).hexdigest(),
                manifest_sha256="unused",
                commit=git("rev-parse", "HEAD", cwd=repository),
                stored_at=func.now(),
            )
        )
