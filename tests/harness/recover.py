"""`cofounder recover` as an operator runs it: a process with the environment of the deployment."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


async def run_recover(environment: Mapping[str, str], *options: str) -> tuple[int, dict[str, Any], str]:
    """Run `cofounder recover`. Return its exit code, its result, and what it has printed for people."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "cofounder"),
        *("recover", "--json", *options),
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, json.loads(out) if out.strip() else {}, errors.decode()
