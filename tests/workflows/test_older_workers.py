"""A worker of the version before takes a task of a new build: it ignores what it does not know."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

from activities.slots import SlotActivities
from activities.workspace import WorkspaceActivities
from clients.browser import Browser
from domain.status import Status
from local.stack import LocalStack
from tests.harness.scripts import bash, steps
from tests.harness.worker import worker_harness

Method = Callable[[Any, Any], Awaitable[Any]]


def _before_changes(method: Method) -> Method:
    """The activity as it was when its request had no `change` and its answer no `recorded`."""

    @wraps(method)
    async def older(self: Any, request: Any) -> Any:
        return await method(self, request.model_copy(update={"change": None}))

    return older


@pytest.mark.parametrize(
    ("activities", "name"),
    [(SlotActivities, "claim_slot"), (WorkspaceActivities, "open_workspace")],
)
async def test_the_workflow_records_a_status_that_the_worker_left(
    stack: LocalStack, browser: Browser, monkeypatch: pytest.MonkeyPatch, activities: type[Any], name: str
) -> None:
    as_ever = await _begun(stack, browser)
    monkeypatch.setattr(activities, name, _before_changes(getattr(activities, name)))
    assert await _begun(stack, browser) == as_ever


async def _begun(stack: LocalStack, browser: Browser) -> list[tuple[str, str | None]]:
    """The types and statuses of the feed of a build that has made its first tool call."""
    async with worker_harness(stack, browser) as harness:
        build_id = await harness.start(script=steps([bash("true")], [bash("sleep 30")]))
        await harness.until_event(build_id, "tool_done")
        assert (await harness.row(build_id)).status == Status.SCAFFOLD
        events = await harness.events(build_id)
        await harness.builds.cancel(build_id)
        assert (await harness.finished(build_id)).status == Status.CANCELLED
    done = [event.type for event in events].index("tool_done")
    return [(event.type, event.data.get("status")) for event in events[: done + 1]]
