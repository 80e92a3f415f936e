"""A run of tests leaves no process, port or file behind, even if it is interrupted or killed or several run at once.

pytest itself keeps the `tmp_path` directories of the last runs, for debugging failures.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.harness.processes import command_line, processes_left_in, survivors
from tests.harness.wait import wait_until

ROOT = Path(__file__).parents[3]

_TEST = """
import asyncio
import os
import signal
from pathlib import Path
from clients.sandbox import Role, SandboxConfig, Sandboxes

# Ignored where the tests run in a shell's background, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def test_with_everything(stack, tmp_path):
    found = stack.environment
    sandboxes = Sandboxes(SandboxConfig(found["E2B_API_KEY"], found["E2B_API_URL"], found["E2B_SANDBOX_URL"]))
    sandbox = await sandboxes.create("a-build", Role.WORKSPACE)
    await sandbox.run("setsid sleep 1000 > /dev/null 2>&1 & echo $!", timeout_seconds=300)
    Path("reached").touch()
    await asyncio.sleep(float(os.environ["HELD_SECONDS"]))
    await sandboxes.close()
"""


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory with a short name, as Unix sockets need one."""
    made = Path(tempfile.mkdtemp(prefix="cf-"))
    yield made
    shutil.rmtree(made)


class Session:
    """A run of pytest in a process group of its own, with its own working and temporary directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._temporary = directory / "tmp"
        self._descendants: list[psutil.Process] = []

    async def start(self, held_seconds: float) -> None:
        """Start a test that holds the whole stack and a sandbox for this many seconds."""
        self._temporary.mkdir(parents=True)
        (self.directory / "test_inner.py").write_text(_TEST)
        options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", *options, "--rootdir", str(self.directory), "test_inner.py"),
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(self._temporary),
                "HELD_SECONDS": str(held_seconds),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def until_held(self) -> None:
        """Wait until the test holds the stack and the sandbox."""
        reached = self.directory / "reached"
        await wait_until(lambda: reached.exists() or self.process.returncode is not None)
        assert reached.exists(), await self.end()
        # Processes in a sandbox do not name the directory.

        def sleeps() -> bool:
            self._descendants = psutil.Process(self.process.pid).children(recursive=True)
            return any(command_line(process) == ["sleep", "1000"] for process in self._descendants)

        await wait_until(sleeps)  # its shell may not have got there yet

    async def end(self) -> str:
        """Wait for the end, and return the output."""
        return (await self.process.communicate())[0].decode()

    async def assert_nothing_is_left(self) -> None:
        """Check that no process (so no port) of the run and no file except pytest's is left."""
        assert not await asyncio.to_thread(processes_left_in, self.directory)
        assert not await asyncio.to_thread(survivors, self._descendants)
        await wait_until(lambda: not self._files())

    def kill(self) -> None:
        """Kill what is left of the run."""
        with suppress(ProcessLookupError):
            self.process.kill()

    def _files(self) -> list[Path]:
        return [path for path in self._temporary.iterdir() if not path.name.startswith("pytest-of-")]


async def test_three_at_once_of_which_one_is_interrupted_and_one_killed(short_directory: Path) -> None:
    ended, interrupted, killed = (Session(short_directory / name) for name in ("ended", "interrupted", "killed"))
    try:
        await ended.start(held_seconds=0)
        for session in (interrupted, killed):
            await session.start(held_seconds=600)
        await interrupted.until_held()
        os.killpg(interrupted.process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        await killed.until_held()
        killed.kill()
        output = await ended.end()
        assert ended.process.returncode == 0, output
        await ended.assert_nothing_is_left()
        output = await interrupted.end()
        assert interrupted.process.returncode == 2, output
        await interrupted.assert_nothing_is_left()
        await killed.process.wait()
        await killed.assert_nothing_is_left()
    finally:
        for session in (ended, interrupted, killed):
            session.kill()
