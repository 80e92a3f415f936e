"""Where the servers that come as wheels have their programs."""

from importlib import metadata
from pathlib import Path

from local.errors import PartFailed


def of_distribution(distribution: str, program: str, part: str) -> Path:
    """Return the path of a program that a distribution installed among its scripts.

    Raises `PartFailed` when it is not there.
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
