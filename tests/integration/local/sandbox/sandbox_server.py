"""Runs the local sandbox server as a process, for tests with the real SDK and with raw HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
from e2b import AsyncSandbox

from tests.harness.processes import survivors
from tests.harness.wait import DEADLINE

REPOSITORY = Path(__file__).parents[4]
API_KEY = "e2b_test"


class SandboxServer:
    """A running server. `options` make the SDK use it."""

    def __init__(self, root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.errors = root.parent / f"{root.name}.log"
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local.sandbox", "--root", str(root), "--api-key", API_KEY, *arguments],
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server did not start: {self.log()}"
        self.announced: dict[str, Any] = json.loads(line)
        self.url = str(self.announced["E2B_API_URL"])
        self.proxy_port = int(self.announced["proxy_port"])
        self.options: dict[str, Any] = {
            "api_key": API_KEY,
            "api_url": self.url,
            "sandbox_url": self.announced["E2B_SANDBOX_URL"],
        }

    def log(self) -> str:
        return self.errors.read_text()

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, DEADLINE)

    def client(self) -> httpx.AsyncClient:
        """An HTTP client with the API key."""
        return httpx.AsyncClient(base_url=self.url, headers={"X-API-KEY": API_KEY}, timeout=DEADLINE)


@contextlib.asynccontextmanager
async def sandbox_server(
    root: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[SandboxServer]:
    """Run a server while the block runs, and check that nothing is left of it afterwards.

    `environment` is added to that of this process.
    """
    server = await asyncio.to_thread(SandboxServer, root, *arguments, environment=environment)
    left = []
    try:
        yield server
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            left = server.descendants()
        if server.process.poll() is None:
            try:
                await server.end()
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()
        for process in await asyncio.to_thread(survivors, left):
            process.kill()


@contextlib.asynccontextmanager
async def new_sandbox(server: SandboxServer, **arguments: Any) -> AsyncIterator[AsyncSandbox]:
    """Create a sandbox, and kill it after the block."""
    sandbox = await AsyncSandbox.create(**{"timeout": 3600, **server.options, **arguments})
    try:
        yield sandbox
    finally:
        await AsyncSandbox.kill(sandbox.sandbox_id, **server.options)
