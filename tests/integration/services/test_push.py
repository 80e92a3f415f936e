"""A snapshot's history reaches a real git server, whatever the agent has left in `.git`."""

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from clients.git import DIRECTORY_PREFIX, LEFT_OVER_SECONDS, Credentials, git_directory
from clients.sandbox import Role
from db.models import PushPermit, Snapshot
from db.transaction import transaction
from domain.errors import Conflict, InvalidInput, NoSandboxNow, NotFound, PushFailed
from domain.push import PushFailure
from local.stack import LocalStack
from services.permits import Permits
from services.push import Pushed, Pushes, PushPolicy, PushRequest
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.build_rows import owner_of
from tests.harness.git_server import TOKEN, GitServer, git, git_server
from tests.harness.wait import DEADLINE, wait_until

POLICY = PushPolicy(DEADLINE, 50_000_000, ("127.0.0.1", "git.cofounder.invalid", "metadata.cofounder.invalid"))

HOSTILE = """
rm -rf .git; git init -q -b trunk .
echo "print('hello')" >app.py; git add -A; git commit -qm 'Add the app'; git tag v1; git branch other
for hook in pre-push post-checkout reference-transaction pre-receive post-index-change; do
  printf '#!/bin/sh\\ncurl http://169.254.169.254/; touch /tmp/hook-ran; exit 1\\n' >.git/hooks/$hook
  chmod +x .git/hooks/$hook
done
cat >>.git/config <<'END'
[core]
	fsmonitor = touch /tmp/hook-ran
	sshCommand = touch /tmp/hook-ran
	askPass = touch /tmp/hook-ran
	hooksPath = .git/hooks
[credential]
	helper = "!touch /tmp/hook-ran; echo password=stolen"
[url "ext::sh -c 'touch /tmp/hook-ran'"]
	insteadOf = http://127.0.0.1
	pushInsteadOf = http://127.0.0.1
[remote "origin"]
	url = ext::sh -c 'touch /tmp/hook-ran'
	pushurl = http://169.254.169.254/x.git
	mirror = true
[http]
	followRedirects = true
	proxy = http://169.254.169.254:80
[push]
	followTags = true
[transfer]
	fsckObjects = false
END
"""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture(scope="module")
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    """A build with three snapshots: a hostile repository, none, and a history of 3 MB."""
    build_id = await harness.build()
    sandbox = await harness.open(build_id)
    await shell(sandbox, HOSTILE)
    await harness.take(build_id, sandbox, 1)
    await shell(sandbox, "rm -rf .git")
    await harness.take(build_id, sandbox, 2)
    await shell(sandbox, "git init -q -b main; head -c 3000000 /dev/urandom >noise; git add -A; git commit -qm Noise")
    await harness.take(build_id, sandbox, 3)
    yield build_id
    await harness.kill_all(build_id)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of its own: other tests push at the same time."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def resolve(host: str) -> list[str]:
    return {
        "git.cofounder.invalid": ["127.0.0.1"],
        "private.cofounder.invalid": ["8.8.8.8", "10.1.2.3"],
        "metadata.cofounder.invalid": ["169.254.169.254"],
    }[host]


def pushes(harness: ActivityHarness, **changed: Any) -> Pushes:
    policy = changed.pop("policy", POLICY)
    sandboxes = changed.pop("sandboxes", harness.sandboxes)
    permits = changed.pop("permits", harness.permits)
    return Pushes(harness.sessions, harness.store, sandboxes, permits, policy, resolve)


async def push(harness: ActivityHarness, build: str, url: str, **changed: Any) -> Pushed:
    request = PushRequest(
        url, Credentials("ada", TOKEN), branch=changed.pop("branch", None), snapshot=changed.pop("snapshot", 1)
    )
    user = await owner_of(harness.sessions, uuid.UUID(build))
    return await pushes(harness, **changed).push(user, uuid.UUID(build), request)


