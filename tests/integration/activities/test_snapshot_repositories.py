"""Snapshots are repositories, too: whole ones, and those of a history that the agent has overwritten stay."""

import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.exceptions import ApplicationError

from activities.sandbox.snapshot_store import restore_snapshot
from clients.sandbox import Role, Sandbox
from db.snapshots import current_snapshot
from db.transaction import transaction
from local.stack import LocalStack
from tests.harness.activities import KEPT_SNAPSHOTS, ActivityHarness, open_activity_harness, shell
from tests.harness.wait import DEADLINE

MANY = 10_000
"""More new objects than git leaves unpacked by itself."""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def bash(sandbox: Sandbox, command: str) -> str:
    """Run a command as the agent's tool does."""
    call = f"toolu_{uuid.uuid4().hex}"
    outcome = await sandbox.call(call, "bash", {"command": command}, timeout_seconds=DEADLINE)
    assert not outcome.is_error, outcome.text
    return outcome.text.strip()


async def is_current(harness: ActivityHarness, build: str) -> int | None:
    async with transaction(harness.sessions) as tx:
        snapshot = await current_snapshot(tx, uuid.UUID(build))
    return None if snapshot is None else snapshot.number


async def test_git_packs_nothing_by_itself_while_the_agent_works(harness: ActivityHarness, build: str) -> None:
    """A pack that is made while files are archived takes the place of objects that were listed."""
    sandbox = await harness.open(build)
    made = f"for n in $(seq {MANY}); do echo $n >f$n; done; git add -A"
    await bash(sandbox, f"{made}; git -c gc.autoDetach=false commit -qm 'Add many'; git gc --auto")
    loose = await bash(sandbox, "git count-objects | cut -d' ' -f1")
    assert int(loose) > MANY
    assert "gc" not in await shell(sandbox, "cat .git/config"), "the agent's own configuration is left alone"


async def test_the_agents_identity_is_not_in_the_repository(harness: ActivityHarness, build: str) -> None:
    """A scaffold's own `.git` takes the place of the workspace's, and commits still work."""
    sandbox = await harness.open(build)
    await bash(sandbox, "rm -rf .git; git init -q; echo x >x; git add x; git commit -qm 'Add x'")
    assert await bash(sandbox, "git log -1 --format='%an %ae %cn'") == (
        "Cofounder agent agent@cofounder.invalid Cofounder agent"
    )
    assert await bash(sandbox, "git -c user.name=Ada commit -q --allow-empty -m y; git log -1 --format=%an") == "Ada"


async def test_an_archive_whose_repository_is_torn_is_never_current(harness: ActivityHarness, build: str) -> None:
    """The agent runs `git gc` after the names were listed: its pack is missing, and so are the listed objects."""
    sandbox = await harness.open(build)
    await shell(sandbox, "for n in $(seq 300); do echo $n >f$n; done; git add -A; git commit -qm 'Add files'")
    await harness.take(build, sandbox, 1)
    torn = 'case $* in *--create*) git -C /home/user/project gc -q --prune=now;; esac; exec /usr/bin/tar "$@"'
    await shell(
        sandbox,
        f"mkdir -p /home/user/fake; printf '%s\\n' '#!/bin/bash' '{torn}' >/home/user/fake/tar; "
        "chmod +x /home/user/fake/tar; echo 'export PATH=/home/user/fake:$PATH' >/home/user/.bash_profile; "
        "echo more >more; git add -A; git commit -qm 'Add more'",
    )
    with pytest.raises(ApplicationError, match="repository") as failed:
        await harness.take(build, sandbox, 2)
    assert failed.value.type == "SnapshotFailed"
    assert await is_current(harness, build) == 1
    await harness.take(build, sandbox, 2)  # now everything is packed, so that nothing moves
    assert await is_current(harness, build) == 2
    other = await harness.sandboxes.create(build, Role.GATE)
    await restore_snapshot(harness.store, other, (await harness.rows(build))[2])
    await shell(other, "git fsck --connectivity-only")


async def test_a_repository_that_the_agent_has_broken_is_kept_as_it_is(harness: ActivityHarness, build: str) -> None:
    """It never keeps a build from falling asleep."""
    sandbox = await harness.open(build)
    await shell(sandbox, "echo x >x; git add -A; git commit -qm 'Add x'; rm -f .git/objects/*/*")
    await harness.take(build, sandbox, 1)
    await shell(sandbox, "echo nonsense >.git/HEAD")
    await harness.take(build, sandbox, 2)
    await shell(sandbox, "rm -rf .git; echo 'gitdir: /nowhere' >.git")
    await harness.take(build, sandbox, 3)
    assert await is_current(harness, build) == 3


async def test_the_last_snapshot_of_an_overwritten_history_stays(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    for number in (1, 2, 3):
        await bash(sandbox, f"echo {number} >f{number}; git add -A; git commit -qm 'Add {number}'")
        assert not (await harness.take(build, sandbox, number, "phase")).rewritten
    await bash(
        sandbox,
        "mkdir /tmp/app; cd /tmp/app; git init -q; echo new >new; git add -A; git commit -qm 'Scaffold'; "
        "cp -a /tmp/app/. /home/user/project; cd /home/user/project; echo y >y; git add -A; git commit -qm 'Add y'",
    )
    for _ in range(2):  # the second time, it has been stored before
        assert (await harness.take(build, sandbox, 4, "phase")).rewritten
    for number in range(5, 5 + KEPT_SNAPSHOTS + 1):
        assert not (await harness.take(build, sandbox, number)).rewritten
    rows = await harness.rows(build)
    stored = sorted(number for number, row in rows.items() if row.state == "stored")
    assert stored == [3, 6, 7, 8, 9, 10]
    assert [number for number, row in rows.items() if row.kept] == [3]
    other = await harness.sandboxes.create(build, Role.GATE)
    await restore_snapshot(harness.store, other, rows[3])
    assert await shell(other, "git log --format=%s") == "Add 3\nAdd 2\nAdd 1\n"
    (told,) = await harness.events(build, "guard")
    assert "Snapshot 3" in told.data["text"]


async def test_a_restore_that_the_founder_wants_overwrites_nothing(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    for number in (1, 2):
        await bash(sandbox, f"echo {number} >f{number}; git add -A; git commit -qm 'Add {number}'")
        await harness.take(build, sandbox, number, "phase")
    await bash(sandbox, "git reset -q --hard HEAD~1")
    assert not (await harness.take(build, sandbox, 3, "restore")).rewritten
    assert not (await harness.take(build, sandbox, 4, "sleep")).rewritten
    await bash(sandbox, "rm -rf .git")
    assert (await harness.take(build, sandbox, 5, "sleep")).rewritten
