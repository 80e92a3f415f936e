"""What a snapshot's manifest says of each path, and how a workspace differs from it."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

LEFT_OUT = ("node_modules", ".next", "dist", "build", ".venv", "__pycache__")
"""Directories that a snapshot leaves out where git ignores them; `install` and `start` make them anew."""

DIFFERENCES_SHOWN = 20
"""So many differences are told by name; of the others only how many they are."""

_PATH_SHOWN = 200


class Kind(StrEnum):
    """What a path is. Sockets, pipes and devices are never archived."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "dir"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a workspace, relative to it.

    `mode` holds the permission bits; `size` is in bytes; `sha256` is the content's, or a link's target's. A directory
    has size 0 and no hash. Bytes of a path that are not UTF-8 stand as lone surrogates (`surrogateescape`).
    """

    path: str
    kind: Kind
    mode: int
    size: int
    sha256: str
    ignored: bool = False
    """git ignores it. Known only of files found in a workspace, not stored."""


def directory(path: str, mode: int) -> Entry:
    """A directory's entry."""
    return Entry(path, Kind.DIRECTORY, mode, 0, "")


def link(path: str, target: str) -> Entry:
    """A symbolic link's entry; where it leads to is not looked at."""
    raw = target.encode("utf-8", "surrogateescape")
    return Entry(path, Kind.LINK, 0o777, len(raw), hashlib.sha256(raw).hexdigest())


def render_manifest(entries: Iterable[Entry]) -> str:
    """The manifest as it is stored: one JSON line per path in the order of the paths, so that equal trees give equal
    text. ASCII, whatever the paths hold."""
    lines = (
        json.dumps([entry.path, entry.kind.value, entry.mode, entry.size, entry.sha256], separators=(",", ":"))
        for entry in sorted(entries, key=lambda entry: entry.path)
    )
    return "".join(line + "\n" for line in lines)


def parse_manifest(text: str) -> list[Entry]:
    """The entries of a manifest's text, stored or found.

    Raises:
        ValueError: it is not a manifest.
    """
    return [_entry(json.loads(line)) for line in text.splitlines()]


def _entry(values: object) -> Entry:
    match values:
        case [str(path), str(kind), int(mode), int(size), str(sha256), *rest]:
            return Entry(path, Kind(kind), mode, size, sha256, ignored=rest == [True])
    raise ValueError("a line of the manifest does not fit")


def digest(text: str) -> str:
    """SHA-256 of a manifest's text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def compare(stored: Iterable[Entry], found: Iterable[Entry]) -> list[str]:
    """How a workspace differs from its manifest, in short sentences for people and the agent; none when it doesn't.

    Directories that are there besides, and files that git ignores, are no difference: a workspace that was worked in
    has them, and they do no harm.
    """
    was = {entry.path: entry for entry in stored}
    now = {entry.path: entry for entry in found}
    differences = [said for path, entry in sorted(was.items()) if (said := _difference(entry, now.get(path)))]
    differences += [
        f"{shown(path)} was not there"
        for path, entry in sorted(now.items())
        if path not in was and not entry.ignored and entry.kind is not Kind.DIRECTORY
    ]
    return bounded(differences)


def _difference(was: Entry, now: Entry | None) -> str | None:
    if now is None:
        return f"{shown(was.path)} is missing"
    if now.kind is not was.kind:
        return f"{shown(was.path)} is a {now.kind}, not a {was.kind}"
    if (now.size, now.sha256) != (was.size, was.sha256):
        return f"{shown(was.path)} has other content"
    if now.mode != was.mode:
        return f"{shown(was.path)} has mode {now.mode:o}, not {was.mode:o}"
    return None


def bounded(differences: Sequence[str]) -> list[str]:
    """The first differences, and how many more there are."""
    if len(differences) <= DIFFERENCES_SHOWN:
        return list(differences)
    return [*differences[:DIFFERENCES_SHOWN], f"and {len(differences) - DIFFERENCES_SHOWN} more"]


def shown(path: str) -> str:
    """A path as it can be shown and stored as text: escaped where it isn't printable, and cut where it is long."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in path)
    return text if len(text) <= _PATH_SHOWN else text[: _PATH_SHOWN - 1] + "…"