async def sandboxes_of_pushes(harness: ActivityHarness, build: str) -> list[str]:
    return await harness.sandboxes.find(build, Role.PUSH)


async def permits_of_pushes(harness: ActivityHarness) -> int:
    async with transaction(harness.sessions) as tx:
        return len((await tx.session.scalars(select(PushPermit.build_id))).all())


def directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*"))


def has_run() -> bool:
    return Path("/tmp/hook-ran").exists()


async def nothing_is_left(harness: ActivityHarness, build: str) -> None:
    assert await sandboxes_of_pushes(harness, build) == []
    assert await permits_of_pushes(harness) == 0
    assert directories() == set()


async def test_a_hostile_repository_is_pushed_and_nothing_of_it_runs_here(
    harness: ActivityHarness, build: str, server: GitServer
) -> None:
    repository = server.repository("good/hostile")
    server.requests.clear()
    pushed = await push(harness, build, f"http://git.cofounder.invalid:{server.port}/good/hostile.git")
    assert (pushed.branch, pushed.snapshot, pushed.is_new) == ("trunk", 1, True)
    assert pushed.repository == f"git.cofounder.invalid:{server.port}/good/hostile.git"
    assert git("for-each-ref", "--format=%(refname) %(objectname)", cwd=repository) == (
        f"refs/heads/trunk {pushed.commit}"
    )
    assert git("show", "trunk:app.py", cwd=repository) == "print('hello')"
    assert server.requests, "the server was reached although its URL was rewritten in .git/config"
    assert not has_run()
    [event] = await harness.events(build, "pushed")
    assert event.data == {"commit": pushed.commit, "branch": "trunk", "repository": pushed.repository}
    assert not (await push(harness, build, server.url_of(repository))).is_new
    await nothing_is_left(harness, build)


