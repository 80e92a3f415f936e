"""Saves downloads to files, completely or not at all."""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

from domain.errors import Conflict, InvalidInput


def make_directory(directory: Path) -> None:
    """Make a directory for downloads, unless it exists.

    Raises:
        InvalidInput: it can't be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{directory} can't be made: {error.strerror}. Choose another with --to.") from error


def choose_target(output: Path | None, name: str, *, force: bool) -> Path:
    """Choose the file to write: `output`, or `name` if `output` is a directory or None.

    Raises:
        Conflict: the file exists and must not be replaced.
    """
    target = Path(name) if output is None else output / name if output.is_dir() else output
    _refuse_existing(target, force)
    return target


def _refuse_existing(target: Path, force: bool) -> None:
    if target.is_dir() or (not force and os.path.lexists(target)):
        raise Conflict(f"{target} already exists. Replace it with --force, or choose another file.")


async def save(pieces: AsyncIterable[bytes], target: Path, *, force: bool) -> dict[str, Any]:
    """Write the pieces to a temporary file beside the target, then rename it. Returns its size and SHA-256.

    Raises:
        InvalidInput: the target can't be written.
        Conflict: someone created the target meanwhile, and it must not be replaced.
    """
    digest, size = hashlib.sha256(), 0
    partial: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".cofounder-", suffix=".part", delete=False) as file:
            partial = Path(file.name)
            async for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        _refuse_existing(target, force)
        partial.chmod(0o666 & ~_umask())  # a temporary file is readable only by its owner
        partial.replace(target)
    except OSError as error:
        raise InvalidInput(f"{target} can't be written: {error.strerror}. Choose another file.") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
