"""Runs single activities in tests: clients of the embedded stack, the activities, and helpers for a build's rows."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import select
from temporalio.testing import ActivityEnvironment

from activities.gate import GateActivities, GatePolicy
from activities.preview import PreviewActivities
from activities.snapshot import SnapshotActivities
from activities.workspace import WorkspaceActivities
from clients.browser import Browser
from clients.cipher import Cipher
from clients.object_store import ObjectStore, StoreConfig
from clients.sandbox import Role, Sandbox, SandboxConfig, Sandboxes
from db.builds import BuildRequest, insert_build
from db.models import Event, Snapshot
from db.projects import create_project
from db.session import Sessions, make_engine, make_sessions
from db.tombstones import doomed_keys
from db.transaction import transaction
from db.users import ensure_user
from domain.payloads import OpenWorkspace, TakenSnapshot, TakeSnapshot
from local.stack import LocalStack
from services.permits import Permits
from tests.harness.build_rows import NO_WORKFLOW
from tests.harness.wait import DEADLINE
from tests.harness.worker import sample_brief

Request = TypeVar("Request")
Result = TypeVar("Result")

PREVIEW_URL = "http://*.previews.localhost:8000"
"""The pattern of the addresses that founders are told."""

KEPT_SNAPSHOTS = 5
"""Snapshots kept for a build, not counting the final one."""


@dataclass
class ActivityHarness:
    """Clients of the stack, and the activities that use them."""

    sessions: Sessions
    sandboxes: Sandboxes
    store: ObjectStore
    browser: Browser

    def __post_init__(self) -> None:
        policy = GatePolicy(command_seconds=DEADLINE, start_seconds=DEADLINE)
        self.permits = Permits(self.sessions, None)
        self.workspace = WorkspaceActivities(self.sessions, self.sandboxes, self.store, self.permits)
        self.snapshot = SnapshotActivities(self.sessions, self.sandboxes, self.store, KEPT_SNAPSHOTS)
        self.gate = self._gate(policy)
        # For servers that never answer with 200.
        hasty = GatePolicy(command_seconds=DEADLINE, start_seconds=1)
        self.hasty_gate = self._gate(hasty)
        self.cipher = Cipher({"main": bytes(32)})
        self.preview = PreviewActivities(
            self.sessions,
            self.sandboxes,
            self.store,
            self.permits,
            self.cipher,
            preview_url=PREVIEW_URL,
            command_seconds=DEADLINE,
            start_seconds=DEADLINE,
        )

    def _gate(self, policy: GatePolicy) -> GateActivities:
        return GateActivities(
            self.sessions, self.sandboxes, self.store, self.browser, policy, self.permits, preview_url=PREVIEW_URL
        )

    async def run(
        self, activity: Callable[[Request], Awaitable[Result]], request: Request, *, attempt: int = 1
    ) -> Result:
        """Run one attempt of an activity and return its result."""
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, attempt=attempt)
        return await environment.run(activity, request)

    async def build(self, project_id: uuid.UUID | None = None) -> str:
        """Insert a build without starting its workflow, and return its id."""
        async with transaction(self.sessions) as tx:
            user_id = f"founder-{uuid.uuid4()}"
            await ensure_user(tx, user_id)
            if project_id is None:
                project_id = (await create_project(tx, user_id, "Test", sample_brief(), None)).id
            build = await insert_build(tx, BuildRequest(project_id, user_id, "Test it."))
            assert build is not None
            build.created_at = NO_WORKFLOW
            return str(build.id)

    async def open(self, build_id: str) -> Sandbox:
        """Open the build's workspace and return its sandbox."""
        opened = await self.run(self.workspace.open_workspace, OpenWorkspace(build_id=build_id))
        return await self.sandboxes.connect(opened.sandbox.sandbox_id)

    async def take(self, build_id: str, sandbox: Sandbox, number: int, reason: str = "gate") -> TakenSnapshot:
        """Take a snapshot of the build's sandbox."""
        request = TakeSnapshot(build_id=build_id, sandbox_id=sandbox.id, number=number, reason=reason)
        return await self.run(self.snapshot.snapshot_workspace, request)

    async def kill_all(self, build_id: str) -> None:
        """Kill every sandbox of a build."""
        for role in Role:
            for sandbox_id in await self.sandboxes.find(build_id, role):
                await self.sandboxes.kill(sandbox_id)

    async def kept_keys(self, build_id: str) -> set[str]:
        """List the keys of the build's objects in the store that have no tombstone."""
        async with transaction(self.sessions) as tx:
            doomed = await doomed_keys(tx, uuid.UUID(build_id))
        return set(await self.store.keys(f"snapshots/{build_id}/")) - doomed

    async def rows(self, build_id: str) -> dict[int, Snapshot]:
        """Read the build's snapshots by number."""
        async with transaction(self.sessions) as tx:
            snapshots = await tx.session.scalars(select(Snapshot).where(Snapshot.build_id == uuid.UUID(build_id)))
            return {row.number: row for row in snapshots}

    async def events(self, build_id: str, kind: str) -> list[Event]:
        """Read the build's events of one kind, in order."""
        query = select(Event).where(Event.build_id == uuid.UUID(build_id), Event.type == kind).order_by(Event.id)
        async with transaction(self.sessions) as tx:
            return list(await tx.session.scalars(query))


async def shell(sandbox: Sandbox, command: str) -> str:
    """Run a command in the project's directory and return its output; fail the test if the command fails."""
    output = await sandbox.run(f"set -e; {command}", timeout_seconds=DEADLINE, cwd="/home/user/project")
    assert output.exit_code == 0, output.stderr
    return output.stdout


@asynccontextmanager
async def open_activity_harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    """Open a harness on the stack, and close its clients at the end."""
    env = stack.environment
    async with AsyncExitStack() as closing:
        engine = make_engine(env["DATABASE_URL"])
        closing.push_async_callback(engine.dispose)
        store = await closing.enter_async_context(ObjectStore(store_config(env)))
        config = SandboxConfig(env["E2B_API_KEY"], env["E2B_API_URL"], env["E2B_SANDBOX_URL"])
        sandboxes = Sandboxes(config)
        closing.push_async_callback(sandboxes.close)
        browser = Browser()
        closing.push_async_callback(browser.close)
        yield ActivityHarness(make_sessions(engine), sandboxes, store, browser)


def store_config(env: dict[str, str]) -> StoreConfig:
    """Return the configuration of the stack's object store."""
    return StoreConfig(
        bucket=env["PROJECT_SNAPSHOT_BUCKET"],
        region=env["AWS_REGION"],
        endpoint_url=env["S3_ENDPOINT_URL"],
        access_key=env["AWS_ACCESS_KEY_ID"],
        secret_key=env["AWS_SECRET_ACCESS_KEY"],
    )
