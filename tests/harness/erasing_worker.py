"""A worker as `worker.py` starts it that kills itself within the steps of erasures.

A file `<step>@<moment>` in the directory that ERASURE_RIG names is an instruction. The first worker that gets there
removes the file and kills itself. Run it with `python -m tests.harness.erasing_worker`.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from temporalio import activity

import activities.erasure
import worker
from activities.erasure import ErasureActivities
from clients import object_store
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore, ObjectVersion
from clients.sandbox import Sandboxes
from db import erasures
from domain.payloads import ErasureStep
from services.builds import signal_cancel

STEPS = ("stop_builds", "end_sandboxes", "erase_objects", "erase_executions", "erase_rows")

BEGUN, MIDDLE, DONE = "begun", "middle", "done"
"""Before the step does anything; after a part of it, such as the first objects; before Temporal knows of its end."""

OBJECTS = 3
"""Objects that are deleted before the worker dies in the middle of them."""


def _reach(directory: Path, moment: str) -> None:
    """Die if an instruction says so."""
    if not activity.in_activity():
        return
    with suppress(FileNotFoundError):
        (directory / f"{activity.info().activity_type}@{moment}").unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _after(whole: Callable[..., Awaitable[Any]], reach: Callable[[], None]) -> Callable[..., Awaitable[Any]]:
    async def then_reach(*arguments: Any, **named: Any) -> Any:
        result = await whole(*arguments, **named)
        reach()
        return result

    return then_reach


def _rig(directory: Path) -> None:
    read = ErasureActivities._read

    async def read_first(self: ErasureActivities, *arguments: Any) -> Any:
        _reach(directory, BEGUN)
        return await read(self, *arguments)

    def done(*, left: int = 0) -> ErasureStep:
        _reach(directory, DONE)
        return ErasureStep(left=left)

    def middle() -> None:
        _reach(directory, MIDDLE)

    delete_versions = ObjectStore.delete_versions

    async def delete_some(self: ObjectStore, versions: Sequence[ObjectVersion]) -> None:
        for first in _pieces(versions):
            await delete_versions(self, first)
            middle()

    vars(activities.erasure)["ErasureStep"] = done
    vars(activities.erasure)["signal_cancel"] = _after(signal_cancel, middle)
    rigged: list[tuple[type[Any], str, Callable[..., Awaitable[Any]]]] = [
        (ErasureActivities, "_read", read_first),
        (ObjectStore, "delete_versions", delete_some),
        (BuildWorkflows, "delete_execution", _after(BuildWorkflows.delete_execution, middle)),
        (BuildWorkflows, "cancel_preview", _after(BuildWorkflows.cancel_preview, middle)),
        (Sandboxes, "kill", _after(Sandboxes.kill, middle)),
    ]
    for owner, name, rigged_method in rigged:
        setattr(owner, name, rigged_method)
    vars(erasures)["finish"] = _after(erasures.finish, middle)  # in the transaction, before it is committed


def _pieces(versions: Sequence[ObjectVersion]) -> Iterator[Sequence[ObjectVersion]]:
    assert object_store._DELETE_BATCH_KEYS > OBJECTS
    for start in range(0, len(versions), OBJECTS):
        yield versions[start : start + OBJECTS]


if __name__ == "__main__":
    _rig(Path(os.environ["ERASURE_RIG"]))
    asyncio.run(worker.main())
