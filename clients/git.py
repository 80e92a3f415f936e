"""The git of this machine, which pushes what a sandbox has bundled. It trusts neither the bundle nor the server.

Git reads no configuration but ours, runs no hook, and has no environment of this process. The bundle is fetched into a
new bare repository in a private directory and checked there, so nothing of a workspace's own `.git` is used: no
configuration, no hook, no remote. The password is read from a pipe: it is in no argument, variable or file.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.cancellation import run_to_completion
from domain.errors import NoGit, PushFailed
from domain.push import GitTarget, PushFailure, blank_token, explain

OLDEST_GIT = (2, 37)
"""The first version that can be told at which address to reach a host."""

DIRECTORY_PREFIX = "cofounder-push-"

LEFT_OVER_SECONDS = 4 * 3600
"""A directory of a push that is older than this was left by a process that was killed."""

_OUTPUT_MAX_BYTES = 20_000
_MEMORY_KIB = 4 * 1024**2
_CPU_SECONDS = 600
_BLOCK_BYTES = 512
_REF = "refs/heads/product"

_ASKPASS = """#!/bin/sh
case "$1" in
  Username*) printf '%s\\n' "$PUSH_USERNAME" ;;
  *) exec cat "/dev/fd/$PUSH_TOKEN_FD" ;;
