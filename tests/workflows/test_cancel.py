"""A cancel ends a build whatever it is doing, even if that ends at the same moment."""

import asyncio
import uuid
from contextlib import suppress
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from clients.browser import Browser
from clients.sandbox import Role, Sandboxes, sandbox_config
from domain.errors import SandboxGone, SandboxUnavailable
from domain.names import preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from tests.harness.scripts import HOLD_FILE, PRODUCT, bash, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness, worker_harness


async def _sandboxes_of(harness: WorkerHarness, build_id: uuid.UUID) -> list[str]:
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    found = [each for role in Role for each in await sandboxes.find(str(build_id), role)]
    await sandboxes.close()
    return found


async def test_a_tool_that_ends_before_the_cancel_reaches_it(harness: WorkerHarness) -> None:
    go = "/tmp/go"
    waits = bash(f"touch {HOLD_FILE}; until [ -e {go} ]; do sleep 0.02; done")
    build_id = await harness.start(script=steps([waits], [bash("sleep 2")], [bash("sleep 20")]))
    await harness.until_event(build_id, "tool_started")
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    sandbox = await sandboxes.connect((await harness.row(build_id)).sandbox_id or "")
    await sandbox.run(f"until [ -e {HOLD_FILE} ]; do sleep 0.02; done", timeout_seconds=DEADLINE, cwd="/")
    await harness.builds.cancel(build_id)
    with suppress(SandboxGone, SandboxUnavailable):  # the cancel was faster
        await sandbox.write(go, "")
    await sandboxes.close()
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    assert len(await harness.events(build_id, "tool_started")) == 1
    assert await _sandboxes_of(harness, build_id) == []


@pytest.mark.parametrize("status", [Status.STARTING, Status.CHECKS])
async def test_while_a_sandbox_is_opened(stack: LocalStack, browser: Browser, status: Status) -> None:
    script: dict[str, Any] = steps([bash("git commit --allow-empty -qm A")])
    async with worker_harness(stack, browser) as harness:
        build_id = await harness.start(script=script)
        await harness.until(build_id, frozenset({status}))
        await harness.builds.cancel(build_id)
        assert (await harness.finished(build_id)).status == Status.CANCELLED
        assert await _sandboxes_of(harness, build_id) == []
    # The worker has ended, and with it every attempt: none can still create a sandbox.
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
    await wait_until(lambda: _sandboxes_of(harness, build_id))
    await preview.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await asyncio.wait_for(preview.result(), DEADLINE)
    assert isinstance(ended.value.cause, CancelledError)
    assert await _sandboxes_of(harness, build_id) == []
