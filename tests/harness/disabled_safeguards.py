"""Switches off one safeguard at a time, to show that the fault tests find the damage. Only in a rigged worker.

Each is disabled as narrowly as possible: other safeguards that protect the same thing stay on.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import update

from activities import dispatch, snapshot, workspace
from clients import sandbox
from clients.cancellation import wait_for_answer
from db.models import Snapshot, ToolCall
from db.transaction import transaction

NEXT_VERSION = "newer"
"""Not a safeguard: makes the worker one of the next version, with a different runner inside sandboxes."""

SNAPSHOT_ATTEMPTED = "taken-{pid}"
"""The file that a worker without claims puts into its home directory when its attempt at a snapshot has ended, whether
it wrote the row or failed."""

SAFEGUARDS = ("claim", "intent", "journal", "verification")


def count_edits() -> None:
    """Make write_file and edit_file add a line to a file outside the workspace each time they take effect, as the
    commands of the sample build do."""
    edit_code = "                outcome = {"
    assert sandbox.RUNNER_SOURCE.count(edit_code) == 1
    count_code = "                open('/tmp/effects', 'a').write(call_id + chr(10))\n"
    _use_runner(sandbox.RUNNER_SOURCE.replace(edit_code, count_code + edit_code))


def switch_off(safeguard: str) -> None:
    """Disable the safeguard in this process."""
    off: dict[str, Callable[[], None]] = {
        "claim": _without_claim,
        "intent": _without_intent,
        "journal": _without_journal,
        "verification": _without_verification,
        NEXT_VERSION: _use_next_version,
    }
    off[safeguard]()


def _without_claim() -> None:
    """Give every attempt at a snapshot the same token, so that a stale attempt's write succeeds.

    The SDK cancels an attempt that has missed its heartbeat as soon as it continues. The cancel can arrive before the
    write or just after it; here it always arrives after it.
    """

    original, store_and_record = snapshot.SnapshotActivities._claim, snapshot.SnapshotActivities._store_and_record

    async def attempt(*args: Any, **kwargs: Any) -> Any:
        try:
            return await store_and_record(*args, **kwargs)
        finally:
            (Path(os.environ["HOME"]) / SNAPSHOT_ATTEMPTED.format(pid=os.getpid())).touch()

    async def shielded_attempt(*args: Any, **kwargs: Any) -> Any:
        return await wait_for_answer(attempt(*args, **kwargs))

    async def claim(self: Any, build_id: UUID, request: Any) -> Any:
        result = await original(self, build_id, request)
        if not isinstance(result, snapshot._Claimed):
            return result
        async with transaction(self._sessions) as tx:
            await tx.session.execute(update(Snapshot).where(Snapshot.id == result.id).values(claim=UUID(int=1)))
        return replace(result, claim=UUID(int=1))

    snapshot.SnapshotActivities._claim = claim  # type: ignore[method-assign]
    snapshot.SnapshotActivities._store_and_record = shielded_attempt  # type: ignore[method-assign]


def _without_intent() -> None:
    """Act on a tool call without recording the intent first: its row looks as if no attempt had begun."""
    original = dispatch.DispatchActivities._intend

    async def intend(self: Any, request: Any) -> Any:
        intent = await original(self, request)
        async with transaction(self._sessions) as tx:
            await tx.session.execute(
                update(ToolCall)
                .where(ToolCall.tool_use_id == request.tool_use_id, ToolCall.state == "intended")
                .values(state="requested", sandbox_id=None, boot=None)
            )
        return intent

    dispatch.DispatchActivities._intend = intend  # type: ignore[method-assign]


def _without_journal() -> None:
    """Make the runner inside the sandbox forget the calls that it has begun, and begin them again."""
    claim_code = "        os.mkdir(folder)\n    except FileExistsError:"
    assert claim_code in sandbox.RUNNER_SOURCE
    forgetful_code = f"        os.path.isdir(folder) and os.rename(folder, folder + str(time.time()))\n{claim_code}"
    _use_runner(sandbox.RUNNER_SOURCE.replace(claim_code, forgetful_code))


def _without_verification() -> None:
    """Accept a resumed workspace without comparing it with its last known state."""

    async def changes(*_: Any) -> list[str]:
        return []

    workspace.WorkspaceActivities._changes = changes  # type: ignore[assignment,method-assign]


def _use_next_version() -> None:
    _use_runner(sandbox.RUNNER_SOURCE + "\n# the next version\n")


def _use_runner(source: str) -> None:
    sandbox.RUNNER_SOURCE = source
    sandbox.RUNNER_MODULE = f"runner_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
