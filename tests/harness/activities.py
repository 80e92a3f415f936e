"""Runs single activities for tests: clients on the embedded stack, the activities, and a build's rows."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import select
from temporalio.testing import ActivityEnvironment

from activities.gate import GateActivities, GatePolicy
from activities.preview import PreviewActivities
from activities.snapshot import SnapshotActivities
from activities.workspace import WorkspaceActivities
from clients.browser import Browser
from clients.object_store import ObjectStore, StoreConfig
from clients.sandbox import Role, Sandbox, SandboxConfig, Sandboxes
from db.builds import BuildRequest, insert_build
from db.models import Event, Snapshot
from db.projects import create_project
from db.session import Sessions, make_engine, make_sessions
from db.users import ensure_user
from domain.payloads import OpenWorkspace, TakenSnapshot, TakeSnapshot
from local.stack import LocalStack
from tests.harness.worker import sample_brief
from tests.wait import DEADLINE

Given = TypeVar("Given")
Result = TypeVar("Result")

KEPT = 5

NO_WORKFLOW = datetime(2200, 1, 1, tzinfo=UTC)
"""When a build is said to have been made that has a row and no workflow. The reaper of any worker on the same stack
would start it otherwise, and a build that runs takes the test's sandbox for its own."""


@dataclass
class ActivityHarness:
    """Clients and activities on the stack."""

    sessions: Sessions
    sandboxes: Sandboxes
    store: ObjectStore
    browser: Browser

    def __post_init__(self) -> None:
        policy = GatePolicy(command_seconds=DEADLINE, start_seconds=DEADLINE)
        self.workspace = WorkspaceActivities(self.sessions, self.sandboxes, self.store)
        self.snapshot = SnapshotActivities(self.sessions, self.sandboxes, self.store, KEPT)
        self.gate = GateActivities(self.sessions, self.sandboxes, self.store, self.browser, policy)
        # For servers that will never answer with 200.
        hasty = GatePolicy(command_seconds=DEADLINE, start_seconds=1)
        self.hasty_gate = GateActivities(self.sessions, self.sandboxes, self.store, self.browser, hasty)
        self.preview = PreviewActivities(
            self.sessions,
            self.sandboxes,
            self.store,
            command_seconds=DEADLINE,
            start_seconds=DEADLINE,
        )

    async def run(self, activity: Callable[[Given], Awaitable[Result]], given: Given) -> Result:
        """Run one attempt of an activity."""
        return await ActivityEnvironment().run(activity, given)

    async def build(self, project_id: uuid.UUID | None = None) -> str:
        """A new build's id; its workflow is not started."""
        async with self.sessions.begin() as session:
            user_id = f"founder-{uuid.uuid4()}"
            await ensure_user(session, user_id)
            if project_id is None:
                project_id = (await create_project(session, user_id, "Rooms", sample_brief(), None)).id
            build = await insert_build(session, BuildRequest(project_id, user_id, "Test it."))
            assert build is not None
            build.created_at = NO_WORKFLOW
            return str(build.id)

    async def open(self, build_id: str) -> Sandbox:
        """The build's workspace."""
        opened = await self.run(self.workspace.open_workspace, OpenWorkspace(build_id=build_id))
        return await self.sandboxes.connect(opened.sandbox.sandbox_id)

    async def take(self, build_id: str, sandbox: Sandbox, number: int, reason: str = "gate") -> TakenSnapshot:
        """Take a snapshot."""
        given = TakeSnapshot(build_id=build_id, sandbox_id=sandbox.id, number=number, reason=reason)
        return await self.run(self.snapshot.snapshot_workspace, given)

    async def kill_all(self, build_id: str) -> None:
        """Kill every sandbox of a build."""
        for role in Role:
            for sandbox_id in await self.sandboxes.find(build_id, role):
                await self.sandboxes.kill(sandbox_id)

    async def rows(self, build_id: str) -> dict[int, Snapshot]:
        """The build's snapshots by number."""
        async with self.sessions() as session:
            found = await session.scalars(select(Snapshot).where(Snapshot.build_id == uuid.UUID(build_id)))
            return {row.number: row for row in found}

    async def events(self, build_id: str, kind: str) -> list[Event]:
        """The build's events of one kind."""
        query = select(Event).where(Event.build_id == uuid.UUID(build_id), Event.type == kind).order_by(Event.id)
        async with self.sessions() as session:
            return list(await session.scalars(query))


async def shell(sandbox: Sandbox, command: str) -> str:
    """What a command prints in the sandbox; it must succeed."""
    output = await sandbox.run(f"set -e; {command}", timeout_seconds=DEADLINE, cwd="/home/user/project")
    assert output.exit_code == 0, output.stderr
    return output.stdout


@asynccontextmanager
async def open_activity_harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    """A harness on the stack."""
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
    """The stack's object store."""
    return StoreConfig(
        bucket=env["PROJECT_SNAPSHOT_BUCKET"],
        region=env["AWS_REGION"],
        endpoint_url=env["S3_ENDPOINT_URL"],
        access_key=env["AWS_ACCESS_KEY_ID"],
        secret_key=env["AWS_SECRET_ACCESS_KEY"],
    )
