"""All that a project or an account has, as a zip that is made while it is sent: no table is ever whole in memory."""

import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from db.build_archives import find_archive
from db.export import PAGE, Key, builds_of_project, columns_of, key_of, read_page
from db.models import (
    ApiKey,
    Artifact,
    Base,
    Build,
    Certificate,
    Erasure,
    Event,
    FounderMessage,
    GateRun,
    LedgerEntry,
    Membership,
    Message,
    Project,
    Question,
    Restore,
    SignIn,
    Snapshot,
    StoredExport,
    ToolCall,
    Turn,
    UnderstandingSession,
    User,
    UserIdentity,
)
from db.projects import find_project
from db.session import Sessions
from db.snapshots import current_snapshot
from db.transaction import request_transaction
from db.users import require_user
from domain.errors import NotFound
from services.stored_snapshots import ArchiveSource

_OF_BUILDS: Mapping[str, type[Base]] = {
    "turns": Turn,
    "conversation": Message,
    "tool_calls": ToolCall,
    "questions": Question,
    "messages": FounderMessage,
    "restores": Restore,
    "checks": GateRun,
    "events": Event,
    "model_calls": LedgerEntry,
    "snapshots": Snapshot,
}
"""By name of the file, the table whose rows it has, in the order of their keys."""

_OF_PROJECTS: Mapping[str, type[Base]] = {
    "briefs": Artifact,
    "interviews": UnderstandingSession,
    "certificates": Certificate,
}
"""By name of the file, the table whose rows of a project it has."""

_OF_USERS: Mapping[str, type[Base]] = {
    "identities": UserIdentity,
    "organisations": Membership,
    "api_keys": ApiKey,
    "sign_ins": SignIn,
    "projects": Project,
    "model_calls": LedgerEntry,
    "erasures": Erasure,
    "certificates": Certificate,
    "exports": StoredExport,
}
"""By name of the file, the table whose rows of a user it has."""

_HIDDEN = frozenset(
    {
        *("claim", "run_id", "judge_claim", "judge_run_id", "counters", "nudged_at", "idempotency_key", "body_hash"),
        *(
            "object_key",
            "sandbox_id",
            "boot",
            "archive_key",
            "manifest_key",
            "request_id",
            "kept_at",
            "cost",
            "settings",
        ),
        *("known_secrets", "user_id", "secret_hash", "token_hash"),
    }
)
"""Columns with which the program works, and that say nothing of the project. Calls are exported in tokens."""

_JSON_TEXTS = frozenset({("messages", "content"), ("tool_calls", "result")})
"""Columns whose text is JSON: exported as that."""


@dataclass
class Summary:
    """What is in an export, complete once its content was read.

    - `counts`: builds, files, and rows by the name of their table.
    - `manifest_sha256`: of `manifest.json`.
    """

    counts: dict[str, int] = field(default_factory=dict)
    manifest_sha256: str = ""

    def add(self, name: str, count: int) -> None:
        """Count further things of a kind."""
        self.counts[name] = self.counts.get(name, 0) + count


@dataclass(frozen=True)
class ExportFile:
    """An export that is about to be written: a name for its file, its bytes, and what is in it."""

    file_name: str
    content: AsyncGenerator[bytes, None]
    summary: Summary


async def export_project(sessions: Sessions, store: ArchiveSource, user_id: str, project_id: uuid.UUID) -> ExportFile:
    """Begin the export of a project: its documents, and each build with its conversation, feed and last workspace.

    Raises:
        NotFound: there is no such project, or the user may not see it.
    """
    async with request_transaction(sessions) as tx:
        project = await find_project(tx, user_id, project_id)
        if project is None:
            raise NotFound(f"There is no project {project_id}.")
    name = f"project-{project_id}-{datetime.now(UTC):%Y%m%d}.zip"
    out = _Zip()
    return ExportFile(name, _write(sessions, store, project, out), out.summary)


async def export_account(sessions: Sessions, user_id: str) -> ExportFile:
    """Begin the export of an account: what is known of its user, and the tokens of all calls that they paid for.

    Raises:
        NotFound: there is no such user.
    """
    async with request_transaction(sessions) as tx:
        user = await require_user(tx, user_id)
    out = _Zip()
    name = f"account-{datetime.now(UTC):%Y%m%d}.zip"
    return ExportFile(name, _write_account(sessions, user, out), out.summary)


