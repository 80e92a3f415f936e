"""`cofounder demo` and `cofounder up` as processes of their own, with their output."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.harness.processes import processes_left_in
from tests.harness.wait import wait_until

_ROOT = Path(__file__).parents[2]

# Full speed: the rehearsal model speaks without pauses.
_PROGRAM = "import cli.main, cli.stack.programs as p; p._REHEARSAL_OPTIONS = (); cli.main.main()"


class Demo:
    """A demo in a process of its own, with its own working and temporary directories."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
        self.directory = directory
        self.process = process
        self._output = output
        self.text = ""

    async def until(self, words: str) -> None:
        """Read the output until it contains these words."""
        while words not in self.text:
            piece = await self._output.read(4096)
            assert piece, f"the demo ended before it said {words!r}:\n{self.text}"
            self.text += piece.decode(errors="replace")

    async def end(self) -> int:
        """Read the rest of the output, and return the exit code."""
        with suppress(OSError):  # a terminal reports this way that its other end is closed
            while piece := await self._output.read(4096):
                self.text += piece.decode(errors="replace")
        return await self.process.wait()

    @property
    def results(self) -> Path:
        """Return the directory in which the demo saved its results."""
        (found,) = (self.directory / ".cofounder" / "demo").iterdir()
        return found

    async def assert_nothing_is_left(self) -> None:
        """Check that no process names its directory, and that its temporary directory is empty."""
        assert not await asyncio.to_thread(processes_left_in, self.directory)
        await wait_until(lambda: not list((self.directory / "tmp").iterdir()))


@asynccontextmanager
async def demo(
    directory: Path,
    *,
    command: str = "demo",
    options: Sequence[str] = (),
    terminal: bool = False,
    **environment: str,
) -> AsyncIterator[Demo]:
    """Start a demo in a terminal or with a pipe, and kill it at the end if it still runs."""
    (directory / "tmp").mkdir(parents=True, exist_ok=True)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "TMPDIR": str(directory / "tmp"),
        "PYTHONPATH": str(_ROOT),
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "ANTHROPIC_API_KEY": "must not be used",
        "E2B_API_KEY": "must not be used",
        **environment,
    }
    theirs, ours = pty.openpty()[::-1] if terminal else os.pipe()[::-1]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-c", _PROGRAM, command, *options],
        env=variables,
        cwd=directory,
        stdin=theirs if terminal else asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    output = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), os.fdopen(ours, "rb", 0))
    try:
        yield Demo(directory, process, output)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        transport.close()
