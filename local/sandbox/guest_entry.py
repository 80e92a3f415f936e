"""How pid 1 of a sandbox describes a file."""
# ruff: noqa: PTH116, PTH119
# Paths are what a client or a hostile program wrote; here they go to system calls as they are, pathlib would edit them.

from __future__ import annotations

import contextlib
import os
import stat

TYPE_CHECKING = False  # see guest.py
if TYPE_CHECKING:
    from typing import Any

METADATA_PREFIX = "user.e2b."

_ANONYMOUS = 0  # E2B's file types
_FILE = 1
_DIRECTORY = 2


def as_text(text: str) -> str:
    """Replace what is not UTF-8: file names may be any bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def entry_of(path: str, listed_as: str | None = None) -> dict[str, Any]:
    """One file as E2B describes it. A symlink has the type of its target, and a size of its own."""
    status = os.lstat(path)
    is_symlink = stat.S_ISLNK(status.st_mode)
    mode = status.st_mode
    metadata = {}
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
    with contextlib.suppress(OSError):
        for name in os.listxattr(path):
            if name.startswith(METADATA_PREFIX):
                value = os.getxattr(path, name).decode("utf-8", "replace")
                metadata[as_text(name[len(METADATA_PREFIX) :])] = value
    return {
        "name": as_text(os.path.basename(path)),
        "path": as_text(listed_as or path),
        "type": _DIRECTORY if stat.S_ISDIR(mode) else _FILE if stat.S_ISREG(mode) else _ANONYMOUS,
        "size": status.st_size,
        "mode": stat.S_IMODE(mode) & 0o777,
        "permissions": stat.filemode(status.st_mode),
        "mtime_ns": status.st_mtime_ns,
        "metadata": metadata,
        "symlink_target": as_text(os.path.realpath(path)) if is_symlink else None,
    }
