"""A checkout of the version that `tests/previous_version` names, with an environment of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = ROOT / "tests" / "previous_version"


def previous_checkout() -> Path:
    """Return the directory of the checkout. It is made once, under `.cofounder/`, and kept for the next run.

    Raises:
        AssertionError: this is a shallow clone or no clone at all, so the commit is not here.
    """
    commit = NAMED.read_text().strip()
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
    made = subprocess.run([sys.executable, "scripts/setup"], cwd=target, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return target
