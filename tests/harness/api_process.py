"""The API as a process of its own behind the fault proxies, to kill and to replace, and a client that tries again."""

import asyncio
import signal
import sys
import uuid
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2

from local.ports import Ports
from local.postgres import api_database_url
from tests.harness.faults import SECRET, FaultHarness, Front
from tests.harness.planted import PLANTED_KEY
from tests.harness.wait import DEADLINE

_TRY_AGAIN_SECONDS = 0.5
_STOP_SECONDS = 15.0
_STATUS_OF_FAULTS = frozenset({429, 500, 502, 503, 504})


class ApiProcess:
    """`python -m api` on a port that stays the same, whichever process serves it. `name` is that of its log."""

    def __init__(self, faults: FaultHarness, front: Front, task_queue: str, name: str = "api") -> None:
        self._ports = Ports()
        self._port = self._ports.choose(set())
        self.url = f"http://127.0.0.1:{self._port}"
        """Its address for browsers, without a path."""
        environment = faults.process_environment(front)
        self._environment = {
            **environment,
            "PUBLIC_URL": self.url,
            "DATABASE_URL": api_database_url(environment["DATABASE_URL"]),
            "API_TOKEN": f"{SECRET}-of-founders",
            "API_OPERATOR_TOKEN": SECRET,  # an operator acts for the users
            "SECRETS_KEY": PLANTED_KEY,
            "TEMPORAL_TASK_QUEUE": task_queue,
        }
        self.log: Path = faults.directory / f"{name}.log"
        self._process: Process | None = None
        self._http = httpx2.AsyncClient(
            base_url=f"{self.url}/v1",
            headers={"Authorization": f"Bearer {SECRET}"},
            timeout=30,
            trust_env=False,
        )

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    async def launch(self) -> None:
        """Start the process without waiting until it serves."""
        arguments = ("-m", "api", "--port", str(self._port))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, env=self._environment, stdout=log, stderr=log
            )

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process, and wait until it is gone. It is killed if the signal does not end it soon."""
        if self._process is None:
            return
        self.send(number)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()

    async def follow(self, path: str, user: str) -> None:
        """Follow a live feed until it ends. It is opened again when it breaks off."""
        headers = {"X-Cofounder-User": user, "Accept": "text/event-stream"}
        while True:
            with suppress(httpx2.TransportError):
                async with self._http.stream("GET", path, headers=headers, timeout=None) as stream:
                    if stream.status_code not in _STATUS_OF_FAULTS:
                        async for _ in stream.aiter_raw():
                            pass
                        return
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def end(self) -> None:
        """End the process, and close the client."""
        await self._http.aclose()
        await self.stop()
        self._ports.release()

    async def ask(self, method: str, path: str, user: str | None, body: Any = None) -> httpx2.Response:
        """Send a request until it is answered, with the same Idempotency-Key each time.

        Args:
            user: for whom; None for an operator's own request.

        Returns:
            The answer, which may be a refusal of the client's own doing, such as a conflict.

        Raises:
            TimeoutError: no answer came in time.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"X-Cofounder-User": user} if user is not None else {})
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(httpx2.TransportError):
                    answer = await self._http.request(method, path, json=body, headers=headers)
                    if answer.status_code not in _STATUS_OF_FAULTS:
                        return answer
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
