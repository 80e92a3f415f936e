"""What commits have changed in a workspace, file by file: read from git's output, cut to a bounded size."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from domain.workspace_files import shown_path

PATCH_MOST = 512 * 1024
"""Keep at most this many bytes of all patches of a diff together."""

FILE_PATCH_MOST = 100_000
"""Keep at most this many bytes of the patch of one file, so that a lock file does not take the place of the others."""

FILES_MOST = 2_000
"""List at most this many changed files; the others are only counted."""

READ_MOST = 8 * 1024 * 1024
"""Read at most this many bytes of git's output."""

_STATUSES = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "C": "copied", "T": "type_changed"}
_RAW = re.compile(rb":\d+ \d+ [0-9a-f.]+ [0-9a-f.]+ ([A-Z])\d*")
_COUNTS = re.compile(rb"(\d+|-)\t(\d+|-)\t(.*)", re.S)
_HUNK = re.compile(rb"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)\n", re.M)
_SECTION = b"diff --git "


class FileDiff(BaseModel):
    """A changed file. `patch` is None if it is binary or left out; `truncated`: it goes on, or is left out."""

    model_config = ConfigDict(frozen=True)

    path: str
    old_path: str | None = None
    status: str
    additions: int = 0
    deletions: int = 0
    binary: bool = False
    patch: str | None = None
    truncated: bool = False


class WorkspaceDiff(BaseModel):
    """The changes from one commit to another; `base` is None if everything counts as new.

    `files`, `additions` and `deletions` count all changes; `changes` may list fewer files.
    """

    model_config = ConfigDict(frozen=True)

    base: str | None
    commit: str
    files: int
    additions: int
    deletions: int
    changes: tuple[FileDiff, ...]

    @property
    def truncated(self) -> bool:
        """Whether a file is missing, or a part of a patch."""
        return len(self.changes) < self.files or any(change.truncated for change in self.changes)


class StoredDiff(BaseModel):
    """The diff of a phase as it is stored. `build`: from the build's beginning; None if that is the same."""

    phase: WorkspaceDiff
    build: WorkspaceDiff | None = None


@dataclass(frozen=True)
class GitDiff:
    """git's output for a diff: `--raw --numstat -z`, and `--patch`, which may be cut."""

    base: str | None
    commit: str
    listing: bytes
    patch: bytes


def read_diff(git: GitDiff) -> WorkspaceDiff:
    """Read git's output.

    Raises:
        ValueError: it is not what git prints.
    """
    listed = list(_listed(git.listing))
    changes = []
    left = PATCH_MOST
    sections = _sections(git.patch)
    for at, file in enumerate(listed):
        # git shows a file that becomes a link, or the other way round, as deleted and added.
        parts = [next(sections, None) for _ in range(2 if file.status == "type_changed" else 1)]
        if at >= FILES_MOST:
            break
        change = _with_patch(file, parts, left)
        left -= len((change.patch or "").encode())
        changes.append(change)
    return WorkspaceDiff(
        base=git.base,
        commit=git.commit,
        files=len(listed),
        additions=sum(file.additions for file in listed),
        deletions=sum(file.deletions for file in listed),
        changes=tuple(changes),
    )


def _listed(listing: bytes) -> Iterator[FileDiff]:
    """The files, from the records of `--raw -z`, which those of `--numstat -z` follow in the same order."""
    fields = listing.split(b"\0")
    if fields.pop():
        raise ValueError("git's list of changed files is cut")
    statuses: list[tuple[str, Sequence[bytes]]] = []
    at = 0
    while at < len(fields) and fields[at].startswith(b":"):
        raw = _RAW.fullmatch(fields[at])
        if raw is None:
            raise ValueError("git's list of changed files can't be read")
        status = _STATUSES.get(raw[1].decode(), "modified")
        paths = fields[at + 1 : at + (3 if status in ("renamed", "copied") else 2)]
        statuses.append((status, paths))
        at += 1 + len(paths)
    for status, named in statuses:
        counts = _COUNTS.fullmatch(fields[at]) if at < len(fields) else None
        if counts is None:
            raise ValueError("git's counts of changed lines can't be read")
        at += 1 if counts[3] else 3  # a renamed file has its two paths in fields of their own
        binary = counts[1] == b"-"
        yield FileDiff(
            path=_path(named[-1]),
            old_path=_path(named[0]) if len(named) == 2 else None,
            status=status,
            additions=0 if binary else int(counts[1]),
            deletions=0 if binary else int(counts[2]),
            binary=binary,
        )
    if at != len(fields):
        raise ValueError("git's list of changed files does not fit its counts")


def _path(raw: bytes) -> str:
    return shown_path(raw.decode("utf-8", "surrogateescape"))


def _sections(patch: bytes) -> Iterator[bytes]:
    """The parts of a patch, one for each file. In each, only the first line begins with `diff --git`."""
    start = 0
    while start < len(patch):
        end = patch.find(b"\n" + _SECTION, start)
        end = len(patch) if end < 0 else end + 1
        yield patch[start:end]
        start = end


def _with_patch(file: FileDiff, parts: Sequence[bytes | None], left: int) -> FileDiff:
    if file.binary:
        return file
    known = [part for part in parts if part is not None]
    whole = b"".join(known)
    room = min(FILE_PATCH_MOST, left)
    complete = len(known) == len(parts) and whole.endswith(b"\n") and len(whole) <= room
    if not complete:
        whole = _cut(whole, max(room, 0))
    text = whole.decode("utf-8", "replace")
    return file.model_copy(update={"patch": text or None, "truncated": not complete})


def _cut(patch: bytes, room: int) -> bytes:
    """The beginning of a patch as a valid patch: its last hunk says how many lines it has left."""
    kept = patch[: patch.rfind(b"\n", 0, room) + 1]
    headers = list(_HUNK.finditer(kept))
    if not headers:
        return b""
    last = headers[-1]
    lines = kept[last.end() :].split(b"\n")
    old = sum(line[:1] in (b" ", b"-") for line in lines)
    new = sum(line[:1] in (b" ", b"+") for line in lines)
    if not old and not new:
        return kept[: last.start()] if len(headers) > 1 else b""
    header = b"@@ -%s,%d +%s,%d @@%s\n" % (last[1], old, last[2], new, last[3])
    return kept[: last.start()] + header + kept[last.end() :]
