"""Lists or hashes the paths of a workspace that belong to a snapshot. Runs inside a sandbox, with only its python3.

    sandbox_manifest.py list ROOT NAME…   print the paths, each followed by a NUL, parents before children
    sandbox_manifest.py hash ROOT NAME…   print a JSON line per path: path, kind, mode, size, sha256, and true if git
                                          ignores it

Both leave out a path that is one of the NAMEs, or below one, if git ignores it. They list only files, links and
directories, and only readable ones: a snapshot can't keep what the agent has made unreadable. Links are never followed.
Bytes that are not UTF-8 become lone surrogates, escaped. The host parses the lines with `domain/manifest.py`.
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
    """The paths below the root that git ignores, as bytes; a directory includes all its content. Empty if there is not
    a repository.

    Writes nothing: refreshing the index here would make the workspace differ from its snapshot.
    """
    command = ["git", "-C", root, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    environment = dict(os.environ, GIT_OPTIONAL_LOCKS="0", GIT_CEILING_DIRECTORIES=os.path.dirname(root))
    try:
        listing = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=False
        )
    except OSError:
        return frozenset()
    if listing.returncode != 0:
        return frozenset()
    return frozenset(path.rstrip(b"/") for path in listing.stdout.split(b"\0") if path)


def walk(root: str, names: Sequence[str]) -> Iterator[tuple[bytes, os.stat_result, bool]]:
    """Yield (path, stat result, ignored) of each path in the snapshot, sorted, parents before children."""
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
                status = os.lstat(full)
            except OSError:
                continue
            is_file = stat.S_ISREG(status.st_mode) and os.access(full, os.R_OK)
            if is_file or stat.S_ISLNK(status.st_mode):
                yield path, status, is_ignored
            elif stat.S_ISDIR(status.st_mode) and os.access(full, os.R_OK | os.X_OK):
                yield path, status, is_ignored
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


def describe(root: str, path: bytes, status: os.stat_result, is_ignored: bool) -> str | None:
    """The JSON line of a path; None if the path is gone by now."""
    full = os.path.join(os.fsencode(root), path)
    mode = stat.S_IMODE(status.st_mode)
    try:
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(full)
            kind, mode, size, digest = "link", 0o777, len(target), hashlib.sha256(target).hexdigest()
        elif stat.S_ISDIR(status.st_mode):
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
    for path, status, is_ignored in walk(root, names):
        if action == "list":
            out.write(path + b"\0")
        elif line := describe(root, path, status, is_ignored):
            out.write(line.encode("ascii") + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