class _Zip:
    """A zip that is drained while it is written, with the hash of each file."""

    def __init__(self) -> None:
        self._buffer = _Drain()
        self._zip = zipfile.ZipFile(self._buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=3)
        self.hashes: dict[str, str] = {}
        self.summary = Summary()

    def add(self, name: str, content: bytes) -> bytes:
        """Write a file that is whole in memory, and return what the zip has become longer by."""
        with self.open(name) as file:
            begun = file.write(content)
        return begun + self.drain()

    def add_manifest(self, **of: str) -> bytes:
        """Write the list of the files with their hashes, and whose they are."""
        files = [{"path": path, "sha256": sha256} for path, sha256 in sorted(self.hashes.items())]
        manifest = {**of, "exported_at": datetime.now(UTC).isoformat(), "files": files}
        self.summary.add("files", len(files))
        content = json.dumps(manifest, indent=1).encode()
        self.summary.manifest_sha256 = hashlib.sha256(content).hexdigest()
        return self.add("manifest.json", content)

    def open(self, name: str, *, is_compressed: bool = False) -> "_File":
        """Begin a file. One at a time."""
        info = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
        info.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        return _File(self, name, info)

    def drain(self) -> bytes:
        """What was written since the last time."""
        return self._buffer.drain()

    def close(self) -> bytes:
        """Write the directory, and return the rest."""
        self._zip.close()
        return self.drain()


class _File:
    def __init__(self, owner: _Zip, name: str, info: zipfile.ZipInfo) -> None:
        self._owner, self._name, self._digest = owner, name, hashlib.sha256()
        self._file = owner._zip.open(info, "w", force_zip64=True)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._owner.hashes[self._name] = self._digest.hexdigest()

    def write(self, piece: bytes) -> bytes:
        """Write a piece, and return what the zip has become longer by."""
        self._digest.update(piece)
        self._file.write(piece)
        return self._owner.drain()


class _Drain(io.RawIOBase):
    """A file that can't be sought, so `zipfile` writes sizes after contents."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def drain(self) -> bytes:
        drained = b"".join(self._pieces)
        self._pieces.clear()
        return drained


async def _write_account(sessions: Sessions, user: User, out: _Zip) -> AsyncGenerator[bytes, None]:
    yield out.add("account.json", _document(user))
    for name, model in _OF_USERS.items():
        async with aclosing(_rows(sessions, out, f"{name}.jsonl", model, user_id=user.id)) as pieces:
            async for piece in pieces:
                yield piece
    yield out.add_manifest(user_id=user.id)
    yield out.close()


async def _write(sessions: Sessions, store: ArchiveSource, project: Project, out: _Zip) -> AsyncGenerator[bytes, None]:
    yield out.add("project.json", _document(project))
    for name, model in _OF_PROJECTS.items():
        async with aclosing(_rows(sessions, out, f"{name}.jsonl", model, project_id=project.id)) as pieces:
            async for piece in pieces:
                yield piece
    async with request_transaction(sessions) as tx:
        builds = await builds_of_project(tx, project.id)
    out.summary.add("builds", len(builds))
    for build in builds:
        folder = f"builds/{build.id}"
        yield out.add(f"{folder}/build.json", _document(build))
        for name, model in _OF_BUILDS.items():
            async with aclosing(_rows(sessions, out, f"{folder}/{name}.jsonl", model, build_id=build.id)) as pieces:
                async for piece in pieces:
                    yield piece
        async with aclosing(_objects(sessions, store, out, build)) as pieces:
            async for piece in pieces:
                yield piece
    yield out.add_manifest(project_id=str(project.id))
    yield out.close()


async def _rows(
    sessions: Sessions, out: _Zip, path: str, model: type[Base], **of: object
) -> AsyncGenerator[bytes, None]:
    """Write a table's rows as a line of JSON each, page by page."""
    with out.open(path) as file:
        last: Key | None = None
        while True:
            async with request_transaction(sessions) as tx:
                rows = await read_page(tx, model, of, last)
            out.summary.add(model.__tablename__, len(rows))
            yield file.write(b"".join(_document(row) + b"\n" for row in rows))
            if len(rows) < PAGE:
                break
            last = key_of(rows[-1])
    yield out.drain()


async def _objects(sessions: Sessions, store: ArchiveSource, out: _Zip, build: Build) -> AsyncGenerator[bytes, None]:
    """Write the archive of the build's last workspace, and that of its conversation if its rows were archived."""
    async with request_transaction(sessions) as tx:
        snapshot = await current_snapshot(tx, build.id)
        archive = await find_archive(tx, build.id)
    keys = {
        "workspace.tar.gz": None if snapshot is None else snapshot.archive_key,
        "archive.jsonl.gz": None if archive is None else archive.object_key,
    }
    for name, key in keys.items():
        if key is None:
            continue
        with out.open(f"builds/{build.id}/{name}", is_compressed=True) as file:
            async with aclosing(store.stream(key)) as content:
                async for piece in content:
                    yield file.write(piece)
        yield out.drain()


def _document(row: Base) -> bytes:
    """A row as JSON, without what only the program needs."""
    values = columns_of(row, _HIDDEN)
    for name, value in values.items():
        if (row.__tablename__, name) in _JSON_TEXTS and isinstance(value, str):
            values[name] = json.loads(value)
    return json.dumps(values, ensure_ascii=False).encode(errors="replace")
