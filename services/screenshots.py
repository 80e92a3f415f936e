"""The screenshots of a build, and which of them the object store still has."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Protocol

from clients.object_store import image_key
from db.conversation import list_calls_with_images
from db.gate_runs import list_runs_with_screenshots
from db.models import GateRun, ToolCall
from db.transaction import Transaction
from domain.errors import NeedsPerson, StoreUnavailable
from domain.screenshots import LOOKING_TOOLS, Screenshot, call_named_in, gate_named_in, of_call, of_gate

_AT_ONCE = 8
"""Questions to the object store at once."""


class ObjectSizes(Protocol):
    """What is asked of the object store."""

    async def size(self, key: str) -> int | None:
        """An object's size in bytes; None if there is no such object."""
        ...


async def list_screenshots(tx: Transaction, build_id: uuid.UUID) -> list[Screenshot]:
    """The screenshots of the build's evidence gates and of its agent, the newest first."""
    found = _of_runs(await list_runs_with_screenshots(tx, build_id))
    found += _of_calls(await list_calls_with_images(tx, build_id, LOOKING_TOOLS))
    return sorted(found, key=lambda each: each.taken_at, reverse=True)


async def find_screenshot(tx: Transaction, build_id: uuid.UUID, screenshot_id: str) -> Screenshot | None:
    """The screenshot that `list_screenshots` has under this id; None if there is none. Reads one row."""
    found: list[Screenshot] = []
    if (number := gate_named_in(screenshot_id)) is not None:
        found = _of_runs(await list_runs_with_screenshots(tx, build_id, number))
    elif (tool_use_id := call_named_in(screenshot_id)) is not None:
        found = _of_calls(await list_calls_with_images(tx, build_id, LOOKING_TOOLS, tool_use_id))
    return next((each for each in found if each.id == screenshot_id), None)


def _of_runs(runs: Sequence[GateRun]) -> list[Screenshot]:
    return [each for run in runs for each in of_gate(run.number, run.screenshots, run.ended_at or run.started_at)]


def _of_calls(calls: Sequence[ToolCall]) -> list[Screenshot]:
    return [
        each
        for call in calls
        if call.result is not None and call.done_at is not None
        for each in of_call(call.tool_use_id, call.turn, call.result, call.done_at, image_key)
    ]


async def find_kept(store: ObjectSizes, screenshots: Sequence[Screenshot]) -> dict[str, bool | None]:
    """Whether the store still has each screenshot, by its key; None if the store does not say."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def is_kept(key: str) -> bool | None:
        async with slots:
            try:
                return await store.size(key) is not None
            except (StoreUnavailable, NeedsPerson):
                return None

    keys = list({each.key for each in screenshots})
    return dict(zip(keys, await asyncio.gather(*map(is_kept, keys)), strict=True))
