"""Git outside the sandbox, against a real git server over HTTP: what it pushes, what it refuses, and what it says."""

import asyncio
import base64
import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clients.git import Credentials, GitDirectory, git_directory
from domain.errors import PushFailed
from domain.push import PushFailure, parse_target
from tests.harness.git_server import TOKEN, GitServer, ProcessWatch, git, git_server
from tests.harness.wait import wait_until

CREDENTIALS = Credentials("x-access-token", TOKEN)
MAX_BYTES = 50_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with git_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with one commit."""
    work = tmp_path / "work"
    work.mkdir()
    git("init", "-q", "-b", "main", ".", cwd=work)
    (work / "app.py").write_text("print('hello')\n")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Add the app", cwd=work)
    return work


@asynccontextmanager
async def fetched(work: Path) -> AsyncIterator[GitDirectory]:
    async with git_directory(MAX_BYTES) as directory:
        git("bundle", "create", "-q", str(directory.bundle), "HEAD", cwd=work)
        assert await directory.fetch_bundle() == git("rev-parse", "HEAD", cwd=work)
        yield directory


async def push(work: Path, url: str, branch: str = "main", credentials: Credentials = CREDENTIALS) -> bool:
    target = parse_target(url, credentials.token)
    async with fetched(work) as directory:
        return await directory.push(target, ["127.0.0.1"], branch, credentials, target.scheme)


async def failure(work: Path, url: str, branch: str = "main", credentials: Credentials = CREDENTIALS) -> PushFailed:
    with pytest.raises(PushFailed) as failed:
        await push(work, url, branch, credentials)
    return failed.value


async def test_the_whole_history_arrives_at_the_branch(server: GitServer, work: Path) -> None:
    git("commit", "-qm", "More", "--allow-empty", cwd=work)
    repository = server.repository("good/whole")
    assert await push(work, server.url_of(repository), "feature/one")
    head = git("rev-parse", "HEAD", cwd=work)
    assert git("rev-parse", "refs/heads/feature/one", cwd=repository) == head
    assert git("rev-list", "--count", "feature/one", cwd=repository) == "2"
    assert git("for-each-ref", "--format=%(refname)", cwd=repository) == "refs/heads/feature/one"
    assert not await push(work, server.url_of(repository), "feature/one"), "it is there already"
    git("commit", "-qm", "Even more", "--allow-empty", cwd=work)
    assert await push(work, server.url_of(repository), "feature/one")


async def test_nothing_is_overwritten(server: GitServer, work: Path, tmp_path: Path) -> None:
    repository = server.repository("good/theirs")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    git("init", "-q", "-b", "main", ".", cwd=theirs)
    git("commit", "-qm", "Theirs", "--allow-empty", cwd=theirs)
    await push(theirs, server.url_of(repository))
    before = git("rev-parse", "main", cwd=repository)
    failed = await failure(work, server.url_of(repository))
    assert failed.details["reason"] == PushFailure.CONFLICT
    assert "has commits that this build does not have" in str(failed)
    assert git("rev-parse", "main", cwd=repository) == before
    assert await push(work, server.url_of(repository), "cofounder")


@pytest.mark.parametrize(
    ("hook", "reason", "words"),
    [
        ("echo 'GH006: Protected branch update failed for refs/heads/main.' >&2; exit 1", "protected", "is protected"),
        ("echo 'Commit messages need a ticket' >&2; exit 1", "declined", "Commit messages need a ticket"),
        (
            "echo 'error: GH001: a.bin is 120 MB; this exceeds the file size limit' >&2; exit 1",
            "too_large",
            "a.bin is 120 MB",
        ),
    ],
)
async def test_what_a_hook_of_the_server_says_is_passed_on(
    server: GitServer, work: Path, hook: str, reason: str, words: str
) -> None:
    repository = server.repository(f"good/{reason}", hook)
    failed = await failure(work, server.url_of(repository))
    assert failed.details["reason"] == reason
    assert words in str(failed)


async def test_refusals_are_said_plainly(server: GitServer, work: Path) -> None:
    url = server.url_of(server.repository("good/guarded"))
    wrong = await failure(work, url, credentials=Credentials("ada", "wrong-token"))
    assert wrong.details["reason"] == PushFailure.NOT_ACCEPTED
    assert "does not accept the token" in str(wrong)
    assert (await failure(work, f"{server.url}/forbidden/x.git")).details["reason"] == PushFailure.NOT_ALLOWED
    missing = await failure(work, f"{server.url}/good/missing.git")
    assert missing.details["reason"] == PushFailure.NOT_FOUND
    assert "Create an empty one" in str(missing)
    gone = await failure(work, "http://127.0.0.1:1/good/x.git")
    assert gone.details["reason"] == PushFailure.UNREACHABLE


async def test_a_redirect_is_not_followed(server: GitServer, work: Path) -> None:
    server.requests.clear()
    failed = await failure(work, f"{server.url}/redirect/x.git")
    assert failed.details["reason"] == PushFailure.REDIRECTED
    assert len(server.requests) == 1
    assert "follow no redirect" in str(failed)


async def test_the_address_that_was_checked_is_used_without_a_second_look_at_dns(server: GitServer, work: Path) -> None:
    repository = server.repository("good/pinned")
    url = f"http://git.cofounder.invalid:{server.port}/good/pinned.git"
    assert await push(work, url)
    assert git("rev-parse", "main", cwd=repository) == git("rev-parse", "HEAD", cwd=work)


async def test_a_server_has_to_prove_its_name(work: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("this machine lacks openssl, which makes the certificate")
    certificate, public = tmp_path / "server.pem", tmp_path / "public.pem"
    subject = ("-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", str(certificate), "-out", str(public))
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject)
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + public.read_text())
    with git_server(tmp_path / "server", certificate) as server:
        failed = await failure(work, f"https://127.0.0.1:{server.port}/good/x.git")
        assert server.requests == []
    assert failed.details["reason"] == PushFailure.UNREACHABLE
    assert "certificate" in str(failed)


@pytest.mark.parametrize(
    "url", ["ext::sh -c 'touch %s'", "file:///tmp/x", "ssh://git@127.0.0.1/x", "git://127.0.0.1/x"]
)
async def test_git_itself_speaks_no_other_protocol(work: Path, tmp_path: Path, url: str) -> None:
    """Such a URL is refused before git starts; this is the second lock."""
    proof = tmp_path / "proof"

    class Hostile(type(parse_target("https://a.example/b", ""))):  # type: ignore[misc]
        @property
        def url(self) -> str:
            return url.replace("%s", str(proof))

    target = Hostile("https", "a.example", 443, "/b")
    async with fetched(work) as directory:
        with pytest.raises(PushFailed, match="not allowed"):
            await directory.push(target, ["127.0.0.1"], "main", CREDENTIALS, "https")
    assert not proof.exists()


async def test_the_token_shows_nowhere(
    server: GitServer, work: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GIT_TRACE", "1")
    monkeypatch.setenv("GIT_TRACE_CURL", "1")
    monkeypatch.setenv("GIT_ASKPASS", "/bin/false")
    repository = server.repository("good/secret")
    with ProcessWatch() as watch:
        await push(work, server.url_of(repository))
        echoed = await failure(work, f"{server.url}/echo/x.git")
    assert "The server's answer: Basic ***" in str(echoed)
    forms = [TOKEN, TOKEN.encode().hex(), base64.b64encode(f"{CREDENTIALS.username}:{TOKEN}".encode()).decode()]
    assert any(b"git-remote-http" in each for each in watch.seen), "the push was watched"
    for form in forms:
        assert not [each for each in watch.seen if form.encode() in each]
        assert form not in caplog.text
        assert form not in str(echoed)
        assert form not in repr(CREDENTIALS)


async def test_configuration_of_this_machine_counts_for_nothing(
    server: GitServer, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    hook = home / "hooks/pre-push"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {home}/ran\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\nhooksPath = {hook.parent}\n[url "http://169.254.169.254/"]\ninsteadOf = {server.url}/\n'
        f"[init]\ntemplateDir = {home}\n"
    )
    for name, value in {"HOME": str(home), "GIT_CONFIG_COUNT": "1", "http_proxy": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hook.parent))
    repository = server.repository("good/configured")
    assert await push(work, server.url_of(repository))
    assert not (home / "ran").exists()


_PUSH = """
import asyncio, sys, pathlib
from clients.git import Credentials, git_directory
from domain.push import parse_target

