"""A worker with more sandboxes than its HTTP client opens connections.

Over plain HTTP each session with a runner holds one of them; E2B's service takes a hundred streams on each.
"""

import asyncio
import os
import subprocess
import sys
import uuid

from clients.sandbox import Role, SandboxConfig, Sandboxes
from local.stack import LocalStack
from tests.harness.wait import DEADLINE

_CONNECTIONS = 4

_MANY = 7
"""Sandboxes, more than connections."""


async def _use_many() -> None:
    key, api_url, sandbox_url = sys.argv[1:]
    sandboxes = Sandboxes(SandboxConfig(key, api_url, sandbox_url, ttl_seconds=300))
    made = [await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE) for _ in range(_MANY)]

    async def echo(number: int, words: str) -> None:
        call = {"command": f"echo {words}; sleep 0.3; echo {number}"}
        outcome = await made[number].call(words, "bash", call, timeout_seconds=60)
        assert outcome.text == f"{words}\n{number}\n"

    for words in ("first", "second"):
        for number in range(_MANY):
            await echo(number, words)
    await asyncio.gather(*(echo(number, words) for number in range(_MANY) for words in ("third", "fourth")))
    for number in range(_MANY):
        await echo(number, "fifth")
    for each in made:
        await sandboxes.kill(each.id)
    await sandboxes.close()
    sys.stdout.write("all answered\n")
    sys.stdout.flush()


def test_more_sandboxes_than_connections(stack: LocalStack) -> None:
    found = stack.environment
    program = subprocess.run(
        [sys.executable, "-m", __name__, found["E2B_API_KEY"], found["E2B_API_URL"], found["E2B_SANDBOX_URL"]],
        env={**os.environ, "E2B_MAX_CONNECTIONS": str(_CONNECTIONS)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (program.stdout, program.returncode) == ("all answered\n", 0), program.stderr


if __name__ == "__main__":
    asyncio.run(_use_many())
    # Skip the interpreter's shutdown: native threads of SDKs sometimes abort it (sdk-python#300).
    os._exit(0)
