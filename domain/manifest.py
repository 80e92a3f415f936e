"""Snapshot manifests: one entry for each path, and a comparison with a workspace."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

LEFT_OUT = (
    *("node_modules", ".next", "dist", "build", ".venv", "__pycache__"),
    *("venv", ".angular", ".astro", ".gradle", ".nuxt", ".output", ".svelte-kit"),
    *(".mypy_cache", ".parcel-cache", ".pytest_cache", ".ruff_cache", ".turbo"),
)
"""Directories that a snapshot leaves out if git ignores them; `install` and `start` create them again."""

DIFFERENCES_SHOWN = 20
"""At most this many differences are listed; the others are only counted."""

_PATH_SHOWN = 200


class Kind(StrEnum):
    """The type of a path. Sockets, pipes and devices are never archived."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "dir"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a workspace, relative to it.

    `mode` holds the permission bits; `size` is in bytes; `sha256` is the content's, or a link's target's. A directory
    has size 0 and no hash. Bytes of a path that are not UTF-8 become lone surrogates (`surrogateescape`).
    """

    path: str
    kind: Kind
    mode: int
    size: int
    sha256: str
    ignored: bool = False
    """Whether git ignores it. Known only for files of a workspace; not stored."""


def directory(path: str, mode: int) -> Entry:
    """Return a directory's entry."""
    return Entry(path, Kind.DIRECTORY, mode, 0, "")


def link(path: str, target: str) -> Entry:
    """Return a symbolic link's entry. The link is not followed."""
    raw = target.encode("utf-8", "surrogateescape")
    return Entry(path, Kind.LINK, 0o777, len(raw), hashlib.sha256(raw).hexdigest())


def render_manifest(entries: Iterable[Entry]) -> str:
    """Render the manifest as it is stored: ASCII, one JSON line for each path, sorted by path.

    Equal trees have equal manifests.
    """
    lines = (
        json.dumps([entry.path, entry.kind.value, entry.mode, entry.size, entry.sha256], separators=(",", ":"))
        for entry in sorted(entries, key=lambda entry: entry.path)
    )
    return "".join(line + "\n" for line in lines)


def parse_manifest(text: str) -> list[Entry]:
    """Parse the entries of a manifest, of a snapshot or of a workspace.

    Raises:
        ValueError: it is not a manifest.
    """
    return [_entry(json.loads(line)) for line in text.splitlines()]


def _entry(values: object) -> Entry:
    match values:
        case [str(path), str(kind), int(mode), int(size), str(sha256), *rest]:
            return Entry(path, Kind(kind), mode, size, sha256, ignored=rest == [True])
    raise ValueError("a line of the manifest is not valid")


def digest(text: str) -> str:
    """Return the SHA-256 of a manifest's text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def compare(stored: Iterable[Entry], actual: Iterable[Entry]) -> list[str]:
    """Return how a workspace differs from its manifest, in short sentences for people and the agent.

    Additional directories, and additional files that git ignores, do not count: work in the workspace leaves them
    behind, and they do no harm.
    """
    was = {entry.path: entry for entry in stored}
    now = {entry.path: entry for entry in actual}
    # Only what differs is sorted: sorting a million paths would stop every other thread for seconds.
    changed = [(path, text) for path, entry in was.items() if (text := _difference(entry, now.get(path)))]
    added = [
        (path, f"{printable(path)} was not there")
        for path, entry in now.items()
        if path not in was and not entry.ignored and entry.kind is not Kind.DIRECTORY
    ]
    return bounded([text for _, text in (*sorted(changed), *sorted(added))])


def _difference(was: Entry, now: Entry | None) -> str | None:
    if now is None:
        return f"{printable(was.path)} is missing"
    if now.kind is not was.kind:
        return f"{printable(was.path)} is a {now.kind}, not a {was.kind}"
    if (now.size, now.sha256) != (was.size, was.sha256):
        return f"{printable(was.path)} has other content"
    if now.mode != was.mode:
        return f"{printable(was.path)} has mode {now.mode:o}, not {was.mode:o}"
    return None


def bounded(differences: Sequence[str]) -> list[str]:
    """Keep the first differences, and count the others."""
    if len(differences) <= DIFFERENCES_SHOWN:
        return list(differences)
    return [*differences[:DIFFERENCES_SHOWN], f"and {len(differences) - DIFFERENCES_SHOWN} more"]


def printable(path: str) -> str:
    """Make a path fit to be displayed and stored as text: escape unprintable characters, and cut a long path."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in path)
    return text if len(text) <= _PATH_SHOWN else text[: _PATH_SHOWN - 1] + "…"
