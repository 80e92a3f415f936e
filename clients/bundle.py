"""Bundles the git history of a sandbox's workspace, and brings the bundle out. Nothing in it is trusted."""

import contextlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

from clients.sandbox import Sandbox
from clients.sandbox_runner import JOURNAL, WORKSPACE
from domain.errors import PushFailed, SandboxUnavailable
from domain.push import PushFailure

BUNDLE_SECONDS = 300
"""Seconds that making a bundle may take."""

_BUNDLE = f"{JOURNAL}/history.bundle"
_RESULT = "cofounder-result"
_NO_REPOSITORY = 90
_TOO_LARGE = 91

_GIT = (
    "GIT_ALLOW_PROTOCOL= GIT_NO_REPLACE_OBJECTS=1 GIT_OPTIONAL_LOCKS=0 GIT_TERMINAL_PROMPT=0 "
    f"git -C {WORKSPACE} -c safe.directory='*' -c core.hooksPath=/dev/null -c core.fsmonitor=false -c pack.threads=1"
)
"""Git in the workspace. Its configuration may be hostile: what it makes is checked outside."""


async def make_bundle(sandbox: Sandbox, max_bytes: int) -> str | None:
    """Bundle everything that HEAD of the workspace descends from. Returns its branch; None if it is at none.

    Raises:
        PushFailed: there is no history, it is larger than this, or git can't bundle it; says what to do.
    """
    command = f"""
cd {WORKSPACE} && [ -e .git ] && {_GIT} rev-parse --quiet --verify 'HEAD^{{commit}}' >/dev/null || exit {_NO_REPOSITORY}
timeout {BUNDLE_SECONDS} env {_GIT} bundle create --quiet - HEAD | head --bytes={max_bytes + 1} >{_BUNDLE}
code=${{PIPESTATUS[0]}}
[ "$(stat --format=%s {_BUNDLE})" -le {max_bytes} ] || exit {_TOO_LARGE}
[ $code -eq 0 ] || exit $code
echo
echo {_RESULT} "$({_GIT} symbolic-ref --quiet --short HEAD)"
"""
    output = await sandbox.run(command, timeout_seconds=BUNDLE_SECONDS + 60, cwd="/")
    if output.exit_code == _NO_REPOSITORY:
        raise PushFailed("The snapshot has no git commit yet, so there is nothing to push.", PushFailure.UNUSABLE)
    if output.exit_code == _TOO_LARGE:
        raise too_large(max_bytes)
    result = re.search(rf"^{_RESULT} (\S*)$", output.stdout, re.MULTILINE)
    if output.exit_code != 0 or result is None:
        words = " ".join((output.stderr or output.stdout).split())[-500:]
        raise PushFailed(f"Git could not bundle the snapshot's history: {words}", PushFailure.UNUSABLE)
    return result[1] or None


async def bring_out(sandbox: Sandbox, path: Path, max_bytes: int) -> None:
    """Write the bundle to a new file of this machine.

    Raises:
        PushFailed: it is larger than this.
    """
    size = 0
    with path.open("xb") as file:
        try:
            async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", sandbox.stream(_BUNDLE))) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > max_bytes:
                        raise too_large(max_bytes)
                    file.write(piece)
        except FileNotFoundError as error:
            raise SandboxUnavailable("The bundle is not in its sandbox any more.") from error


def too_large(max_bytes: int) -> PushFailed:
    """The error of a history that is larger than this."""
    return PushFailed(
        f"The git history is larger than the {max_bytes // 10**6:,} MB that can be pushed (PUSH_MAX_MEGABYTES). Ask "
        "the agent to remove large files from the history.",
        PushFailure.TOO_LARGE,
    )
