"""A build's sandbox: opened once, verified after a pause, restored if it is gone or differs, and released."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sandbox.snapshot_store import restore_snapshot
from clients.sandbox import Role, Sandbox
from clients.workspace_lock import WorkspaceLock
from db.models import Build, Message, Snapshot, ToolCall
from db.snapshots import current_snapshot
from db.transaction import transaction
from domain.errors import StaleClaim
from domain.former_inputs import current_input
from domain.payloads import OpenWorkspace, ResumedWorkspace, ResumeWorkspace, SandboxInput
from domain.status import Status
from domain.tools import summarize_call
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.wait import DEADLINE

NOW = ActivityEnvironment.default_info().started_time
"""The time at which attempts start in these tests."""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def resume(harness: ActivityHarness, build: str, sandbox: Sandbox, *, attempt: int = 1) -> ResumedWorkspace:
    given = ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="a test")
    return await harness.run(harness.workspace.resume_workspace, given, attempt=attempt)


async def pause(harness: ActivityHarness, build: str, sandbox: Sandbox) -> None:
    await harness.run(harness.workspace.pause_workspace, SandboxInput(build_id=build, sandbox_id=sandbox.id))


async def changes(harness: ActivityHarness, build: str) -> list[str]:
    event = (await harness.events(build, "resumed"))[-1]
    assert event.data["reason"] == "a test"
    told: list[str] = event.data["changes"]
    return told


async def saved_workspace(harness: ActivityHarness, build: str) -> Sandbox:
    """A workspace with one file, in snapshot 1."""
    sandbox = await harness.open(build)
    await shell(sandbox, "echo kept >a.txt; git add -A; git commit -qm A")
    await harness.take(build, sandbox, 1)
    return sandbox


async def test_a_fresh_workspace_is_an_empty_repository(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    assert await shell(sandbox, "ls -A; git symbolic-ref HEAD; git config user.name") == (
        ".git\nrefs/heads/main\nCofounder agent\n"
    )
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
    assert row.sandbox_id == sandbox.id


async def test_a_second_attempt_adopts_the_sandbox_and_kills_what_is_too_many(
    harness: ActivityHarness, build: str
) -> None:
    first = await harness.run(harness.workspace.open_workspace, OpenWorkspace(build_id=build))
    await harness.sandboxes.create(build, Role.WORKSPACE)
    again = await harness.run(harness.workspace.open_workspace, OpenWorkspace(build_id=build))
    assert again.sandbox == first.sandbox
    assert first.opened_at == NOW, "the sandbox has just been created"
    assert again.opened_at is not None
    assert again.opened_at < NOW, "the sandbox has run since then"
    assert await harness.sandboxes.find(build, Role.WORKSPACE) == [first.sandbox.sandbox_id]


async def test_a_half_restored_sandbox_is_restored_again(harness: ActivityHarness, build: str) -> None:
    first = await saved_workspace(harness, build)
    await shell(first, "rm a.txt; echo half >b.txt; rm /home/user/.cofounder/opened")
    opened = await harness.run(harness.workspace.open_workspace, OpenWorkspace(build_id=build))
    assert (opened.sandbox.sandbox_id, opened.restored_from) == (first.id, 1)
    assert await shell(first, "ls") == "a.txt\n"


async def test_a_second_build_continues_the_product(harness: ActivityHarness, build: str) -> None:
    await saved_workspace(harness, build)
    async with transaction(harness.sessions) as tx:
        first = await tx.session.get_one(Build, uuid.UUID(build))
        first.status, first.build_version = Status.READY, 1
        first.closed_at = first.created_at
        await tx.session.execute(update(Snapshot).where(Snapshot.build_id == first.id).values(final=True))
    second = await harness.build(first.project_id)
    opened = await harness.run(harness.workspace.open_workspace, OpenWorkspace(build_id=second))
    assert opened.restored_from == 1
    sandbox = await harness.sandboxes.connect(opened.sandbox.sandbox_id)
    assert await shell(sandbox, "cat a.txt; git log --format=%s; git status --porcelain") == "kept\nA\n"
    await harness.sandboxes.kill(sandbox.id)  # before it has a snapshot of its own
    resumed = await resume(harness, second, sandbox)
    assert (await changes(harness, second))[0].endswith("from snapshot 1 of an earlier build.")
    assert await shell(await harness.sandboxes.connect(resumed.sandbox.sandbox_id), "cat a.txt") == "kept\n"
    await harness.kill_all(second)


async def test_a_build_begins_with_the_snapshot_in_its_row_and_a_retry_with_the_same(
    harness: ActivityHarness, build: str
) -> None:
    sandbox = await saved_workspace(harness, build)
    await shell(sandbox, "echo later >a.txt; git commit -qam B")
    await harness.take(build, sandbox, 2)
    async with transaction(harness.sessions) as tx:
        first = await tx.session.get_one(Build, uuid.UUID(build))
        first.status, first.build_version = Status.READY, 1
        first.closed_at = first.created_at
        await tx.session.execute(
            update(Snapshot).where(Snapshot.build_id == first.id, Snapshot.number == 2).values(final=True)
        )
    second = await harness.build(first.project_id)
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(second))
        row.start_build_id, row.start_snapshot = first.id, 1
    for _ in range(2):
        opened = await harness.run(harness.workspace.open_workspace, OpenWorkspace(build_id=second))
        assert opened.restored_from == 1
        fresh = await harness.sandboxes.connect(opened.sandbox.sandbox_id)
        assert await shell(fresh, "cat a.txt; git log --format=%s") == "kept\nA\n"
        await harness.kill_all(second)
    await harness.kill_all(second)


async def test_pausing_ends_processes_and_resuming_finds_all_as_it_was(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await shell(sandbox, "setsid nohup sleep 1000 >/dev/null 2>&1 & ")
    await pause(harness, build, sandbox)
    assert [each.state for each in await harness.sandboxes.list_all() if each.build_id == build] == ["paused"]
    await pause(harness, build, sandbox)
    resumed = await resume(harness, build, sandbox)
    assert (resumed.restored, resumed.sandbox.sandbox_id) == (False, sandbox.id)
    assert resumed.opened_at == NOW, "the sandbox was resumed from a pause"
    assert await changes(harness, build) == []
    assert "sleep" not in await shell(sandbox, "cat /proc/[0-9]*/comm")


async def test_a_tampered_file_is_restored_and_reported(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await shell(sandbox, "echo tampered >a.txt; echo new >b.txt; chmod 600 .git/HEAD")
    resumed = await resume(harness, build, sandbox)
    assert (resumed.restored, resumed.sandbox.sandbox_id) == (True, sandbox.id)
    assert (await changes(harness, build))[1:] == [
        ".git/HEAD has mode 600, not 644",
        "a.txt has other content",
        "b.txt was not there",
    ]
    assert await shell(sandbox, "cat a.txt; ls") == "kept\na.txt\n"
    assert not (await resume(harness, build, sandbox)).restored


async def test_a_sandbox_that_is_gone_is_replaced(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await harness.sandboxes.kill(sandbox.id)
    resumed = await resume(harness, build, sandbox)
    assert resumed.restored
    assert resumed.sandbox.sandbox_id != sandbox.id
    assert "The sandbox was lost" in (await changes(harness, build))[0]
    other = await harness.sandboxes.connect(resumed.sandbox.sandbox_id)
    assert await shell(other, "cat a.txt") == "kept\n"
    # The attempt is repeated although it has ended: the workspace must not change again.
    assert (await resume(harness, build, sandbox, attempt=2)).sandbox == resumed.sandbox


async def test_a_run_that_does_not_know_its_sandbox_has_to_read_the_rows(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await harness.sandboxes.kill(sandbox.id)
    await resume(harness, build, sandbox)
    with pytest.raises(ApplicationError) as raised:
        await resume(harness, build, sandbox)
    assert (raised.value.type, raised.value.non_retryable) == ("RowsAreAhead", True)


async def test_a_sandbox_that_is_gone_before_any_snapshot_starts_empty(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await harness.sandboxes.kill(sandbox.id)
    assert (await resume(harness, build, sandbox)).restored
    assert "before anything was saved" in (await changes(harness, build))[0]


async def did(
    harness: ActivityHarness, build: str, sandbox: Sandbox, turn: int, *calls: tuple[str, dict[str, Any]]
) -> list[str]:
    """Run the calls of a turn in the sandbox, record them, and return their ids.

    They are recorded with the names that fields had before, and are applied again all the same.
    """
    build_id, boot = uuid.UUID(build), await sandbox.boot()
    blocks, rows = [], []
    for position, (name, given) in enumerate(calls):
        call_id = f"toolu_{uuid.uuid4().hex}"
        blocks.append({"type": "tool_use", "id": call_id, "name": name, "input": given})
        row = ToolCall(build_id=build_id, tool_use_id=call_id, turn=turn, position=position, name=name)
        row.summary, row.state, row.claim, row.result = summarize_call(name, given), "done", uuid.uuid4(), "{}"
        row.sandbox_id, row.boot = sandbox.id, boot
        run = await sandbox.call(call_id, name, current_input(name, given), timeout_seconds=DEADLINE)
        row.is_error = run.is_error
        rows.append(row)
    async with transaction(harness.sessions) as tx:
        tx.session.add(Message(build_id=build_id, turn=turn, role="assistant", content=json.dumps(blocks)))
        for row in rows:
            row.intended_at = row.done_at = func.clock_timestamp()
            tx.session.add(row)
            await tx.session.flush()
    return [row.tool_use_id for row in rows]


def bash(command: str) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": command, "timeout_seconds": None}


def wrote(path: str, content: str) -> tuple[str, dict[str, Any]]:
    return "write_file", {"path": path, "content": content}


def edited(path: str, old: str, new: str) -> tuple[str, dict[str, Any]]:
    return "edit_file", {"path": path, "old_text": old, "new_text": new, "replace_all": None}


async def test_edits_since_the_snapshot_are_applied_again_up_to_the_first_that_does_not_fit(
    harness: ActivityHarness, build: str
) -> None:
    sandbox = await harness.open(build)
    await did(harness, build, sandbox, 1, wrote("a.txt", "one\n"), bash("git add -A; git commit -qm A"))
    await harness.take(build, sandbox, 1)
    await did(harness, build, sandbox, 2, edited("a.txt", "one", "one and one"), edited("a.txt", "none", "x"))
    await did(harness, build, sandbox, 3, wrote("b/c.txt", "new\n"), bash("sed -i s/one/two/g a.txt"))
    await did(harness, build, sandbox, 4, edited("b/c.txt", "new", "newer"), edited("a.txt", "two and", "three and"))
    await did(harness, build, sandbox, 5, wrote("b/d.txt", "last\n"))
    await harness.sandboxes.kill(sandbox.id)
    resumed = await resume(harness, build, sandbox)
    assert (resumed.restored, resumed.reapplied) == (True, True)
    again = await harness.sandboxes.connect(resumed.sandbox.sandbox_id)
    assert await shell(again, "cat a.txt b/c.txt; ls b") == "one and one\nnewer\nc.txt\n"
    lost, applied, left, commands, fresh = await changes(harness, build)
    assert lost == "The sandbox was lost: the workspace was restored from snapshot 1."
    assert applied == (
        "Edits made since were applied again: edit_file: a.txt; write_file: b/c.txt; edit_file: b/c.txt."
    )
    assert "fit any more: edit_file: a.txt; write_file: b/d.txt. (old_string does not occur in a.txt." in left
    assert commands.endswith("is lost: bash: sed -i s/one/two/g a.txt.")
    assert "fresh sandbox" in fresh

    # An attempt that dies after the edits but before it has recorded them is repeated: they must not be applied twice.
    await shell(again, """echo '["because"]' >/home/user/.cofounder/changes""")
    assert (await resume(harness, build, again)).reapplied
    assert await shell(again, "cat a.txt") == "one and one\n"
    assert (await changes(harness, build))[0] == "because"


async def test_an_edit_that_may_be_in_the_snapshot_is_not_applied_again(harness: ActivityHarness, build: str) -> None:
    """It was begun before the snapshot and recorded after it, as if its result could not be written earlier."""
    sandbox = await harness.open(build)
    await did(harness, build, sandbox, 1, wrote("a.txt", "one"))
    unsure = await did(harness, build, sandbox, 2, wrote("b.txt", "b"), edited("a.txt", "one", "one and one"))
    await harness.take(build, sandbox, 1)
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            update(ToolCall).where(ToolCall.tool_use_id.in_(unsure)).values(done_at=func.clock_timestamp())
        )
    await harness.sandboxes.kill(sandbox.id)
    resumed = await resume(harness, build, sandbox)
    again = await harness.sandboxes.connect(resumed.sandbox.sandbox_id)
    assert await shell(again, "cat a.txt") == "one and one"
    assert "may be in the snapshot" in (await changes(harness, build))[2]


async def test_a_stale_attempt_restores_nothing(harness: ActivityHarness, build: str) -> None:
    """The attempt missed its heartbeat, and continues after another has restored the workspace and the agent works."""
    sandbox = await saved_workspace(harness, build)
    lock = await WorkspaceLock.acquire(sandbox, 2_000_000_000.0)
    await lock.run("echo work >/home/user/project/b.txt")
    await shell(sandbox, "setsid nohup sleep 1000 >/dev/null 2>&1 &")
    given = ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="a test")
    with pytest.raises(ApplicationError) as raised:
        await harness.run(harness.workspace.resume_workspace, given)
    assert raised.value.type == "StaleClaim"
    stale = WorkspaceLock(sandbox, f"{1_000_000_000.0:020.6f}")
    async with transaction(harness.sessions) as tx:
        snapshot = await current_snapshot(tx, uuid.UUID(build))
    assert snapshot is not None
    with pytest.raises(StaleClaim):
        await restore_snapshot(harness.store, sandbox, snapshot, stale)
    given_edits = {
        "holder": stale.token,
        "edits": [{"tool": "write_file", "input": {"file_path": "b.txt", "content": ""}}],
    }
    outcome = await sandbox.call("stale", "reapply", given_edits, timeout_seconds=DEADLINE)
    assert json.loads(outcome.text) == {"held": False}
    for stop in (harness.take(build, sandbox, 2, "sleep"), pause(harness, build, sandbox)):
        with pytest.raises(ApplicationError) as raised:
            await stop
        assert raised.value.type == "StaleClaim"
    assert await shell(sandbox, "cat a.txt b.txt; git log --format=%s") == "kept\nwork\nA\n"
    assert "sleep" in await shell(sandbox, "cat /proc/[0-9]*/comm")


async def test_a_replaced_sandbox_is_released_once_another_is_whole(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await did(harness, build, sandbox, 1, wrote("b.txt", "b"))
    given = ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="a test", replace=True)
    resumed = await harness.run(harness.workspace.resume_workspace, given)
    assert await harness.sandboxes.find(build, Role.WORKSPACE) == [resumed.sandbox.sandbox_id] != [sandbox.id]
    again = await harness.sandboxes.connect(resumed.sandbox.sandbox_id)
    assert await shell(again, "cat a.txt b.txt") == "kept\nb"
    assert (await changes(harness, build))[0] == "The sandbox was replaced: the workspace was restored from snapshot 1."


async def test_an_interrupted_restore_continues_and_still_says_why(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await shell(
        sandbox, """echo '["because"]' >/home/user/.cofounder/changes; rm /home/user/.cofounder/opened; rm -r .git"""
    )
    assert (await resume(harness, build, sandbox)).restored
    assert await changes(harness, build) == ["because"]
    assert await shell(sandbox, "git status --porcelain") == ""


async def test_a_half_restored_workspace_is_not_saved(harness: ActivityHarness, build: str) -> None:
    sandbox = await saved_workspace(harness, build)
    await shell(sandbox, """echo '["because"]' >/home/user/.cofounder/changes; rm a.txt""")
    with pytest.raises(ApplicationError, match="incomplete") as raised:
        await harness.take(build, sandbox, 2)
    assert raised.value.type == "SnapshotFailed"
    assert (await resume(harness, build, sandbox)).restored
    assert (await harness.take(build, sandbox, 2)).number == 2
    assert await shell(sandbox, "cat a.txt") == "kept\n"


@pytest.mark.parametrize("journaled", [True, False], ids=["still-there", "rolled-back"])
async def test_work_since_the_snapshot_stays_where_it_is_still_there(
    harness: ActivityHarness, build: str, journaled: bool
) -> None:
    sandbox = await saved_workspace(harness, build)
    [call] = await did(harness, build, sandbox, 1, bash("echo work >b.txt"))
    if not journaled:
        await shell(sandbox, f"rm -r /home/user/.cofounder/calls/{call}")
    assert (await resume(harness, build, sandbox)).restored is not journaled
    assert await shell(sandbox, "ls") == ("a.txt\nb.txt\n" if journaled else "a.txt\n")


async def test_a_call_of_a_time_that_the_database_lost_runs_again_in_a_restored_workspace(
    harness: ActivityHarness, build: str
) -> None:
    """The sandbox has the journal of calls that the rows, put back to before them, have not begun."""
    sandbox = await saved_workspace(harness, build)
    calls = [wrote("b.txt", "b"), bash("sleep 98765 & echo c >c.txt")]
    ids = await did(harness, build, sandbox, 1, *calls)
    unknown = dict.fromkeys(("claim", "result", "is_error", "sandbox_id", "boot", "intended_at", "done_at"))
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            update(ToolCall).where(ToolCall.tool_use_id.in_(ids)).values(state="requested", **unknown)
        )
    assert (await resume(harness, build, sandbox)).restored
    assert await shell(sandbox, "pgrep -f 'sleep 9876[5]' || ls") == "a.txt\n"
    for call_id, (name, given) in zip(ids, calls, strict=True):
        await sandbox.call(call_id, name, current_input(name, given), timeout_seconds=DEADLINE)
    assert await shell(sandbox, "cat b.txt c.txt") == "bc\n"


async def test_what_became_of_a_begun_call_is_unknown_in_a_restored_workspace(
    harness: ActivityHarness, build: str
) -> None:
    """The rows, put back to its middle, know it as begun. The sandbox has its outcome, and no longer its file."""
    sandbox = await saved_workspace(harness, build)
    call = bash("echo b >b.txt")
    [call_id] = await did(harness, build, sandbox, 1, call)
    unknown = dict.fromkeys(("result", "is_error", "done_at"))
    async with transaction(harness.sessions) as tx:
        begun = update(ToolCall).where(ToolCall.tool_use_id == call_id).values(state="intended", **unknown)
        await tx.session.execute(begun)
    await shell(sandbox, "rm b.txt; echo other >a.txt")
    assert (await resume(harness, build, sandbox)).restored
    outcome = await sandbox.call(call_id, *call, timeout_seconds=DEADLINE)
    assert (outcome.state, await shell(sandbox, "ls")) == ("lost", "a.txt\n")


async def test_release_deletes_all_but_what_is_kept(harness: ActivityHarness, build: str) -> None:
    workspace = await harness.open(build)
    gate = await harness.sandboxes.create(build, Role.GATE)
    other = await harness.sandboxes.create(build, Role.GATE)
    given = SandboxInput(build_id=build, sandbox_id=workspace.id, keep=gate.id)
    for _ in range(2):
        await harness.run(harness.workspace.release_workspace, given)
        left = [each.id for each in await harness.sandboxes.list_all() if each.build_id == build]
        assert left == [gate.id]
    assert other.id not in left
    async with transaction(harness.sessions) as tx:
        assert (await tx.session.get_one(Build, uuid.UUID(build))).sandbox_id is None
