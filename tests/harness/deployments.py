"""Deployments of their own on the embedded stack: each has a database, a Temporal namespace and a worker."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from temporalio.client import Client

from clients.browser import Browser
from clients.temporal import connect_temporal, describe_namespace
from db.session import open_sessions
from local.stack import LocalStack
from services.deployment import rebind
from settings import Settings
from tests.harness.api_server import new_database
from tests.harness.namespaces import new_namespace
from tests.harness.worker import WorkerHarness, settings_of
from worker import wired_worker


async def new_deployment(stack: LocalStack, **changes: Any) -> tuple[Settings, Client]:
    """Make a database and a namespace, bind them, and return settings and a client for them. No worker runs yet."""
    client = await client_in(stack, await new_namespace(stack))
    queue = f"deployment-{uuid.uuid4().hex[:8]}"
    database_url = await new_database(stack)
    settings = settings_of(stack).model_copy(
        update={"database_url": database_url, "temporal_task_queue": queue, **changes}
    )
    async with open_sessions(database_url) as sessions:
        await rebind(sessions, await describe_namespace(client))
    return settings, client


async def client_in(stack: LocalStack, namespace: str) -> Client:
    """Connect to another namespace of the stack's Temporal server."""
    return await connect_temporal({**stack.environment, "TEMPORAL_NAMESPACE": namespace})


@asynccontextmanager
async def deployment(stack: LocalStack, browser: Browser, **changes: Any) -> AsyncIterator[WorkerHarness]:
    """Run a worker on a database and a namespace of its own, which no other test sees."""
    settings, client = await new_deployment(stack, **changes)
    async with running_worker(settings, client, browser) as harness:
        yield harness


@asynccontextmanager
async def running_worker(settings: Settings, client: Client, browser: Browser) -> AsyncIterator[WorkerHarness]:
    """Run a worker of a deployment."""
    assert settings.anthropic_base_url is not None
    async with (
        open_sessions(settings.database_url) as sessions,
        wired_worker(settings, client, browser) as worker,
        worker,
    ):
        yield WorkerHarness(settings, client, sessions, settings.anthropic_base_url)
