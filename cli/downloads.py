"""Files that are there whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

from domain.errors import Conflict, InvalidInput


def choose_target(wanted: Path | None, name: str, *, force: bool) -> Path:
    """The file to write: `wanted`, or `name` in the directory that `wanted` is, or in the current one.

    Raises:
        Conflict: it is there already, and not to be replaced.
    """
    target = Path(name) if wanted is None else wanted / name if wanted.is_dir() else wanted
    _refuse_existing(target, force)
    return target


def _refuse_existing(target: Path, force: bool) -> None:
    if target.is_dir() or (not force and os.path.lexists(target)):
        raise Conflict(f"{target} is there already. Give --force to replace it, or another file with --output.")


async def save(pieces: AsyncIterable[bytes], target: Path, *, force: bool) -> dict[str, Any]:
    """Write the pieces to a temporary file beside the target, then rename it; how many bytes, and their SHA-256.

    Raises:
        InvalidInput: it can't be written there.
        Conflict: the target came into being meanwhile, and is not to be replaced.
    """
    hashed, total = hashlib.sha256(), 0
    unfinished: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".cofounder-", suffix=".part", delete=False) as file:
            unfinished = Path(file.name)
            async for piece in pieces:
                file.write(piece)
                hashed.update(piece)
                total += len(piece)
        _refuse_existing(target, force)
        unfinished.chmod(0o666 & ~_umask())  # a temporary file is its owner's alone
        unfinished.replace(target)
    except OSError as error:
        raise InvalidInput(f"{target} can't be written: {error.strerror}. Choose another with --output.") from error
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
    return {"bytes": total, "sha256": hashed.hexdigest()}


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
