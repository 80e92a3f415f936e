"""All sandboxes of one server: created and looked up here, adopted from a dead server, ended with this one."""

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from local.sandbox.confinement import Confinement
from local.sandbox.egress import EgressProxy
from local.sandbox.errors import ApiError
from local.sandbox.oracle import Oracle
from local.sandbox.record import RECORD_FILE, SANDBOX_ID, SandboxRecord
from local.sandbox.sandbox import BootFailed, Sandbox, remove_tree

log = logging.getLogger(__name__)

AUTO_RESUME_SECONDS = 300
"""Let a sandbox that traffic has resumed run at least this long, as in E2B."""


class TooManySandboxes(Exception):
    """The limit is reached. The message says what to do."""


class TooManyRunning(Exception):
    """As many sandboxes run at once as may. The message is E2B's."""


class RootInUse(Exception):
    """Another server uses this directory."""


class Registry:
    """`<root>/sandboxes/<id>/` is a sandbox: its record, log, home and /tmp. One server at a time uses a root."""

    def __init__(
        self,
        confinement: Confinement,
        egress: EgressProxy | None,
        max_sandboxes: int,
        oracle: Oracle | None = None,
        max_running: int | None = None,
    ) -> None:
        self.sandboxes: dict[str, Sandbox] = {}
        self._confinement = confinement
        self._egress = egress
        self._max_sandboxes = max_sandboxes
        self._oracle = oracle
        self._max_running = max_running
        self._directory = confinement.root / "sandboxes"
        self._starting = 0
        self._starting_to_run = 0
        self._by_key: dict[str, asyncio.Future[Sandbox]] = {}
        self._lock: int | None = None

    async def open(self) -> None:
        """Adopt the sandboxes of an earlier server: paused, with only their files. Raises `RootInUse`."""
        self._confinement.prepare()
        self._lock = os.open(self._confinement.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RootInUse(f"another sandbox server is using {self._confinement.root}") from error
        self._confinement.compile_guest()
        self._directory.mkdir(exist_ok=True)
        self._directory.chmod(0o711)
        for directory in sorted(self._directory.iterdir()):
            if not SANDBOX_ID.fullmatch(directory.name) or not directory.is_dir():
                continue
            if not (directory / RECORD_FILE).exists():
                log.warning("removing %s: it was not completely created, or not completely removed", directory)
                if self._oracle is not None:
                    self._oracle.keep(directory.name, directory)
                await remove_tree(directory)
                continue
            try:
                record = SandboxRecord.load(directory)
            except (OSError, ValueError) as error:
                log.error("leaving %s alone: its record can't be read: %s", directory, error)
                continue
            sandbox = self._make(record, directory)
            self.sandboxes[sandbox.id] = sandbox
            if record.idempotency_key:
                self._by_key[record.idempotency_key] = self._completed(sandbox)
            sandbox.adopt()
        if self.sandboxes:
            log.info("adopted %d sandboxes, paused", len(self.sandboxes))

    async def close(self) -> None:
        """End the processes of every sandbox. Files stay for the next server."""
        await asyncio.gather(*(sandbox.stop() for sandbox in self.sandboxes.values()))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def note_call(self, sandbox_id: str, method: str, path: str) -> None:
        """Log a call of the control plane, if fault tests want to know."""
        if self._oracle is not None:
            self._oracle.asked(sandbox_id, method, path)

    async def create(self, record: SandboxRecord) -> Sandbox:
        """Create a running sandbox. If its idempotency key was used before, return that sandbox as long as it exists.

        Raises `BootFailed`, `TooManySandboxes`, `TooManyRunning`, `ApiError` (409) if the key was used for a different
        request.
        """
        idempotency_key = record.idempotency_key
        if idempotency_key is None:
            return await self._start(record)
        if first := self._by_key.get(idempotency_key):
            sandbox = await asyncio.shield(first)
            if sandbox.record.request_hash != record.request_hash:
                raise ApiError(
                    409,
                    "this idempotency key was used for a different request",
                    error_code="idempotency_request_mismatch",
                )
            return sandbox
        creation: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._by_key[idempotency_key] = creation
        try:
            sandbox = await self._start(record)
        except BaseException as error:
            del self._by_key[idempotency_key]
            creation.set_exception(error if isinstance(error, Exception) else BootFailed("cancelled"))
            creation.exception()  # mark it as retrieved: there may be no other caller that waits
            raise
        creation.set_result(sandbox)
        return sandbox

    async def resume(self, sandbox: Sandbox, *, memory: bool) -> bool:
        """Run a sandbox again; False: it is running. Raises `TooManyRunning`, `BootFailed` and `GuestLost`."""
        if sandbox.running:
            return False
        self._check_running()
        self._starting_to_run += 1
        try:
            return await sandbox.resume(memory=memory)
        finally:
            self._starting_to_run -= 1

    async def resume_for_traffic(self, sandbox: Sandbox) -> None:
        """Run a paused sandbox again because of a request to it, if it was created that way. Raises as `resume`."""
        if sandbox.record.auto_resume and await self.resume(sandbox, memory=True):
            sandbox.set_timeout(max(AUTO_RESUME_SECONDS, sandbox.record.timeout))

    def _check_running(self) -> None:
        running = sum(sandbox.running for sandbox in self.sandboxes.values()) + self._starting_to_run
        limit = self._oracle.max_running() if self._oracle and self._max_running is None else self._max_running
        if limit is not None and running >= limit:
            raise TooManyRunning(
                f"you have reached the maximum number of concurrent E2B sandboxes ({limit}). If you need"
                " more, please contact us at https://e2b.dev/docs/support"
            )

    async def _start(self, record: SandboxRecord) -> Sandbox:
        if len(self.sandboxes) + self._starting >= self._max_sandboxes:
            raise TooManySandboxes(
                f"there are {self._max_sandboxes} sandboxes already, paused ones included; kill some,"
                " or start the local sandbox server with a larger --max-sandboxes"
            )
        self._check_running()
        directory = self._directory / record.id
        sandbox = self._make(record, directory)
        self._starting += 1
        self._starting_to_run += 1
        try:
            directory.mkdir()
            record.save(directory)
            await sandbox.start()
            self.sandboxes[sandbox.id] = sandbox
        except BaseException:
            await remove_tree(directory)
            raise
        finally:
            self._starting -= 1
            self._starting_to_run -= 1
        return sandbox

    def _make(self, record: SandboxRecord, directory: Path) -> Sandbox:
        return Sandbox(record, directory, self._confinement, self._egress, self._forget, self._oracle)

    def _forget(self, sandbox: Sandbox) -> None:
        self.sandboxes.pop(sandbox.id, None)
        if key := sandbox.record.idempotency_key:
            self._by_key.pop(key, None)

    @staticmethod
    def _completed(sandbox: Sandbox) -> asyncio.Future[Sandbox]:
        future: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        future.set_result(sandbox)
        return future
