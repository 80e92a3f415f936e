"""Snapshots on real servers: what they keep and leave out, and what remains after a crash or a stale attempt."""

import asyncio
import tracemalloc
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

import activities.snapshot
from activities.sandbox.snapshot_store import restore_snapshot, stored_manifest, verify_stored
from clients.archive import found_manifest
from clients.object_store import PART_BYTES, ObjectStore, StoredObject
from clients.sandbox import Role, Sandbox
from db.models import Snapshot
from db.snapshots import current_snapshot
from db.transaction import transaction
from domain.errors import SnapshotFailed
from domain.manifest import Kind, compare
from domain.payloads import ResumeWorkspace, SandboxInput, TakeSnapshot
from local.stack import LocalStack
from tests.harness.activities import KEPT_SNAPSHOTS, ActivityHarness, open_activity_harness, shell

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def paths_of(harness: ActivityHarness, snapshot: Snapshot) -> set[str]:
    return {entry.path for entry in await stored_manifest(harness.store, snapshot)}


async def elsewhere(harness: ActivityHarness, build: str) -> Sandbox:
    return await harness.sandboxes.create(build, Role.GATE)


async def test_a_restored_workspace_is_what_it_was(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(
        sandbox,
        r"""
        mkdir -p src/deep empty 'with space' node_modules/x data
        printf 'node_modules\n.env\ndata/*.db\n__pycache__/\n' >.gitignore
        echo secret >.env; echo db >data/app.db; echo dep >node_modules/x/index.js
        mkdir -p src/__pycache__ && echo x >src/__pycache__/a.pyc
        echo code >src/deep/main.py; chmod 750 src/deep/main.py; chmod 640 .env
        echo u >'with space/Grüße 🌱.txt'; printf x >"$(printf 'line\nbreak')"; printf x >"$(printf 'b\377d')"
        echo x >./-rf
        ln -s /etc/passwd absolute; ln -s ../outside src/relative; ln -s nowhere dangling
        ln src/deep/main.py src/hard
        mkfifo pipe
        head -c 300 /dev/zero | tr '\0' 'd' >name; mkdir "$(cut -c1-150 name)"
        mv name "$(cut -c1-150 name)/$(cut -c1-200 name)"
        git add -A && git commit -qm 'All kinds of files'
        echo untracked >untracked.txt; mkdir build; echo kept >build/kept.txt
        """,
    )
    taken = await harness.take(build, sandbox, 1)
    row = (await harness.rows(build))[1]
    assert row.state == "stored"
    assert row.commit == (await shell(sandbox, "git rev-parse HEAD")).strip() == taken.commit
    stored = {entry.path: entry for entry in await stored_manifest(harness.store, row)}
    assert taken.files == len(stored)
    assert {".env", "data/app.db", "empty", ".git/HEAD", "untracked.txt", "build/kept.txt", "-rf", "b\udcffd"} <= set(
        stored
    )
    assert not {path for path in stored if "node_modules" in path or "__pycache__" in path or path == "pipe"}
    assert (stored["src/deep/main.py"].mode, stored[".env"].mode) == (0o750, 0o640)
    assert {stored[path].kind for path in ("absolute", "src/relative", "dangling")} == {Kind.LINK}

    other = await elsewhere(harness, build)
    await shell(other, "echo old >old.txt; mkdir -p locked/in; chmod 500 locked; ln -s /home/user keep")
    await restore_snapshot(harness.store, other, row)
    assert compare(stored.values(), await found_manifest(other)) == []
    assert compare(await found_manifest(other), stored.values()) == []
    assert await shell(other, "git status --porcelain") == await shell(sandbox, "git status --porcelain")
    assert "old.txt" not in await shell(other, "ls")
    for place in (sandbox, other):
        assert await shell(place, "ls /home/user/.cofounder/archives 2>/dev/null || true") == ""


async def test_a_workspace_without_a_repository_is_kept_too(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "rm -rf .git")
    await harness.take(build, sandbox, 1)
    await shell(sandbox, "mkdir -p node_modules; echo x >node_modules/a")
    await harness.take(build, sandbox, 2)
    rows = await harness.rows(build)
    assert (await paths_of(harness, rows[1]), rows[1].commit) == (set(), None)
    assert await paths_of(harness, rows[2]) == {"node_modules", "node_modules/a"}
    await restore_snapshot(harness.store, sandbox, rows[1])
    assert await shell(sandbox, "ls -A") == ""


async def test_large_files_are_streamed(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "head -c 60000000 /dev/urandom >large.bin")
    tracemalloc.start()
    try:
        taken = await harness.take(build, sandbox, 1)
        await restore_snapshot(harness.store, sandbox, (await harness.rows(build))[1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken.bytes > 60_000_000
    assert peak < 3 * PART_BYTES + 10 * MEGABYTE


async def test_five_stay_and_the_final_one(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    for number in range(1, KEPT_SNAPSHOTS + 4):
        await harness.take(build, sandbox, number)
        if number == 1:
            async with transaction(harness.sessions) as tx:
                await tx.session.execute(
                    update(Snapshot).where(Snapshot.build_id == uuid.UUID(build)).values(final=True)
                )
    rows = await harness.rows(build)
    stored = [number for number, row in rows.items() if row.state == "stored"]
    assert sorted(stored) == [1, 4, 5, 6, 7, 8]
    keys = {key for number in stored for key in (rows[number].archive_key, rows[number].manifest_key)}
    assert await harness.kept_keys(build) == keys
    every = {key for row in rows.values() for key in (row.archive_key, row.manifest_key)}
    assert set(await harness.store.keys(f"snapshots/{build}/")) == every, "a database that is put back names them"


async def test_an_older_one_that_comes_late_is_not_the_current_one(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await harness.take(build, sandbox, 2)
    await shell(sandbox, "echo later >later.txt")
    await harness.take(build, sandbox, 1)
    async with transaction(harness.sessions) as tx:
        current = await current_snapshot(tx, uuid.UUID(build))
    assert current is not None
    assert current.number == 2
    await harness.sandboxes.kill(sandbox.id)
    given = ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="a test")
    again = (await harness.run(harness.workspace.resume_workspace, given)).sandbox
    assert await shell(await harness.sandboxes.connect(again.sandbox_id), "ls") == ""


async def test_the_feed_has_phases_and_snapshots_once(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "echo x >x; git add -A; git commit -qm 'Add x, \"quoted\"'")
    given = TakeSnapshot(build_id=build, sandbox_id=sandbox.id, number=1, reason="phase", phase=1)
    first = await harness.run(harness.snapshot.snapshot_workspace, given)
    assert await harness.run(harness.snapshot.snapshot_workspace, given) == first
    await harness.run(harness.snapshot.note_snapshot_failure, given)
    stored = await harness.events(build, "snapshot_stored")
    assert [event.data for event in stored] == [
        {"number": 1, "reason": "phase", "bytes": first.bytes, "files": first.files}
    ]
    phases = await harness.events(build, "phase_completed")
    changed = {"files": 1, "additions": 1, "deletions": 0}
    assert [event.data for event in phases] == [
        {"phase": 1, "commit": first.commit, "title": 'Add x, "quoted"', **changed}
    ]
    assert await harness.events(build, "snapshot_failed") == []


async def test_a_failure_is_in_the_feed_and_still_ends_the_phase(harness: ActivityHarness, build: str) -> None:
    given = TakeSnapshot(
        build_id=build, sandbox_id="gone", number=1, reason="phase", phase=1, commit="abc", error="No."
    )
    with pytest.raises(ApplicationError) as failed:
        await harness.run(harness.snapshot.snapshot_workspace, given)
    assert failed.value.type == "SandboxGone"
    await harness.run(harness.snapshot.note_snapshot_failure, given)
    await harness.run(harness.snapshot.note_snapshot_failure, given)
    assert (await harness.rows(build))[1].state == "failed"
    assert [event.data for event in await harness.events(build, "snapshot_failed")] == [
        {"number": 1, "reason": "phase", "error": "No."}
    ]
    assert [event.data["commit"] for event in await harness.events(build, "phase_completed")] == ["abc"]


async def test_a_stale_attempt_stores_nothing(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt hangs after it has verified, a second takes over and stores, then the first continues."""
    sandbox = await harness.open(build)
    await shell(sandbox, "echo x >x")
    verified, go_on = asyncio.Event(), asyncio.Event()

    async def hanging(store: ObjectStore, key: str, stored: StoredObject) -> None:
        await verify_stored(store, key, stored)
        if not verified.is_set():
            verified.set()
            await go_on.wait()

    monkeypatch.setattr(activities.snapshot, "verify_stored", hanging)
    stale = asyncio.create_task(harness.take(build, sandbox, 1))
    await verified.wait()
    await harness.take(build, sandbox, 1)
    stored = (await harness.rows(build))[1]
    go_on.set()
    with pytest.raises(ApplicationError) as failed:
        await stale
    assert failed.value.type == "StaleClaim"
    now = (await harness.rows(build))[1]
    assert (now.claim, now.archive_key) == (stored.claim, stored.archive_key)
    assert set(await harness.store.keys(f"snapshots/{build}/")) == {stored.archive_key, stored.manifest_key}
    await restore_snapshot(harness.store, sandbox, now)


async def test_a_later_snapshot_ends_one_that_a_lost_run_was_taking(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow was lost with its namespace, and its successor does not know of the number."""
    sandbox = await harness.open(build)
    await shell(sandbox, "echo x >x")
    verified = asyncio.Event()

    async def hanging(*_: object) -> None:
        verified.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(activities.snapshot, "verify_stored", hanging)
        lost = asyncio.create_task(harness.take(build, sandbox, 1))
        await verified.wait()
        lost.cancel()
        await asyncio.wait([lost])
    assert (await harness.rows(build))[1].state == "taking"
    await harness.take(build, sandbox, 2)
    rows = await harness.rows(build)
    assert (rows[1].state, rows[2].state) == ("failed", "stored")


async def test_a_cancelled_snapshot_leaves_nothing(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, f"head -c {3 * PART_BYTES} /dev/urandom >large.bin")
    environment, added = ActivityEnvironment(), harness.store._add

    async def cancelling(upload: object, content: bytes) -> None:
        await added(upload, content)  # type: ignore[arg-type]
        environment.cancel()

    monkeypatch.setattr(harness.store, "_add", cancelling)
    given = TakeSnapshot(build_id=build, sandbox_id=sandbox.id, number=1, reason="gate")
    with pytest.raises(asyncio.CancelledError):
        await environment.run(harness.snapshot.snapshot_workspace, given)
    assert await harness.store.unfinished_uploads(f"snapshots/{build}/") == []
    assert await harness.store.keys(f"snapshots/{build}/") == []
    assert await shell(sandbox, "ls /home/user/.cofounder/archives 2>/dev/null || true") == ""
    monkeypatch.undo()
    await harness.take(build, sandbox, 1)


async def test_what_a_killed_attempt_has_left_is_swept(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    left = f"snapshots/{build}/000001-dead.tar.gz"
    await harness.store.put(left, b"half")
    await harness.store._begin(f"snapshots/{build}/000001-dying.tar.gz")
    await harness.take(build, sandbox, 1)
    row = (await harness.rows(build))[1]
    assert await harness.kept_keys(build) == {row.archive_key, row.manifest_key}
    assert await harness.store.unfinished_uploads(f"snapshots/{build}/") == []


async def test_what_is_left_is_swept_even_if_the_attempt_that_stored_the_snapshot_died(
    harness: ActivityHarness, build: str
) -> None:
    sandbox = await harness.open(build)
    taken = await harness.take(build, sandbox, 1)
    await harness.store.put(f"snapshots/{build}/000001-dead.tar.gz", b"of an attempt before the one that stored it")
    assert await harness.take(build, sandbox, 1) == taken
    row = (await harness.rows(build))[1]
    assert await harness.kept_keys(build) == {row.archive_key, row.manifest_key}


async def test_a_changed_archive_is_not_restored(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "echo x >x")
    await harness.take(build, sandbox, 1)
    row = (await harness.rows(build))[1]
    await harness.store.put(row.archive_key, b"something else")
    with pytest.raises(SnapshotFailed, match="has changed in the object store"):
        await restore_snapshot(harness.store, sandbox, row)
    await harness.store.delete([row.archive_key])
    with pytest.raises(SnapshotFailed, match="is not in the object store"):
        await restore_snapshot(harness.store, sandbox, row)
    assert await shell(sandbox, "cat x") == "x\n"


@pytest.mark.parametrize("reason", ["sleep", "wait"])
async def test_processes_end_before_a_snapshot_that_precedes_a_pause(
    harness: ActivityHarness, build: str, reason: str
) -> None:
    """Otherwise a server that writes files would make every wake a restore."""
    sandbox = await harness.open(build)
    await shell(sandbox, "setsid nohup bash -c 'trap \"\" TERM; while :; do date >>log; done' >/dev/null 2>&1 &")
    await harness.take(build, sandbox, 1, reason)
    row = (await harness.rows(build))[1]
    assert compare(await stored_manifest(harness.store, row), await found_manifest(sandbox)) == []
    paused = SandboxInput(build_id=build, sandbox_id=sandbox.id)
    await harness.run(harness.workspace.pause_workspace, paused)
    resumed = ResumeWorkspace(build_id=build, sandbox_id=sandbox.id, cause="a test")
    assert not (await harness.run(harness.workspace.resume_workspace, resumed)).restored
