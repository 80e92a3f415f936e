"""Safeguards switched off one at a time, to see that the fault tests find the damage. Only in a rigged worker.

Each is undone in the narrowest place: what else protects the same thing stays.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import update

from activities import dispatch, snapshot, workspace
from clients import sandbox
from clients.shielded import wait_for_answer
from db.models import Snapshot, ToolCall

NEWER = "newer"
"""No safeguard: a worker of the next version, whose runner inside of sandboxes is another one."""

TAKEN = "taken-{pid}"
"""A file in the home directory of a worker without claims: its attempt at a snapshot is over, written or failed."""

SAFEGUARDS = ("claim", "intent", "journal", "verification")


def count_edits() -> None:
    """Let write_file and edit_file do outside of the workspace what the story's commands do there: leave a line for
    each time that they take effect."""
    edits = "                outcome = {"
    assert sandbox.RUNNER_SOURCE.count(edits) == 1
    counts = "                open('/tmp/effects', 'a').write(call_id + chr(10))\n"
    _use_runner(sandbox.RUNNER_SOURCE.replace(edits, counts + edits))


def switch_off(safeguard: str) -> None:
    """Do without it in this process, from now on."""
    off: dict[str, Callable[[], None]] = {
        "claim": _without_claim,
        "intent": _without_intent,
        "journal": _without_journal,
        "verification": _without_verification,
        NEWER: _newer,
    }
    off[safeguard]()


def _without_claim() -> None:
    """Every attempt at a snapshot has the same token, so that a stale one's write goes through.

    The SDK cancels an attempt that has hung past its heartbeat as soon as it goes on, which comes before the write or
    just after it; here it comes after it.
    """

    original, taking = snapshot.SnapshotActivities._claim, snapshot.SnapshotActivities._store_and_record

    async def to_its_end(*args: Any) -> Any:
        try:
            return await taking(*args)
        finally:
            (Path(os.environ["HOME"]) / TAKEN.format(pid=os.getpid())).touch()

    async def take(*args: Any) -> Any:
        return await wait_for_answer(to_its_end(*args))

    async def claim(self: Any, build_id: UUID, request: Any) -> Any:
        claimed = await original(self, build_id, request)
        if not isinstance(claimed, snapshot._Claimed):
            return claimed
        async with self._sessions.begin() as session:
            await session.execute(update(Snapshot).where(Snapshot.id == claimed.id).values(claim=UUID(int=1)))
        return snapshot._Claimed(claimed.id, claimed.build_id, UUID(int=1), claimed.archive_key, claimed.manifest_key)

    snapshot.SnapshotActivities._claim = claim  # type: ignore[method-assign]
    snapshot.SnapshotActivities._store_and_record = take  # type: ignore[assignment,method-assign]


def _without_intent() -> None:
    """Nothing is written before a tool call is acted on: its row is as if nobody had begun."""
    original = dispatch.DispatchActivities._intend

    async def intend(self: Any, request: Any) -> Any:
        intent = await original(self, request)
        async with self._sessions.begin() as session:
            await session.execute(
                update(ToolCall)
                .where(ToolCall.tool_use_id == request.tool_use_id, ToolCall.state == "intended")
                .values(state="requested", sandbox_id=None, boot=None)
            )
        return intent

    dispatch.DispatchActivities._intend = intend  # type: ignore[method-assign]


def _without_journal() -> None:
    """The runner inside the sandbox forgets that it has begun a call, and begins it again."""
    claims = "        os.mkdir(folder)\n    except FileExistsError:"
    assert claims in sandbox.RUNNER_SOURCE
    forgets = f"        os.path.isdir(folder) and os.rename(folder, folder + str(time.time()))\n{claims}"
    _use_runner(sandbox.RUNNER_SOURCE.replace(claims, forgets))


def _without_verification() -> None:
    """A resumed workspace is taken for what it was, whatever it is."""

    async def changes(*_: Any) -> list[str]:
        return []

    workspace.WorkspaceActivities._changes = changes  # type: ignore[assignment,method-assign]


def _newer() -> None:
    _use_runner(sandbox.RUNNER_SOURCE + "\n# the next version\n")


def _use_runner(source: str) -> None:
    sandbox.RUNNER_SOURCE = source
    sandbox.RUNNER_MODULE = f"runner_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
