"""A build's sandbox: opened once, verified after a pause, restored when it is gone or differs, and let go of."""

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update
from temporalio.exceptions import ApplicationError

from clients.sandbox import Role, Sandbox
from db.models import Build, Snapshot, ToolCall
from domain.payloads import OpenWorkspace, ResumedWorkspace, ResumeWorkspace, SandboxInput
from domain.status import Status
from local.stack import LocalStack
from tests.integration.rooms import Rooms, open_rooms, shell


@pytest.fixture(scope="module")
async def rooms(stack: LocalStack) -> AsyncIterator[Rooms]:
    async with open_rooms(stack) as opened:
        yield opened


@pytest.fixture
async def build(rooms: Rooms) -> AsyncIterator[str]:
    build_id = await rooms.build()
    yield build_id
    await rooms.kill_all(build_id)


async def resume(rooms: Rooms, build: str, sandbox: Sandbox) -> ResumedWorkspace:
    given = ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="a test")
    return await rooms.run(rooms.workspace.resume_workspace, given)


async def pause(rooms: Rooms, build: str, sandbox: Sandbox) -> None:
    await rooms.run(rooms.workspace.pause_workspace, SandboxInput(build_id=build, sandbox_id=sandbox.id))


async def changes(rooms: Rooms, build: str) -> list[str]:
    event = (await rooms.events(build, "resumed"))[-1]
    assert event.data["reason"] == "a test"
    told: list[str] = event.data["changes"]
    return told


async def saved(rooms: Rooms, build: str) -> Sandbox:
    """A workspace with one file, in snapshot 1."""
    sandbox = await rooms.open(build)
    await shell(sandbox, "echo kept >a.txt; git add -A; git commit -qm A")
    await rooms.take(build, sandbox, 1)
    return sandbox


async def test_a_fresh_workspace_is_an_empty_repository(rooms: Rooms, build: str) -> None:
    sandbox = await rooms.open(build)
    assert await shell(sandbox, "ls -A; git symbolic-ref HEAD; git config user.name") == (
        ".git\nrefs/heads/main\nCofounder agent\n"
    )
    async with rooms.sessions() as session:
        row = await session.get_one(Build, uuid.UUID(build))
    assert row.sandbox_id == sandbox.id


async def test_a_second_attempt_adopts_the_sandbox_and_kills_what_is_too_many(rooms: Rooms, build: str) -> None:
    first = await rooms.run(rooms.workspace.open_workspace, OpenWorkspace(build_id=build))
    await rooms.sandboxes.create(build, Role.WORKSPACE)
    again = await rooms.run(rooms.workspace.open_workspace, OpenWorkspace(build_id=build))
    assert again == first
    assert await rooms.sandboxes.find(build, Role.WORKSPACE) == [first.sandbox.sandbox_id]


async def test_a_half_restored_sandbox_is_restored_again(rooms: Rooms, build: str) -> None:
    first = await saved(rooms, build)
    await shell(first, "rm a.txt; echo half >b.txt; rm /home/user/.cofounder/opened")
    opened = await rooms.run(rooms.workspace.open_workspace, OpenWorkspace(build_id=build))
    assert (opened.sandbox.sandbox_id, opened.restored_from) == (first.id, 1)
    assert await shell(first, "ls") == "a.txt\n"


async def test_a_second_build_continues_the_product(rooms: Rooms, build: str) -> None:
    await saved(rooms, build)
    async with rooms.sessions.begin() as session:
        first = await session.get_one(Build, uuid.UUID(build))
        first.status, first.build_version = Status.READY, 1
        first.closed_at = first.created_at
        await session.execute(update(Snapshot).where(Snapshot.build_id == first.id).values(final=True))
    second = await rooms.build(first.project_id)
    opened = await rooms.run(rooms.workspace.open_workspace, OpenWorkspace(build_id=second))
    assert opened.restored_from == 1
    sandbox = await rooms.sandboxes.connect(opened.sandbox.sandbox_id)
    assert await shell(sandbox, "cat a.txt; git log --format=%s; git status --porcelain") == "kept\nA\n"
    await rooms.kill_all(second)


async def test_pausing_ends_processes_and_resuming_finds_all_as_it_was(rooms: Rooms, build: str) -> None:
    sandbox = await saved(rooms, build)
    await shell(sandbox, "setsid nohup sleep 1000 >/dev/null 2>&1 & ")
    await pause(rooms, build, sandbox)
    assert [each.state for each in await rooms.sandboxes.list_all() if each.build_id == build] == ["paused"]
    await pause(rooms, build, sandbox)
    resumed = await resume(rooms, build, sandbox)
    assert (resumed.restored, resumed.sandbox.sandbox_id) == (False, sandbox.id)
    assert await changes(rooms, build) == []
    assert "sleep" not in await shell(sandbox, "cat /proc/[0-9]*/comm")


