"""Paths of the programs that wheels install."""

from importlib import metadata
from pathlib import Path

from local.errors import PartFailed


def of_distribution(distribution: str, program: str, part: str) -> Path:
    """Return the path of a program that a distribution installed.

    Raises `PartFailed`, which names `part`, if the program is missing.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate())).resolve()
        if path.name == program and path.is_file():
            return path
    raise PartFailed(part, f"{part}: the package {distribution} has no program {program}. Run: make setup")
