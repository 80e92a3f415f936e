"""Checkouts of earlier versions, each with an environment of its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = ROOT / "tests" / "previous_version"

FIRST_VERSIONED = ROOT / "tests" / "first_versioned"
"""Names the first commit whose workers may have a version, for as long as the one in `previous_version` is older."""


@dataclass(frozen=True)
class Checkout:
    """The code of a version, and the Python that has its dependencies."""

    root: Path
    python: Path

    async def run(self, command: str, environment: Mapping[str, str]) -> None:
        """Run a command of `cofounder`, which must succeed."""
        process = await asyncio.create_subprocess_exec(
            *(self.python, "-c", "from cli.main import main; main()", command),
            cwd=self.root,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()


THIS_VERSION = Checkout(ROOT, Path(sys.executable))


def first_versioned() -> Checkout:
    """Return the first version whose workers may have a version. Raises as `previous_checkout` does."""
    root = previous_checkout(FIRST_VERSIONED)
    return Checkout(root, root / ".venv" / "bin" / "python")


def previous_checkout(named: Path = NAMED) -> Path:
    """Return the directory of the checkout of the commit that a file names. It is made once, under `.cofounder/`, and
    kept for the next run.

    Raises:
        AssertionError: this is a shallow clone or no clone at all, so the commit is not here.
    """
    commit = named.read_text().strip()
    target = ROOT / ".cofounder" / "previous" / commit
    if (target / ".venv" / "bin" / "python").exists():
        return target
    known = subprocess.run(["git", "-C", ROOT, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True)
    assert known.returncode == 0, (
        f"The previous version, {commit[:12]}, is not in this clone. Fetch the whole history (`git fetch --unshallow`, "
        "in a workflow `fetch-depth: 0`), then run the tests again."
    )
    target.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", target], input=archive, check=True)
    path = f"{ROOT / '.cofounder' / 'tools' / 'uv' / 'bin'}{os.pathsep}{os.environ['PATH']}"  # uv need not come again
    made = subprocess.run(
        [sys.executable, "scripts/setup"], cwd=target, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return target
