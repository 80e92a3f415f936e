"""The benchmarks run, with small sizes. What they measure depends on the machine, so it is not asserted."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from bench.__main__ import NAMES

_ROOT = Path(__file__).parents[3]


@pytest.mark.thorough
async def test_benchmarks_run(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--small", "--json", str(figures)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    program = await asyncio.create_subprocess_exec(
        *command, cwd=_ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await program.communicate()
    assert program.returncode == 0, output.decode()
    measured = json.loads(figures.read_text())
    assert all(measured[name] for name in NAMES), "every benchmark has figures"
    assert {each["viewers"] for each in measured["viewers"]} == {1, 20}