esac
"""

_CONFIGURATION = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.askPass": "",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.emptyAuth": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "http.proxy": "",
    "http.sslVerify": "true",
    "init.defaultBranch": "main",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "receive.fsckObjects": "true",
    "transfer.bundleURI": "false",
    "transfer.fsckObjects": "true",
}

_LIMITED = f"""
ulimit -t {_CPU_SECONDS}; ulimit -v {_MEMORY_KIB} 2>/dev/null; ulimit -c 0; ulimit -f "$1"
( cat "/dev/fd/$2"; kill -s KILL 0 ) >/dev/null 2>&1 &
shift 2
exec "$@"
"""
"""A script for sh that limits processor seconds, memory, and the size of files in blocks of 512 bytes. It ends its
process group when the pipe with the second number ends, which this process holds open."""


@dataclass(frozen=True)
class _Output:
    exit_code: int
    text: str


@dataclass(frozen=True)
class Credentials:
    """What the git server asks for. `token` is a secret, so it is not in the text of this object."""

    username: str
    token: str

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, …)"


class GitDirectory:
    """A private directory with an empty bare repository. Make it with `git_directory`."""

    def __init__(self, path: Path, git: str, max_bytes: int) -> None:
        self._path = path
        self._git = git
        self._file_blocks = 4 * max_bytes // _BLOCK_BYTES + 1
        self.bundle = path / "bundle"
        """Where the bundle is to be written."""

    async def fetch_bundle(self) -> str:
        """Fetch HEAD of the bundle, check every object, and return the commit.

        Raises:
            PushFailed: the bundle is not that of a whole and sound repository.
        """
        fetched = await self._run(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", str(self.bundle), f"+HEAD:{_REF}",
            protocols="file",
        )  # fmt: skip
        # Also after the fetch: git before 2.46 does not check the objects of bundles.
        checked = fetched.exit_code == 0 and await self._run("fsck", "--strict", "--no-dangling", "--no-progress")
        named = checked and checked.exit_code == 0 and await self._run("rev-parse", "--verify", f"{_REF}^{{commit}}")
        commit = named.text.strip() if named and named.exit_code == 0 else ""
        if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
            words = " ".join((checked.text if checked else fetched.text).split())[:500]
            raise PushFailed(
                "The snapshot's git history is damaged or incomplete, so it can't be pushed. Ask the agent to make a "
                f"sound repository with its whole history. Git says: {words}",
                PushFailure.UNUSABLE,
            )
        return commit

    async def push(
        self, target: GitTarget, addresses: Sequence[str], branch: str, credentials: Credentials, protocols: str
    ) -> bool:
        """Push the fetched commit to the branch. Never overwrites anything. Returns False if it was there already.

        Args:
            target: the repository.
            addresses: the only addresses at which its host is reached.
            branch: a branch's name that was checked.
            credentials: for the server.
            protocols: those that git may speak, separated by colons.

        Raises:
            PushFailed: says why, and what to do.
        """
        arguments = ("push", "--porcelain", "--no-verify", "--", target.url, f"{_REF}:refs/heads/{branch}")
        pinned = {} if target.is_address else {"http.curloptResolve": _pin(target, addresses)}
        with _readable(credentials.token) as descriptor:
            pushed = await self._run(
                *arguments,
                protocols=protocols,
                configuration=pinned,
                environment={
                    "GIT_ASKPASS": str(self._askpass()),
                    "PUSH_USERNAME": credentials.username,
                    "PUSH_TOKEN_FD": str(descriptor),
                },
                descriptor=descriptor,
            )
        text = blank_token(pushed.text, credentials.token)
        if pushed.exit_code != 0:
            raise explain(target, branch, text)
        return re.search(r"^=\t", text, re.MULTILINE) is None

    async def create(self) -> None:
        """Make the empty repository. It gets nothing from a template of this machine."""
        (self._path / "home").mkdir()
        made = await self._run("init", "--quiet", "--bare", "--template=", ".")
        if made.exit_code != 0:
            raise NoGit(f"The API's machine could not make a git repository: {made.text.strip()[:500]}")

    def _askpass(self) -> Path:
        path = self._path / "askpass"
        path.write_text(_ASKPASS)
        path.chmod(stat.S_IRWXU)
        return path

    async def _run(
        self,
        *arguments: str,
        protocols: str = "",
        configuration: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        descriptor: int | None = None,
    ) -> _Output:
        """Run git in the repository. It ends with all of its children if this is cancelled, or if this process dies."""
        repository = self._path / "repository.git"
        repository.mkdir(exist_ok=True)
        settings = [f"{name}={value}" for name, value in {**_CONFIGURATION, **(configuration or {})}.items()]
        options = [part for setting in settings for part in ("-c", setting)]
        variables = {
            "PATH": os.defpath,
            "HOME": str(self._path / "home"),
            "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": protocols,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self._path),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **(environment or {}),
        }
        with _lifeline() as lifeline:
            script = ("/bin/sh", "-c", _LIMITED, "sh", str(self._file_blocks), str(lifeline))
            process = await asyncio.create_subprocess_exec(
                *(*script, self._git, *options, *arguments),
                cwd=repository,
                env=variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(lifeline,) if descriptor is None else (lifeline, descriptor),
                start_new_session=True,
            )
            try:
                assert process.stdout is not None, "it is a pipe"
                text = await _read_bounded(process.stdout)
                return _Output(await process.wait(), text.decode(errors="replace"))
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await run_to_completion(_reap(process))


@asynccontextmanager
async def git_directory(max_bytes: int) -> AsyncIterator[GitDirectory]:
    """Make a private directory for one push, and remove it at the end.

    Args:
        max_bytes: the largest bundle that it may hold.

    Raises:
        NoGit: this machine has no git, or one that is too old.
    """
    git = await _find_git()
    await asyncio.to_thread(_remove_left_over)
    path = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=DIRECTORY_PREFIX))
    try:
        directory = GitDirectory(path, git, max_bytes)
        await directory.create()
        yield directory
    finally:
        await run_to_completion(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))


async def _find_git() -> str:
    git = shutil.which("git")
    if git is None:
        raise NoGit("The API's machine has no git, so nothing can be pushed. Ask the operator to install it.")
    process = await asyncio.create_subprocess_exec(git, "version", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    version = re.search(rb"(\d+)\.(\d+)", output)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GIT:
        raise NoGit(
            f"The git of the API's machine is older than {OLDEST_GIT[0]}.{OLDEST_GIT[1]}, so nothing can be pushed. "
            "Ask the operator to update it."
        )
    return git


def _remove_left_over() -> None:
    """Remove the directories of pushes whose process was killed."""
    before = time.time() - LEFT_OVER_SECONDS
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and found.st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)


def _pin(target: GitTarget, addresses: Sequence[str]) -> str:
    """The addresses of the host as curl takes them, so that git does not resolve the name again."""
    written = [f"[{address}]" if ":" in address else address for address in addresses]
    return f"{target.host}:{target.port}:{','.join(written)}"


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """The reading end of a pipe that ends with this block, or with this process."""
    readable, writable = os.pipe()
    try:
        yield readable
    finally:
        os.close(readable)
        os.close(writable)


@contextlib.contextmanager
def _readable(secret: str) -> Iterator[int]:
    """The reading end of a pipe from which the secret can be read once."""
    readable, writable = os.pipe()
    try:
        try:
            os.write(writable, secret.encode() + b"\n")  # far less than a pipe holds, so it does not block
        finally:
            os.close(writable)
        yield readable
    finally:
        os.close(readable)


async def _read_bounded(stream: asyncio.StreamReader) -> bytes:
    """Read to the end, and keep only the first and last part: a server may say as much as it likes."""
    head, tail = bytearray(), bytearray()
    while piece := await stream.read(65536):
        if len(head) < _OUTPUT_MAX_BYTES // 2:
            head += piece
        else:
            tail = (tail + piece)[-_OUTPUT_MAX_BYTES // 2 :]
    return bytes(head + tail)


async def _reap(process: asyncio.subprocess.Process) -> None:
    await process.wait()
