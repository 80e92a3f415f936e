"""Runs whole builds in tests: a worker on the embedded stack, founders, projects and the rehearsal model's controls."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
from sqlalchemy import select
from temporalio.client import Client, WorkflowHandle
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from clients.browser import Browser
from clients.build_workflows import BuildToStart, BuildWorkflows
from clients.temporal import connect_temporal
from db.builds import BuildRequest, insert_build
from db.models import Build, Event, PlanTier, User
from db.projects import create_project
from db.session import Sessions, make_engine, make_sessions
from db.transaction import Transaction, transaction
from db.users import ensure_user
from domain.brief import Interview
from domain.budget import cycle_of
from domain.models import default_prices
from domain.names import build_workflow_id
from domain.pricing import PriceTable
from domain.status import CLOSED, Status
from local.stack import LocalStack
from settings import Settings
from tests.harness.planted import plant
from tests.harness.wait import DEADLINE, wait_until
from worker import wired_worker

EXAMPLES = Path(__file__).parents[2] / "cli" / "examples"

WAITS = frozenset({Status.NEEDS_INPUT, Status.SLEEPING})

_LOOK_SECONDS = 0.1
"""Look at a row again after this many seconds. Each look is a query that delays the builds' own work."""

_ANSWER_SECONDS = 180.0
"""Fail after a build has waited for a person's answer for this many seconds. Tests that answer do so at once."""

_numbers = itertools.count(1)


def sample_brief(**changes: Any) -> dict[str, Any]:
    """Return the example's brief with a unique name."""
    brief: dict[str, Any] = json.loads((EXAMPLES / "brief.json").read_text())
    return brief | {"name": f"{brief['name']} {next(_numbers)}"} | changes


