"""Makes thousands of open builds, with workflows that no worker runs, for what must not depend on their number."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from temporalio.client import Client

from clients.build_workflows import BuildToStart, BuildWorkflows
from db.session import Sessions
from db.transaction import transaction
from domain.names import build_workflow_id
from tests.harness.wait import wait_until

_AT_ONCE = 50
"""Starts of workflows at the same time."""

_INSERTS = (
    "insert into users (id, plan) select 'many-' || n, 'bootstrapper' from generate_series(1, :builds) n",
    """insert into projects (id, user_id, name)
       select gen_random_uuid(), 'many-' || n, 'Many' from generate_series(1, :builds) n""",
    """insert into builds (id, project_id, user_id, goal, body_hash, status, created_at, started_at, admitted_at)
       select gen_random_uuid(), id, user_id, 'Test it.', '', 'code',
              now() - interval '2 hours', now() - interval '1 hour', now() - interval '1 hour'
       from projects where name = 'Many'""",
    """insert into builds (id, project_id, user_id, goal, body_hash, status, created_at, started_at, closed_at)
       select gen_random_uuid(), id, user_id, 'Test it.', '', 'failed',
              now() - interval '2 days', now() - interval '2 days', now() - interval '1 day'
       from projects cross join generate_series(1, 10) where name = 'Many'""",
    "analyze",
)


@dataclass(frozen=True)
class ManyBuilds:
    """The open builds. The database has ten times as many closed ones."""

    ids: Sequence[uuid.UUID]
    client: Client

    async def end(self, number: int) -> None:
        """Terminate the workflows of this many of them, and wait until Temporal lists them as ended."""
        for build_id in self.ids[:number]:
            await self.client.get_workflow_handle(build_workflow_id(build_id)).terminate()

        async def are_listed() -> bool:
            query = "WorkflowType = 'BuildWorkflow' AND ExecutionStatus = 'Terminated'"
            return (await self.client.count_workflows(query)).count >= number

        await wait_until(are_listed)


async def make_builds(sessions: Sessions, client: Client, builds: int) -> ManyBuilds:
    """Insert open builds that were started an hour ago, and start their workflows on a queue without workers."""
    async with transaction(sessions) as tx:
        for statement in _INSERTS:
            await tx.session.execute(text(statement), {"builds": builds} if ":builds" in statement else {})
        rows = (
            await tx.session.execute(text("select id, user_id, project_id from builds where closed_at is null"))
        ).all()
    workflows = BuildWorkflows(client, f"no-workers-{uuid.uuid4()}")
    free = asyncio.Semaphore(_AT_ONCE)

    async def start(build_id: uuid.UUID, user_id: str, project_id: uuid.UUID) -> None:
        async with free:
            await workflows.start(BuildToStart(build_id, user_id, project_id, "bootstrapper"))

    await asyncio.gather(*(start(*row) for row in rows))

    async def are_listed() -> bool:
        query = "WorkflowType = 'BuildWorkflow' AND ExecutionStatus = 'Running'"
        return (await client.count_workflows(query)).count >= builds

    await wait_until(are_listed)
    return ManyBuilds([row[0] for row in rows], client)
