"""The files of a stored snapshot: listed from its manifest, read from its archive, neither ever whole in memory."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from clients.archive import MANIFEST_MAX_BYTES
from clients.archive_member import read_member
from db.models import Snapshot
from domain.errors import NotFound, SnapshotFailed
from domain.manifest import Entry, parse_manifest
from domain.workspace_files import is_shown, shown_path
from services.stored_snapshots import ArchiveSource

_OF_GIT = b'[".git/'
"""How the manifest's lines of git's own files begin."""

_SIZE = re.compile(rb',([0-9]{1,18}),"[0-9a-f]*"\]$')
"""The size at the end of a manifest's line, which is read without parsing the line."""


@dataclass(frozen=True)
class FilesPage:
    """Some files of a snapshot, sorted by path. `next_after` is where the next page begins; None if none is left."""

    files: Sequence[Entry]
    next_after: int | None


@dataclass(frozen=True)
class FoundFile:
    """A file of a snapshot.

    `occurrence`: which one of the archive's members of this name it is, from 1. `unpacked_bytes`: what all files of the
    snapshot have together; at most so much is unpacked to find this one.
    """

    entry: Entry
    occurrence: int
    unpacked_bytes: int


async def list_files(store: ArchiveSource, snapshot: Snapshot, after: int, limit: int) -> FilesPage:
    """Return up to `limit` of the product's files; directories and git's own files are left out.

    Args:
        after: pass over this many lines of the manifest.

    Raises:
        NotFound: the manifest is not in the store any more.
        SnapshotFailed: it can't be read.
    """
    files: list[Entry] = []
    line_number = 0
    async with contextlib.aclosing(_lines(store, snapshot)) as blocks:
        async for lines in blocks:
            wanted = lines[max(0, after - line_number) :]
            line_number += len(lines) - len(wanted)
            for entry in await asyncio.to_thread(_shown_entries, wanted, limit - len(files) + 1):
                if entry is not None:
                    if len(files) == limit:
                        return FilesPage(files, line_number)
                    files.append(entry)
                line_number += 1
    return FilesPage(files, None)


async def find_file(store: ArchiveSource, snapshot: Snapshot, path: str) -> FoundFile:
    """Return the file that is shown under this path. Of several, it is the one that a restore of the snapshot leaves.

    Raises:
        NotFound: there is none, or the manifest is not in the store any more.
        SnapshotFailed: the manifest can't be read.
    """
    found: Entry | None = None
    occurrence = unpacked_bytes = 0
    async with contextlib.aclosing(_lines(store, snapshot)) as blocks:
        async for lines in blocks:
            unpacked_bytes += await asyncio.to_thread(_bytes_of, lines)
            for entry in await asyncio.to_thread(_shown_as, lines, path):
                if found is None or entry.path == found.path:
                    found, occurrence = entry, occurrence + 1
    if found is None:
        raise NotFound(
            f"Snapshot {snapshot.number} of build {snapshot.build_id} has no file of this path. `files` lists them."
        )
    return FoundFile(found, occurrence, unpacked_bytes)


async def read_file(
    store: ArchiveSource, snapshot: Snapshot, file: FoundFile, searches: asyncio.Semaphore
) -> AsyncGenerator[bytes, None]:
    """The content of a file, or the target of a link, in pieces.

    `searches`: held until the file is found in the archive, and not while a slow reader takes its content.

    Raises:
        NotFound: the archive is not in the store any more.
        Conflict: the file is too far inside of the archive.
        SnapshotFailed: the archive can't be read.
    """
    archive = _stored(store, snapshot, snapshot.archive_key)
    async with contextlib.aclosing(read_member(archive, file.entry.path, file.occurrence)) as pieces:
        async with searches:
            first = await anext(pieces, b"")
        yield first
        async for piece in pieces:
            yield piece


async def _lines(store: ArchiveSource, snapshot: Snapshot) -> AsyncGenerator[list[bytes], None]:
    """The lines of the manifest, in lists of about a megabyte."""
    rest, total = b"", 0
    async with contextlib.aclosing(_stored(store, snapshot, snapshot.manifest_key)) as pieces:
        async for piece in pieces:
            total += len(piece)
            if total > MANIFEST_MAX_BYTES:
                raise SnapshotFailed(f"The manifest of snapshot {snapshot.number} is too large to be read.")
            *lines, rest = (rest + piece).split(b"\n")
            if lines:
                yield lines


async def _stored(store: ArchiveSource, snapshot: Snapshot, key: str) -> AsyncGenerator[bytes, None]:
    try:
        async with contextlib.aclosing(store.stream(key)) as pieces:
            async for piece in pieces:
                yield piece
    except NotFound as error:
        raise NotFound(
            f"Snapshot {snapshot.number} of build {snapshot.build_id} is not in the object store any more."
        ) from error


def _shown_entries(lines: Sequence[bytes], most: int) -> list[Entry | None]:
    """The entry of each line, None for what is not shown; ends with the `most`-th that is shown."""
    entries: list[Entry | None] = []
    for line in lines:
        entry = None if line.startswith(_OF_GIT) else _shown_entry(line)
        entries.append(entry)
        most -= entry is not None
        if most == 0:
            break
    return entries


def _bytes_of(lines: Sequence[bytes]) -> int:
    """The size of all files in these lines."""
    return sum(int(said[1]) for said in map(_SIZE.search, lines) if said is not None)


def _shown_as(lines: Sequence[bytes], path: str) -> list[Entry]:
    """The entries that are shown under this path."""
    as_written = f"[{json.dumps(path)},".encode()
    is_changed = "\ufffd" in path
    entries = (_shown_entry(line) for line in lines if is_changed or line.startswith(as_written))
    return [entry for entry in entries if entry is not None and shown_path(entry.path) == path]


def _shown_entry(line: bytes) -> Entry | None:
    try:
        [entry] = parse_manifest(line.decode("ascii"))
    except ValueError as error:
        raise SnapshotFailed(f"A line of the manifest can't be read: {error}") from error
    return entry if is_shown(entry) else None