@dataclass
class WorkerHarness:
    """A worker and its stack, with short methods for what tests do with builds."""

    settings: Settings
    client: Client
    sessions: Sessions
    model_url: str
    plants_secrets: bool = False
    """Whether projects are inserted with the secrets of `planted.py`."""
    builds: BuildWorkflows = field(init=False)

    def __post_init__(self) -> None:
        self.builds = BuildWorkflows(self.client, self.settings.temporal_task_queue)

    def session(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction for reading."""
        return transaction(self.sessions)

    async def founder(self, plan: str = "cto_scale", **changes: Any) -> str:
        """Insert a user, on the unlimited plan by default, and return the id."""
        user_id = f"founder-{uuid.uuid4()}"
        async with transaction(self.sessions) as tx:
            await ensure_user(tx, user_id)
            user = await tx.session.get_one(User, user_id)
            user.plan = plan
            for name, value in changes.items():
                setattr(user, name, value)
        return user_id

    async def plan(self, cycle_budget: int | None, **changes: Any) -> str:
        """Insert a plan for this test alone, and return its name."""
        values: dict[str, Any] = {
            "default_models": {"coder": "claude-sonnet-5-5"},
            "concurrent_builds": 10,
            "tool_call_cap": 150,
        }
        name = f"plan-{uuid.uuid4()}"
        async with transaction(self.sessions) as tx:
            tx.session.add(PlanTier(name=name, cycle_budget=cycle_budget, **(values | changes)))
        return name

    async def project(
        self, user_id: str, brief: dict[str, Any] | None = None, interview: Interview | None = None
    ) -> uuid.UUID:
        """Insert a project with the given brief or the example's, and return its id. `brief={}`: without a brief."""
        brief = sample_brief() if brief is None else brief
        async with transaction(self.sessions) as tx:
            project = await create_project(tx, user_id, brief.get("name", "Nameless"), brief or None, interview)
            if self.plants_secrets:
                await plant(tx, user_id, project.id)
            return project.id

    async def start(
        self,
        user_id: str | None = None,
        *,
        brief: dict[str, Any] | None = None,
        goal: str | None = None,
        project_id: uuid.UUID | None = None,
        script: dict[str, Any] | None = None,
        faults: Sequence[dict[str, Any]] = (),
        prepare: Callable[[uuid.UUID], None] | None = None,
        **columns: Any,
    ) -> uuid.UUID:
        """Start a build and return its id. `script` and `faults` apply to this build alone; its goal identifies it.

        `columns` are set in the row, and `prepare` is called with the id, before the workflow starts.
        """
        user_id = user_id or await self.founder()
        project_id = project_id or await self.project(user_id, brief)
        goal = f"{goal or 'Build the first version.'} [{uuid.uuid4().hex}]"
        if script:
            await self.rehearse("scripts", {"match": goal, "script": script})
        for fault in faults:
            await self.rehearse("faults", {"match": goal, **fault})
        async with transaction(self.sessions) as tx:
            build = await insert_build(tx, BuildRequest(project_id, user_id, goal))
            assert build is not None, "the project has an open build"
            for name, value in columns.items():
                setattr(build, name, value)
            user = await tx.session.get_one(User, user_id)
        if prepare is not None:
            prepare(build.id)
        await self.builds.start(BuildToStart(build.id, user_id, project_id, user.plan))
        return build.id

    async def rehearse(self, what: str, body: dict[str, Any]) -> None:
        """Send a script or a fault to the rehearsal model."""
        async with httpx2.AsyncClient(timeout=DEADLINE) as http:
            (await http.post(f"{self.model_url}/_rehearsal/{what}", json=body)).raise_for_status()

    async def served(self) -> list[dict[str, Any]]:
        """Return the calls that the rehearsal model served."""
        async with httpx2.AsyncClient(timeout=DEADLINE) as http:
            answer: list[dict[str, Any]] = (await http.get(f"{self.model_url}/_rehearsal/served")).json()
            return answer

    def handle(self, build_id: uuid.UUID) -> WorkflowHandle[Any, Any]:
        """Return the handle of the build's workflow."""
        return self.client.get_workflow_handle(build_workflow_id(build_id))

    async def row(self, build_id: uuid.UUID) -> Build:
        """Read the build's row."""
        async with transaction(self.sessions) as tx:
            return await tx.session.get_one(Build, build_id)

    async def until(self, build_id: uuid.UUID, statuses: frozenset[Status], seconds: float = 2 * DEADLINE) -> Build:
        """Wait until the build has one of the statuses, or has closed."""
        async with asyncio.timeout(seconds):
            while (row := await self.row(build_id)).status not in statuses | CLOSED:
                await asyncio.sleep(_LOOK_SECONDS)
        return row

    async def finished(self, build_id: uuid.UUID, seconds: float = 2 * DEADLINE) -> Build:
        """Wait until the build and its workflow have closed. A build that keeps waiting for a person fails the test."""
        waiting_since: dict[int, float] = {}
        async with asyncio.timeout(seconds):
            while (row := await self.row(build_id)).status not in CLOSED:
                if row.status == Status.NEEDS_INPUT:
                    since = waiting_since.setdefault(row.status_seq, monotonic())
                    assert monotonic() - since < _ANSWER_SECONDS, f"the build waits for {row.waiting_for}: {row.reason}"
                await asyncio.sleep(_LOOK_SECONDS)
        async with asyncio.timeout(DEADLINE):
            await self.handle(build_id).result() if row.status == Status.READY else await self._ended(build_id)
        return row

    async def _ended(self, build_id: uuid.UUID) -> None:
        while (await self.handle(build_id).describe()).close_time is None:
            await asyncio.sleep(_LOOK_SECONDS)

    async def until_event(self, build_id: uuid.UUID, kind: str, *, turn: int | None = None, count: int = 1) -> None:
        """Wait until the build's feed has at least `count` events of the kind, of the turn if one is given."""

        async def are_there() -> bool:
            return len([each for each in await self.events(build_id, kind) if turn in (None, each.turn)]) >= count

        await wait_until(are_there, look_seconds=_LOOK_SECONDS)

    async def until_idle(self, build_id: uuid.UUID) -> None:
        """Wait until the build's workflow has handled its signals and has no activity pending."""

        async def is_idle() -> bool:
            described = (await self.handle(build_id).describe()).raw_description
            return not described.pending_activities and not described.HasField("pending_workflow_task")

        await wait_until(is_idle, look_seconds=_LOOK_SECONDS)

    async def events(self, build_id: uuid.UUID, kind: str | None = None) -> list[Event]:
        """Read the build's feed, or its events of one kind."""
        query = select(Event).where(Event.build_id == build_id).order_by(Event.id)
        async with transaction(self.sessions) as tx:
            return list((await tx.session.scalars(query.where(Event.type == kind) if kind else query)).all())

    async def statuses(self, build_id: uuid.UUID) -> list[str]:
        """Read the statuses in the feed, in order."""
        return [event.data["status"] for event in await self.events(build_id, "status")]


FOUR_TURNS_A_DAY = 150_000
"""An allowance (micro-dollars) that pays for several small calls but not for a whole wind-down, so that the agent winds
down at once."""


async def poor_founder(harness: WorkerHarness, allowance: int, **plan: Any) -> tuple[str, str]:
    """Insert a founder who may spend this allowance (micro-dollars) today, with a plan whose cycle begins today.

    Returns the ids of the founder and of the plan.
    """
    today = datetime.now(UTC).date()
    days_left = (cycle_of(today, today.day)[1] - today).days
    name = await harness.plan(allowance * days_left, **plan)
    return await harness.founder(name, renewal_day=today.day), name


def changed_prices(**changes: Any) -> PriceTable:
    """Return the price table with every model's row changed."""
    return {name: price.model_copy(update=changes) for name, price in default_prices().items()}


def settings_of(stack: LocalStack, **changes: Any) -> Settings:
    """Return settings that point at the stack. Builds wake at midnight, where tests skip to."""
    values: dict[str, Any] = {name.lower(): value for name, value in stack.environment.items()}
    values["morning_seconds"] = 0
    return Settings.model_validate(values | changes)


@asynccontextmanager
async def worker_harness(
    stack: LocalStack,
    browser: Browser | None = None,
    temporal: Mapping[str, str] | None = None,
    *,
    namespace: str | None = None,
    **changes: Any,
) -> AsyncIterator[WorkerHarness]:
    """Run a worker on a task queue of its own, with changed settings and, if given, a shared browser, a namespace, and
    the environment of another Temporal server than the stack's.

    Workflows run in the SDK's workflow sandbox, so that its checks happen here: production workers run without it
    (ADR 0005).
    """
    own = {"temporal_task_queue": f"test-{uuid.uuid4()}", "graceful_shutdown_seconds": 10}
    settings = settings_of(stack, **own | changes)
    environment = dict(temporal or stack.environment) | ({"TEMPORAL_NAMESPACE": namespace} if namespace else {})
    if settings.payload_key is not None:
        environment["PAYLOAD_KEY"] = settings.payload_key.get_secret_value()
    client = await connect_temporal(environment)
    engine = make_engine(settings.database_url)
    async with wired_worker(settings, client, browser, SandboxedWorkflowRunner()) as worker, worker:
        assert settings.anthropic_base_url is not None
        yield WorkerHarness(settings, client, make_sessions(engine), settings.anthropic_base_url)
    await engine.dispose()


@asynccontextmanager
async def idle_harness(stack: LocalStack) -> AsyncIterator[WorkerHarness]:
    """A harness without a worker, on a task queue of its own."""
    settings = settings_of(stack, temporal_task_queue=f"test-{uuid.uuid4()}")
    engine = make_engine(settings.database_url)
    assert settings.anthropic_base_url is not None
    yield WorkerHarness(
        settings, await connect_temporal(stack.environment), make_sessions(engine), settings.anthropic_base_url
    )
    await engine.dispose()
