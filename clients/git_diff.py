"""git's own diffs between commits of a workspace, made inside the sandbox. `domain/workspace_diff.py` reads them."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from clients.archive import ARCHIVES, read_beginning
from clients.sandbox import Sandbox
from clients.sandbox_runner import WORKSPACE
from domain.errors import SnapshotFailed
from domain.workspace_diff import READ_MOST, GitDiff

DIFF_SECONDS = 30
"""Seconds that all diffs of a phase may take together. A larger history has none."""

_OPTIONS = (
    "--find-renames --no-color --no-ext-diff --no-textconv --submodule=short "
    "--src-prefix=a/ --dst-prefix=b/ -O/dev/null"
)
"""The workspace's own configuration of git could say otherwise."""

_RESULT = "cofounder-diff"


@dataclass(frozen=True)
class GitDiffs:
    """The diff of a phase, and that since the build began; None if it is the same."""

    phase: GitDiff
    build: GitDiff | None


async def diff_phase(sandbox: Sandbox, commit: str, earlier: Sequence[str], start: str | None) -> GitDiffs:
    """Compare a commit with the one that the phase began with, and with the one that the build began with.

    Args:
        sandbox: where the workspace is, with room for the outputs beside its archive.
        commit: the end of the phase.
        earlier: commits that the phase may have begun with, in full or not; the first one that `commit` descends from
            counts, or else `start`, or else nothing.
        start: the commit that the build began with; None for an empty workspace.

    Raises:
        SnapshotFailed: git failed, or took too long.
    """
    folder = f"{ARCHIVES}/diff"
    command = f"""
set -o pipefail
cd {WORKSPACE} && rm -rf {folder} && mkdir -p {folder} || exit 90
export GIT_OPTIONAL_LOCKS=0 GIT_NO_REPLACE_OBJECTS=1 GIT_NO_LAZY_FETCH=1 GIT_PAGER=cat
git() {{ command git -c safe.directory='*' -c core.fsmonitor=false "$@"; }}
descends() {{ git merge-base --is-ancestor "$1" {commit} 2>/dev/null; }}
empty=$(git hash-object -t tree /dev/null) || exit 91
begin={shlex.quote(start or "")}
[ -z "$begin" ] || descends "$begin" || begin=
base=$begin
for each in {shlex.join(earlier)}; do
  each=$(git rev-parse --quiet --verify "$each^{{commit}}") || continue
  if [ "$each" != {commit} ] && descends "$each"; then base=$each; break; fi
done
compare() {{
  git diff --raw --numstat -z {_OPTIONS} "${{2:-$empty}}" {commit} -- >{folder}/$1.list || return
  git diff --patch --unified=3 {_OPTIONS} "${{2:-$empty}}" {commit} -- | head --bytes={READ_MOST} >{folder}/$1.patch
  [ "${{PIPESTATUS[0]}}" -eq 0 ] || [ "${{PIPESTATUS[0]}}" -eq 141 ]
}}
compare phase "$base" || exit 92
[ "$base" = "$begin" ] || compare build "$begin" || exit 93
echo {_RESULT} "${{base:--}}" "${{begin:--}}"
"""
    bounded = f"timeout {DIFF_SECONDS} bash -c {shlex.quote(command)}"
    output = await sandbox.run(bounded, timeout_seconds=DIFF_SECONDS + 5, cwd="/")
    result = re.search(rf"^{_RESULT} ([0-9a-f]+|-) ([0-9a-f]+|-)$", output.stdout, re.M)
    if output.exit_code != 0 or result is None:
        raise SnapshotFailed(
            f"The changes of the phase could not be read (exit code {output.exit_code}): {output.stderr[-500:]}"
        )
    base, begin = (None if each == "-" else each for each in result.groups())
    phase = await _read(sandbox, f"{folder}/phase", base, commit)
    build = None if base == begin else await _read(sandbox, f"{folder}/build", begin, commit)
    return GitDiffs(phase, build)


async def _read(sandbox: Sandbox, path: str, base: str | None, commit: str) -> GitDiff:
    listing = await read_beginning(sandbox, f"{path}.list", READ_MOST)
    return GitDiff(base, commit, listing, await read_beginning(sandbox, f"{path}.patch", READ_MOST))
