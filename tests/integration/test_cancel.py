"""A cancel ends a build, whatever it is doing and however soon that is over."""

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from clients.sandbox import Role, Sandboxes
from domain.names import preview_workflow_id
from domain.status import Status
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import PRODUCT, bash, steps
from worker import sandbox_config

SHORT = steps([bash("sleep 2")], [bash("sleep 2")], [bash("sleep 20")])


async def _until_event(harness: WorkerHarness, build_id: uuid.UUID, kind: str) -> None:
    async with asyncio.timeout(300):
        while not await harness.events(build_id, kind):
            await asyncio.sleep(0.05)


async def _sandboxes_of(harness: WorkerHarness, build_id: uuid.UUID) -> list[str]:
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    found = [each for role in Role for each in await sandboxes.find(str(build_id), role)]
    await sandboxes.close()
    return found


async def test_a_tool_that_ends_before_the_cancel_reaches_it(harness: WorkerHarness) -> None:
    build_id = await harness.start(script=SHORT)
    await _until_event(harness, build_id, "tool_started")
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    assert len(await harness.events(build_id, "tool_started")) == 1
    assert await _sandboxes_of(harness, build_id) == []


@pytest.mark.parametrize("status", [Status.STARTING, Status.CHECKS])
async def test_while_a_sandbox_is_opened(harness: WorkerHarness, status: Status) -> None:
    script: dict[str, Any] = steps([bash("git commit --allow-empty -qm A")])
    build_id = await harness.start(script=script)
    await harness.until(build_id, frozenset({status}))
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    assert await _sandboxes_of(harness, build_id) == []
    await asyncio.sleep(3)
    assert await _sandboxes_of(harness, build_id) == []


async def test_while_a_preview_is_opened(harness: WorkerHarness) -> None:
    slow = PRODUCT.replace('"install": "true"', '"install": "sleep 2"')
    build_id = await harness.start(script=steps([bash(slow)]))
    assert (await harness.finished(build_id)).status == Status.READY
    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    await preview.cancel()
    with pytest.raises(WorkflowFailureError):
        await preview.result()
    assert await _sandboxes_of(harness, build_id) == []

    await harness.builds.open_preview(build_id, 600, seq=100)
    async with asyncio.timeout(300):
        while not await _sandboxes_of(harness, build_id):
            await asyncio.sleep(0.05)
    await preview.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await asyncio.wait_for(preview.result(), 300)
    assert isinstance(ended.value.cause, CancelledError)
    assert await _sandboxes_of(harness, build_id) == []
