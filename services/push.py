"""Push the git history of a build's snapshot to a git server of the founder's choice.

All of it happens while the founder's request waits, so that the token is stored nowhere. The history is bundled in a
sandbox of its own, because the workspace's `.git` is the agent's. The bundle alone is brought out and pushed from here.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from clients.archive import unpack
from clients.bundle import bring_out, make_bundle
from clients.cancellation import run_to_completion, wait_for_answer
from clients.dns import Resolve, resolve
from clients.git import Credentials, GitDirectory, git_directory
from clients.sandbox import Role, Sandbox, Sandboxes
from db.builds import find_snapshot
from db.feed import append_events
from db.models import Snapshot
from db.session import Access, Sessions
from db.snapshots import current_snapshot
from db.transaction import request_transaction
from domain.errors import (
    Conflict,
    InvalidInput,
    Misconfigured,
    NeedsPerson,
    NoPermit,
    NoSandboxNow,
    NotFound,
    PushFailed,
    SandboxFull,
    SandboxGone,
    SandboxUnavailable,
    SnapshotFailed,
    SnapshotNotStored,
)
from domain.events import PushedEvent
from domain.identity import Right
from domain.push import GitTarget, PushFailure, check_addresses, check_branch, parse_target
from services.builds import require_build
from services.permits import Permits
from services.stored_snapshots import ArchiveSource, send_snapshot

_CLEANUP = timedelta(minutes=2)
"""The permit of a push lasts this much longer than the push may take."""

AT_ONCE = 8
"""Pushes that one process runs at the same time: each may need twice PUSH_MAX_MEGABYTES of its disk."""

_TRY_AGAIN_SECONDS = 30

_STOPPING = "The API is being restarted, so the push was ended. Push again in a minute."

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PushPolicy:
    """What the operator allows: seconds for a push, bytes of a history, and hosts with private addresses."""

    seconds: float
    max_bytes: int
    private_hosts: Sequence[str] = ()


@dataclass(frozen=True)
class PushRequest:
    """What a founder asks for. `branch` and `snapshot` are None for the current ones."""

    url: str
    credentials: Credentials
    branch: str | None = None
    snapshot: int | None = None


@dataclass(frozen=True)
class Pushed:
    """What is on the server now. `is_new`: False if the branch was there already."""

    repository: str
    branch: str
    commit: str
    snapshot: int
    is_new: bool


class Pushes:
    """Pushes the code of builds. `sandboxes`: None if this process has no access to the sandbox service."""

    def __init__(
        self,
        sessions: Sessions,
        store: ArchiveSource,
        sandboxes: Sandboxes | None,
        permits: Permits,
        policy: PushPolicy,
        resolve: Resolve = resolve,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._sandboxes = sandboxes
        self._permits = permits
        self._policy = policy
        self._resolve = resolve
        self._running: dict[uuid.UUID, asyncio.Task[Any] | None] = {}
        self._is_stopping = False

    def end(self) -> None:
        """End the pushes that run, and begin no more: the process stops. Their founders are told to push again."""
        self._is_stopping = True
        for task in self._running.values():
            if task is not None:
                task.cancel()

    async def push(self, user_id: str, build_id: uuid.UUID, request: PushRequest) -> Pushed:
        """Push the history of a stored snapshot, and say so in the build's feed. Overwrites nothing on the server.

        Ends everything that it has started if it is cancelled, such as when the founder's client goes away.

        Raises:
            NotFound, SnapshotNotStored: there is nothing to push.
            InvalidInput: the URL or the branch is not accepted.
            PushFailed: the server did not take it; says why.
            Conflict: another push of the build runs.
            DependencyUnavailable, StoreUnavailable: try again.
        """
        snapshot = await self._find_snapshot(user_id, build_id, request.snapshot)
        if request.branch is not None:
            check_branch(request.branch)
        target = parse_target(request.url, request.credentials.token)
        addresses = await self._allowed_addresses(target)
        if self._sandboxes is None:
            raise NoSandboxNow(
                "This API has no access to the sandbox service, so it can't push. Ask the operator to set E2B_API_KEY "
                "for the API as well, or download the code."
            )
        try:
            async with self._one_of_few(build_id), asyncio.timeout(self._policy.seconds):
                pushed = await self._bundle_and_push(self._sandboxes, snapshot, target, addresses, request)
        except TimeoutError as error:
            raise PushFailed(
                f"The push took longer than {self._policy.seconds:.0f} seconds and was ended. Look at the repository: "
                "the server may have taken it. Otherwise push again.",
                PushFailure.TIMED_OUT,
            ) from error
        # Even if the client goes away now: the server has the code.
        await wait_for_answer(self._record(user_id, build_id, pushed))
        return pushed

    @asynccontextmanager
    async def _one_of_few(self, build_id: uuid.UUID) -> AsyncIterator[None]:
        if build_id in self._running:
            raise Conflict("Another push of this build is running. Wait until it has ended, then push again.")
        if self._is_stopping:
            raise NoSandboxNow(_STOPPING, _TRY_AGAIN_SECONDS)
        if len(self._running) >= AT_ONCE:
            raise NoSandboxNow("Many pushes are running, so yours did not begin. Try again in a minute.", 60)
        self._running[build_id] = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError as error:
            if self._is_stopping:
                raise NoSandboxNow(_STOPPING, _TRY_AGAIN_SECONDS) from error
            raise
        finally:
            del self._running[build_id]

    async def _find_snapshot(self, user_id: str, build_id: uuid.UUID, number: int | None) -> Snapshot:
        async with request_transaction(self._sessions.acting(Access(user_id))) as tx:
            await require_build(tx, user_id, build_id, Right.CHANGE)
            if number is None:
                snapshot = await current_snapshot(tx, build_id)
            else:
                snapshot = await find_snapshot(tx, build_id, number)
        if snapshot is None:
            which = "snapshot yet" if number is None else f"snapshot {number}"
            raise NotFound(f"Build {build_id} has no {which}.")
        if snapshot.state != "stored":
            raise SnapshotNotStored(
                f"Snapshot {snapshot.number} of build {build_id} can't be pushed: its state is `{snapshot.state}`. "
                "Choose one from the list of snapshots.",
                {"state": snapshot.state},
            )
        return snapshot

    async def _allowed_addresses(self, target: GitTarget) -> Sequence[str]:
        if target.is_address:
            addresses: Sequence[str] = [target.host]
        else:
            try:
                addresses = await self._resolve(target.host)
            except (OSError, UnicodeError) as error:
                raise PushFailed(
                    f"The name {target.host} could not be found. Check the URL.", PushFailure.UNREACHABLE
                ) from error
        check_addresses(target, addresses, self._policy.private_hosts)
        return addresses

    async def _bundle_and_push(
        self,
        sandboxes: Sandboxes,
        snapshot: Snapshot,
        target: GitTarget,
        addresses: Sequence[str],
        request: PushRequest,
    ) -> Pushed:
        async with git_directory(self._policy.max_bytes) as directory:
            with _errors_for_founders():
                current_branch = await self._bundle(sandboxes, snapshot, directory)
            branch = _branch_for(request.branch, current_branch)
            commit = await directory.fetch_bundle()
            if snapshot.commit is not None and commit != snapshot.commit:
                raise PushFailed(
                    "The history in the snapshot does not end at the snapshot's commit, so nothing was pushed.",
                    PushFailure.UNUSABLE,
                )
            is_new = await directory.push(target, addresses, branch, request.credentials, target.scheme)
        return Pushed(target.name, branch, commit, snapshot.number, is_new)

    async def _bundle(self, sandboxes: Sandboxes, snapshot: Snapshot, directory: GitDirectory) -> str | None:
        """Bundle the snapshot's history in a sandbox and bring it out. Returns the workspace's branch."""
        async with self._sandbox(sandboxes, snapshot.build_id) as sandbox:
            await send_snapshot(self._store, sandbox, snapshot)
            await unpack(sandbox)
            branch = await make_bundle(sandbox, self._policy.max_bytes)
            await bring_out(sandbox, directory.bundle, self._policy.max_bytes)
        return branch

    @asynccontextmanager
    async def _sandbox(self, sandboxes: Sandboxes, build_id: uuid.UUID) -> AsyncIterator[Sandbox]:
        lasts = timedelta(seconds=self._policy.seconds) + _CLEANUP
        async with self._permits.for_push(build_id, lasts):
            try:
                yield await sandboxes.create(str(build_id), Role.PUSH, offline=True)
            finally:
                # Also one whose creation was cancelled: it exists, and its id is not known here.
                await run_to_completion(_kill(sandboxes, build_id))

    async def _record(self, user_id: str, build_id: uuid.UUID, pushed: Pushed) -> None:
        log.info("pushed", build_id=str(build_id), commit=pushed.commit)
        event = PushedEvent(commit=pushed.commit, branch=pushed.branch, repository=pushed.repository)
        async with request_transaction(self._sessions.acting(Access(user_id))) as tx:
            await append_events(tx, build_id, [event])


def _branch_for(wanted: str | None, current: str | None) -> str:
    if wanted is not None:
        return wanted
    if current is None:
        raise InvalidInput("The snapshot's history is at no branch. Choose the one to push to.", "branch")
    return check_branch(current)


async def _kill(sandboxes: Sandboxes, build_id: uuid.UUID) -> None:
    for sandbox_id in await sandboxes.find(str(build_id), Role.PUSH):
        await sandboxes.kill(sandbox_id)


@contextlib.contextmanager
def _errors_for_founders() -> Iterator[None]:
    try:
        yield
    except (SandboxUnavailable, SandboxGone, NoPermit) as error:
        log.warning("a push has no sandbox", error=error)
        raise NoSandboxNow(
            "The sandbox in which the code is prepared is not available, so nothing was pushed. Try again in a minute.",
            _TRY_AGAIN_SECONDS,
        ) from error
    except (NeedsPerson, Misconfigured) as error:
        log.error("pushes need an operator", error=error)
        raise NoSandboxNow(
            "The sandbox service does not let this API work, so nothing was pushed. Ask the operator to run "
            "`cofounder doctor`."
        ) from error
    except SandboxFull as error:
        raise PushFailed(
            "The code needs more disk than its sandbox has. Ask the agent to remove large files.", PushFailure.TOO_LARGE
        ) from error
    except SnapshotFailed as error:
        raise PushFailed(f"The snapshot can't be used: {error}", PushFailure.UNUSABLE) from error