async def push():
    async with git_directory(10**7) as directory:
        directory.bundle.write_bytes(pathlib.Path(sys.argv[1]).read_bytes())
        await directory.fetch_bundle()
        token = sys.stdin.read()
        await directory.push(parse_target(sys.argv[2], token), [], "main", Credentials("ada", token), "http")

asyncio.run(push())
"""


async def test_git_ends_with_the_process_that_has_started_it(server: GitServer, work: Path, tmp_path: Path) -> None:
    server.hold.clear()
    server.requests.clear()
    repository = server.repository("slow/killed")
    git("bundle", "create", "-q", str(tmp_path / "bundle"), "HEAD", cwd=work)
    pushing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PUSH, str(tmp_path / "bundle"), server.url_of(repository)),
        stdin=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[3],
    )
    assert pushing.stdin is not None
    pushing.stdin.write(TOKEN.encode())
    pushing.stdin.close()
    await wait_until(lambda: len(server.requests) > 1)
    assert processes_in(tmp_path)
    pushing.kill()
    await pushing.wait()
    await wait_until(lambda: not processes_in(tmp_path))
    server.hold.set()
    assert git("for-each-ref", cwd=repository) == ""


def processes_in(directory: Path) -> list[str]:
    """Ids of the processes that work in a directory below this one."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal() and (process / "cwd").readlink().is_relative_to(directory):
                found.append(process.name)
    return found


