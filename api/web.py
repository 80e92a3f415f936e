"""The files of the web console, as `scripts/setup` builds them into web/dist."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from settings import Settings

_BESIDE_THE_PROGRAM = Path(__file__).parents[1] / "web" / "dist"
"""In a checkout and where the wheel is installed."""

_TEXT = frozenset({"application/json", "image/svg+xml", "text/css", "text/html", "text/javascript", "text/plain"})
"""Media types that become smaller when they are compressed."""

_SMALLEST_COMPRESSED = 1024
"""Bytes. Below that, compression saves nothing worth a header."""


@dataclass(frozen=True)
class BundleFile:
    """A file of the console."""

    content: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        """The hash of the content, as a header has it."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    @cached_property
    def compressed(self) -> bytes | None:
        """The content in gzip, made at the first request for it; None if it is better sent as it is."""
        if self.media_type not in _TEXT or len(self.content) < _SMALLEST_COMPRESSED:
            return None
        return gzip.compress(self.content, mtime=0)


@dataclass(frozen=True)
class Bundle:
    """All files of the console, in memory: a set-up that builds them again does not mix two versions in one process."""

    index: BundleFile
    """The page that every address of the console answers with."""
    files: Mapping[str, BundleFile]
    """All others, by their path."""


def read_bundle(settings: Settings) -> Bundle | None:
    """Read the console's files; None if it has not been built."""
    directory = Path(settings.web_dist) if settings.web_dist else _BESIDE_THE_PROGRAM
    files = {
        path.relative_to(directory).as_posix(): BundleFile(path.read_bytes(), _media_type(path))
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    index = files.pop("index.html", None)
    return None if index is None else Bundle(index, files)


def _media_type(path: Path) -> str:
    # Not what the machine's own tables say: they may have no type for scripts, or an old one.
    own = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
    return own.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
