"""What phases have changed, on real servers: the base of each, and that a diff costs no snapshot."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from activities.sandbox import phase_diffs
from activities.sandbox.phase_diffs import sweep_diffs
from activities.sandbox.snapshot_store import restore_snapshot
from clients.sandbox import Sandbox
from db.models import PhaseDiff
from db.phase_diffs import list_diffs
from db.tombstones import doomed_keys, lock_due
from db.transaction import transaction
from domain.payloads import TakenSnapshot, TakeSnapshot
from domain.workspace_diff import StoredDiff
from local.stack import LocalStack
from services.phase_diffs import read_stored_diff
from tests.harness.activities import ActivityHarness, open_activity_harness, shell

HOSTILE_CONFIG = """
git config diff.external 'echo external; false'
git config diff.noprefix true
git config diff.evil.textconv 'echo converted'
git config color.ui always
printf 'z*\na*\n' >/tmp/order; git config diff.orderFile /tmp/order
git config diff.context 0
printf '*.txt diff=evil\n' >.gitattributes
"""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def _end_phase(harness: ActivityHarness, build: str, sandbox: Sandbox, number: int, phase: int) -> TakenSnapshot:
    commit = (await shell(sandbox, "git rev-parse --short=12 HEAD")).strip()
    request = TakeSnapshot(
        build_id=build, sandbox_id=sandbox.id, number=number, reason="phase", phase=phase, commit=commit
    )
    return await harness.run(harness.snapshot.snapshot_workspace, request)


async def _rows(harness: ActivityHarness, build: str) -> list[PhaseDiff]:
    async with transaction(harness.sessions) as tx:
        return await list_diffs(tx, uuid.UUID(build))


async def _stored(harness: ActivityHarness, build: str, phase: int) -> StoredDiff:
    [row] = [row for row in await _rows(harness, build) if row.phase == phase]
    return await read_stored_diff(harness.store, row)


async def test_each_phase_is_compared_with_the_one_that_it_continues(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, f"{HOSTILE_CONFIG}\nprintf 'a\nb\n' >a.txt; git add -A; git commit -qm One")
    first = await _end_phase(harness, build, sandbox, 1, 1)
    await shell(sandbox, "echo c >>a.txt; printf 'x\\0y' >logo.bin; git add -A; git commit -qm 'Two'")
    await shell(sandbox, "echo uncommitted >>a.txt")
    second = await _end_phase(harness, build, sandbox, 2, 2)

    one = await _stored(harness, build, 1)
    assert (one.build, one.phase.base, one.phase.commit) == (None, None, first.commit)
    assert [change.path for change in one.phase.changes] == [".gitattributes", "a.txt"]
    two = await _stored(harness, build, 2)
    assert (two.phase.base, two.phase.commit) == (first.commit, second.commit)
    text, binary = two.phase.changes
    assert (text.path, text.additions, text.deletions) == ("a.txt", 1, 0)
    assert text.patch is not None
    assert text.patch.startswith("diff --git a/a.txt b/a.txt\n")
    assert text.patch.endswith("@@ -1,2 +1,3 @@\n a\n b\n+c\n")
    assert (binary.path, binary.binary, binary.status) == ("logo.bin", True, "added")
    assert two.build is not None
    assert (two.build.base, two.build.files, two.build.additions) == (None, 3, 4)
    events = [event.data for event in await harness.events(build, "phase_completed")]
    assert [(data["files"], data["additions"], data["deletions"]) for data in events] == [(2, 3, 0), (2, 1, 0)]

    # Back to the first phase: the next one continues that.
    await restore_snapshot(harness.store, sandbox, (await harness.rows(build))[1])
    await shell(sandbox, "echo other >b.txt; git add -A; git commit -qm 'Three'")
    await _end_phase(harness, build, sandbox, 3, 3)
    three = await _stored(harness, build, 3)
    assert three.phase.base == first.commit
    assert [change.path for change in three.phase.changes] == ["b.txt"]


@pytest.mark.thorough
async def test_a_phase_without_a_diff_is_a_phase_all_the_same(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("a mistake")

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(phase_diffs, "LONGEST_SECONDS", 0.2)
    sandbox = await harness.open(build)
    for number, broken in enumerate((fails, hangs), 1):
        monkeypatch.setattr(phase_diffs, "diff_phase", broken)
        await shell(sandbox, f"echo {number} >a; git add -A; git commit -qm {number}")
        await _end_phase(harness, build, sandbox, number, number)
    assert await _rows(harness, build) == []
    phases = [event.data for event in await harness.events(build, "phase_completed")]
    assert ["files" in data for data in phases] == [False, False]
    assert [row.state for row in (await harness.rows(build)).values()] == ["stored", "stored"]


@pytest.mark.thorough
async def test_only_diffs_that_no_phase_names_are_swept(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await shell(sandbox, "echo a >a; git add -A; git commit -qm One")
    await _end_phase(harness, build, sandbox, 1, 1)
    [row] = await _rows(harness, build)
    prefix = f"diffs/{build}/"
    assert await harness.store.keys(prefix) == [row.object_key]
    stale, unknown = f"{prefix}000001-dead.json.gz", f"{prefix}000002-dead.json.gz"
    for key in (stale, unknown, f"{prefix}else"):
        await harness.store.put(key, b"left")
    build_id, now = uuid.UUID(build), datetime.now(UTC)
    assert await sweep_diffs(harness.sessions, harness.store, build_id, None) == 1
    assert await sweep_diffs(harness.sessions, harness.store, build_id, now + timedelta(hours=1)) == 1
    async with transaction(harness.sessions) as tx:
        assert await doomed_keys(tx, build_id) == {stale, unknown}
        due = await lock_due(tx, 100, now + timedelta(days=30))
        assert {each.key for each in due if each.build_id == build_id and not each.is_named} == {stale, unknown}
