"""Migrate an empty, temporary PostgreSQL and check that the models need no further migration."""

import asyncio
import os
import sys
from pathlib import Path

from local.errors import StackError
from local.stack import LocalStack

_ROOT = Path(__file__).parents[1]
_STEPS = (("upgrade", "head"), ("check",))


async def main() -> int:
    """Run Alembic's steps. Return the exit code of the first that fails, and write its output to standard error."""
    async with LocalStack(parts={"postgres"}, durable=False) as stack:
        for step in _STEPS:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "alembic", *step),
                cwd=_ROOT,
                env={**os.environ, **stack.environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            if process.returncode:
                sys.stderr.write(f"alembic {' '.join(step)} failed:\n{output.decode(errors='replace')}")
                return process.returncode
    sys.stdout.write("The migrations match the models.\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except StackError as error:
        sys.exit(f"error: {error}")