async def test_a_tampered_file_is_restored_and_told(rooms: Rooms, build: str) -> None:
    sandbox = await saved(rooms, build)
    await shell(sandbox, "echo tampered >a.txt; echo new >b.txt; chmod 600 .git/HEAD")
    resumed = await resume(rooms, build, sandbox)
    assert (resumed.restored, resumed.sandbox.sandbox_id) == (True, sandbox.id)
    assert (await changes(rooms, build))[1:] == [
        ".git/HEAD has mode 600, not 644",
        "a.txt has other content",
        "b.txt was not there",
    ]
    assert await shell(sandbox, "cat a.txt; ls") == "kept\na.txt\n"
    assert not (await resume(rooms, build, sandbox)).restored


async def test_a_sandbox_that_is_gone_is_replaced(rooms: Rooms, build: str) -> None:
    sandbox = await saved(rooms, build)
    await rooms.sandboxes.kill(sandbox.id)
    resumed = await resume(rooms, build, sandbox)
    assert resumed.restored
    assert resumed.sandbox.sandbox_id != sandbox.id
    assert "The sandbox was lost" in (await changes(rooms, build))[0]
    other = await rooms.sandboxes.connect(resumed.sandbox.sandbox_id)
    assert await shell(other, "cat a.txt") == "kept\n"
    # The attempt was repeated, although it had ended: nothing more happens to the workspace.
    assert (await resume(rooms, build, sandbox)).sandbox == resumed.sandbox


async def test_a_sandbox_that_is_gone_before_any_snapshot_begins_anew(rooms: Rooms, build: str) -> None:
    sandbox = await rooms.open(build)
    await rooms.sandboxes.kill(sandbox.id)
    assert (await resume(rooms, build, sandbox)).restored
    assert "before anything was saved" in (await changes(rooms, build))[0]


async def test_an_interrupted_restore_goes_on_and_still_tells_why(rooms: Rooms, build: str) -> None:
    sandbox = await saved(rooms, build)
    await shell(
        sandbox, """echo '["because"]' >/home/user/.cofounder/changes; rm /home/user/.cofounder/opened; rm -r .git"""
    )
    assert (await resume(rooms, build, sandbox)).restored
    assert await changes(rooms, build) == ["because"]
    assert await shell(sandbox, "git status --porcelain") == ""


async def test_a_half_restored_workspace_is_not_saved(rooms: Rooms, build: str) -> None:
    sandbox = await saved(rooms, build)
    await shell(sandbox, """echo '["because"]' >/home/user/.cofounder/changes; rm a.txt""")
    with pytest.raises(ApplicationError, match="not whole") as raised:
        await rooms.take(build, sandbox, 2)
    assert raised.value.type == "SnapshotFailed"
    assert (await resume(rooms, build, sandbox)).restored
    assert (await rooms.take(build, sandbox, 2)).number == 2
    assert await shell(sandbox, "cat a.txt") == "kept\n"


@pytest.mark.parametrize("journaled", [True, False], ids=["still-there", "rolled-back"])
async def test_work_since_the_snapshot_stays_where_it_is_still_there(rooms: Rooms, build: str, journaled: bool) -> None:
    sandbox = await saved(rooms, build)
    call = {"command": "echo work >b.txt", "timeout_seconds": None}
    await sandbox.call("toolu_1", "bash", call, timeout_seconds=30)
    async with rooms.sessions.begin() as session:
        boot = await sandbox.boot()
        row = ToolCall(build_id=uuid.UUID(build), tool_use_id="toolu_1", turn=1, position=0, name="bash", summary="")
        row.state, row.claim, row.sandbox_id, row.boot = "done", uuid.uuid4(), sandbox.id, boot
        row.is_error, row.result = False, "{}"
        session.add(row)
        await session.flush()
        await session.refresh(row)
        row.intended_at = (await session.get_one(Build, uuid.UUID(build))).created_at
    if not journaled:
        await shell(sandbox, "rm -r /home/user/.cofounder/calls/toolu_1")
    async with rooms.sessions.begin() as session:
        now = (await rooms.rows(build))[1].stored_at
        await session.execute(update(ToolCall).where(ToolCall.build_id == uuid.UUID(build)).values(intended_at=now))
    assert (await resume(rooms, build, sandbox)).restored is not journaled
    assert await shell(sandbox, "ls") == ("a.txt\nb.txt\n" if journaled else "a.txt\n")


async def test_release_lets_go_of_all_but_what_is_kept(rooms: Rooms, build: str) -> None:
    workspace = await rooms.open(build)
    gate = await rooms.sandboxes.create(build, Role.GATE)
    other = await rooms.sandboxes.create(build, Role.GATE)
    given = SandboxInput(build_id=build, sandbox_id=workspace.id, keep=gate.id)
    for _ in range(2):
        await rooms.run(rooms.workspace.release_workspace, given)
        left = [each.id for each in await rooms.sandboxes.list_all() if each.build_id == build]
        assert left == [gate.id]
    assert other.id not in left
    async with rooms.sessions() as session:
        assert (await session.get_one(Build, uuid.UUID(build))).sandbox_id is None