async def test_a_bundle_with_unsound_objects_is_refused(work: Path) -> None:
    """A tree with an entry `.git`, which would write a hook in every clone."""
    blob = git("hash-object", "-w", "--stdin", cwd=work, stdin=b"x")
    tree = git("mktree", cwd=work, stdin=f"100644 blob {blob}\tconfig\n".encode())
    raw = b"40000 .git\0" + bytes.fromhex(tree)
    evil = git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", cwd=work, stdin=raw)
    commit = git("commit-tree", evil, "-p", "HEAD", "-m", "x", cwd=work)
    git("update-ref", "HEAD", commit, cwd=work)
    async with git_directory(MAX_BYTES) as directory:
        git("bundle", "create", "-q", str(directory.bundle), "HEAD", cwd=work)
        with pytest.raises(PushFailed, match="damaged or incomplete") as failed:
            await directory.fetch_bundle()
    assert "hasDotgit" in str(failed.value)


async def test_what_is_not_a_bundle_or_lacks_history_is_refused(work: Path, tmp_path: Path) -> None:
    git("commit", "-qm", "More", "--allow-empty", cwd=work)
    git("clone", "-q", "--depth", "1", f"file://{work}", str(tmp_path / "shallow"), cwd=tmp_path)
    for make in ("junk", "shallow"):
        async with git_directory(MAX_BYTES) as directory:
            if make == "junk":
                directory.bundle.write_bytes(b"# v2 git bundle\nnot really")
            else:
                git("bundle", "create", "-q", str(directory.bundle), "HEAD", cwd=tmp_path / "shallow")
            with pytest.raises(PushFailed, match="damaged or incomplete"):
                await directory.fetch_bundle()
