"""Runs inside a sandbox, with nothing but its python3: which paths of a workspace a snapshot holds, and their hashes.

    sandbox_manifest.py list ROOT NAME…   the paths, each ended by a NUL, parents before children
    sandbox_manifest.py hash ROOT NAME…   a JSON line each: path, kind, mode, size, sha256, true where git ignores it

Both leave out what is below one of the NAMEs and ignored by git. Only files, links and directories are listed, and
of these only what can be read: what the agent has made unreadable can't be kept. Links are never followed. Bytes that
are not UTF-8 stand as lone surrogates, escaped. The host parses the lines with `domain/manifest.py`.
"""

# Names are bytes here, which pathlib does not know.
# ruff: noqa: PTH115, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence

BLOCK = 1024 * 1024


def ignored_paths(root: str) -> frozenset[bytes]:
    """What git ignores below the root, as bytes; a directory stands for all that is in it. Empty without a repository.

    It writes nothing: an index that was refreshed here would make the workspace differ from its snapshot.
    """
    command = ["git", "-C", root, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    environment = dict(os.environ, GIT_OPTIONAL_LOCKS="0", GIT_CEILING_DIRECTORIES=os.path.dirname(root))
    try:
        listed = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=False
        )
    except OSError:
        return frozenset()
    if listed.returncode != 0:
        return frozenset()
    return frozenset(path.rstrip(b"/") for path in listed.stdout.split(b"\0") if path)


def walk(root: str, names: Sequence[str]) -> Iterator[tuple[bytes, os.stat_result, bool]]:
    """Yields (path, stat result, ignored) of what belongs to the snapshot, sorted, parents before children."""
    left_out = {os.fsencode(name) for name in names}
    ignored = ignored_paths(root)
    base = os.fsencode(root)

    def below(folder: bytes, in_ignored: bool, in_left_out: bool) -> Iterator[tuple[bytes, os.stat_result, bool]]:
        try:
            entries = sorted(os.listdir(os.path.join(base, folder) if folder else base))
        except OSError:
            return
        for name in entries:
            path = os.path.join(folder, name) if folder else name
            is_ignored = in_ignored or path in ignored
            is_left_out = in_left_out or name in left_out
            if is_ignored and is_left_out:
                continue
            full = os.path.join(base, path)
            try:
                found = os.lstat(full)
            except OSError:
                continue
            is_file = stat.S_ISREG(found.st_mode) and os.access(full, os.R_OK)
            if is_file or stat.S_ISLNK(found.st_mode):
                yield path, found, is_ignored
            elif stat.S_ISDIR(found.st_mode) and os.access(full, os.R_OK | os.X_OK):
                yield path, found, is_ignored
                yield from below(path, is_ignored, is_left_out)

    yield from below(b"", False, False)


def sha256_of(path: bytes) -> tuple[int, str]:
    """Size and hash of a file's content, read in blocks."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def describe(root: str, path: bytes, found: os.stat_result, is_ignored: bool) -> str | None:
    """The JSON line of a path; None when it is gone by now."""
    full = os.path.join(os.fsencode(root), path)
    mode = stat.S_IMODE(found.st_mode)
    try:
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(full)
            kind, mode, size, digest = "link", 0o777, len(target), hashlib.sha256(target).hexdigest()
        elif stat.S_ISDIR(found.st_mode):
            kind, size, digest = "dir", 0, ""
        else:
            kind = "file"
            size, digest = sha256_of(full)
    except OSError:
        return None
    name = path.decode("utf-8", "surrogateescape")
    return json.dumps([name, kind, mode, size, digest, *([True] if is_ignored else [])], separators=(",", ":"))


def main() -> None:
    action, root, *names = sys.argv[1:]
    out = sys.stdout.buffer
    for path, found, is_ignored in walk(root, names):
        if action == "list":
            out.write(path + b"\0")
        elif line := describe(root, path, found, is_ignored):
            out.write(line.encode("ascii") + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