async def test_a_conflict_changes_nothing(harness: ActivityHarness, build: str, server: GitServer) -> None:
    repository = server.repository("good/conflict")
    tree = git("mktree", cwd=repository)
    theirs = git("commit-tree", tree, "-m", "Theirs", cwd=repository)
    git("update-ref", "refs/heads/trunk", theirs, cwd=repository)
    with pytest.raises(PushFailed, match="nothing was overwritten") as failed:
        await push(harness, build, server.url_of(repository))
    assert failed.value.details["reason"] == PushFailure.CONFLICT
    assert git("rev-parse", "trunk", cwd=repository) == theirs
    assert (await push(harness, build, server.url_of(repository), branch="mvp")).branch == "mvp"
    await nothing_is_left(harness, build)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ext::sh -c 'touch /tmp/hook-ran'", "Only https://"),
        ("http://169.254.169.254/latest/meta-data", "no git server is reached"),
        ("https://169.254.169.254/latest/meta-data", "no git server is reached"),
        ("https://metadata.cofounder.invalid/x.git", "no git server is reached"),
        ("https://private.cofounder.invalid/x.git", "PUSH_PRIVATE_HOSTS"),
        ("https://10.0.0.1/x.git", "PUSH_PRIVATE_HOSTS"),
        ("https://[::ffff:192.168.0.1]/x.git", "PUSH_PRIVATE_HOSTS"),
    ],
)
async def test_addresses_that_are_not_pushed_to(harness: ActivityHarness, build: str, url: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        await push(harness, build, url)


async def test_what_can_not_be_pushed(harness: ActivityHarness, build: str, server: GitServer) -> None:
    url = server.url_of(server.repository("good/never"))
    with pytest.raises(PushFailed, match="no git commit yet"):
        await push(harness, build, url, snapshot=2)
    with pytest.raises(NotFound, match="no snapshot 9"):
        await push(harness, build, url, snapshot=9)
    with pytest.raises(InvalidInput, match="branch"):
        await push(harness, build, url, branch="a..b")
    small = PushPolicy(DEADLINE, 100, POLICY.private_hosts)
    for snapshot in (1, 3):  # a file that is larger than it may be, and one that git is not allowed to write
        with pytest.raises(PushFailed, match="larger than") as failed:
            await push(harness, build, url, policy=small, snapshot=snapshot)
        assert failed.value.details["reason"] == PushFailure.TOO_LARGE
    await nothing_is_left(harness, build)


async def test_a_history_that_needs_more_than_one_request(
    harness: ActivityHarness, build: str, server: GitServer
) -> None:
    """Git sends more than a megabyte in chunks, after it has tried the credentials with an empty request."""
    repository = server.repository("good/large")
    pushed = await push(harness, build, server.url_of(repository), snapshot=3)
    assert git("rev-parse", "main", cwd=repository) == pushed.commit
    assert int(git("cat-file", "-s", "main:noise", cwd=repository)) == 3_000_000


async def test_only_the_commit_that_was_stored_is_pushed(
    harness: ActivityHarness, build: str, server: GitServer
) -> None:
    """What the sandbox says is not trusted."""
    of_build = (Snapshot.build_id == uuid.UUID(build), Snapshot.number == 3)
    async with transaction(harness.sessions) as tx:
        commit = await tx.session.scalar(select(Snapshot.commit).where(*of_build))
        await tx.session.execute(update(Snapshot).where(*of_build).values(commit="0" * 40))
    repository = server.repository("good/other")
    with pytest.raises(PushFailed, match="does not end at the snapshot's commit"):
        await push(harness, build, server.url_of(repository), snapshot=3)
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(update(Snapshot).where(*of_build).values(commit=commit))
    assert git("for-each-ref", cwd=repository) == ""


async def test_a_push_needs_a_sandbox_that_no_build_waits_for(
    harness: ActivityHarness, build: str, server: GitServer
) -> None:
    url = server.url_of(server.repository("good/room"))
    with pytest.raises(NoSandboxNow, match="E2B_API_KEY"):
        await push(harness, build, url, sandboxes=None)
    with pytest.raises(NoSandboxNow, match="Try again in a minute") as busy:  # its workspace has the only permit
        await push(harness, build, url, permits=Permits(harness.sessions, None, quota=1))
    assert busy.value.retry_after_seconds
    async with harness.permits.for_push(uuid.UUID(build), timedelta(minutes=1)):
        with pytest.raises(Conflict, match="Another push of this build"):
            await push(harness, build, url)
    await nothing_is_left(harness, build)


@pytest.mark.parametrize("when", ["bundling", "pushing"])
async def test_a_cancelled_push_leaves_nothing(
    harness: ActivityHarness, build: str, server: GitServer, when: str
) -> None:
    server.requests.clear()
    server.hold.clear()
    server.repository(f"slow/{when}")
    pushing = asyncio.create_task(push(harness, build, f"{server.url}/slow/{when}.git"))

    async def is_there() -> bool:
        assert not pushing.done()
        return bool(await sandboxes_of_pushes(harness, build) if when == "bundling" else server.requests[1:])

    await wait_until(is_there)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    server.hold.set()
    await nothing_is_left(harness, build)


async def test_a_push_that_takes_too_long_is_ended(harness: ActivityHarness, build: str, server: GitServer) -> None:
    server.hold.clear()
    url = server.url_of(server.repository("slow/late"))
    with pytest.raises(PushFailed, match="took longer than") as failed:
        await push(harness, build, url, policy=PushPolicy(4, POLICY.max_bytes, POLICY.private_hosts))
    server.hold.set()
    assert failed.value.details["reason"] == PushFailure.TIMED_OUT
    await nothing_is_left(harness, build)


async def test_directories_of_killed_processes_are_removed() -> None:
    left, young = (Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX)) for _ in range(2))
    (left / "bundle").touch()
    old = left.stat().st_mtime - LEFT_OVER_SECONDS - 1
    os.utime(left, (old, old))
    try:
        async with git_directory(1000):
            assert not left.exists()
            assert young.exists()
    finally:
        young.rmdir()
