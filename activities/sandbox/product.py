"""Runs a product in a sandbox, from its last commit and by its cofounder.json. The gate and previews share this."""

import asyncio
import json
import shlex
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from activities.sandbox.step_output import read_output
from clients.archive import read_beginning, read_bounded
from clients.sandbox import CallOutcome, HttpAnswer, Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL, WORKSPACE
from clients.workspace_lock import WorkspaceLock
from domain import evidence
from domain.egress import REFUSED_HOSTS_VARIABLE, refused_hosts
from domain.errors import InvalidInput, SandboxUnavailable
from domain.findings import Finding, Output
from domain.plan import MAX_PLAN_BYTES, PLAN_FILE, Plan, parse_plan
from domain.product import PRODUCT_FILE, ProductManifest, parse_product_manifest
from domain.redaction import redact
from domain.tool_output import clean

SMALL_SECONDS = 60.0
"""Deadline of a command that should take milliseconds."""

PAGE_BYTES = 200_000
"""How much of a page is read. Only its status matters, and the beginning of an error page."""

_POLL_SECONDS = 0.25
"""Pause between two requests while the server starts."""

_ANSWER_SECONDS = 10.0
"""How long the server may take over one request."""

_OUR_FILE_BYTES = 1_000_000
"""The largest file that Cofounder itself writes into a sandbox."""

PRODUCT_FILE_BYTES = 65_536
"""The largest cofounder.json."""

_STATUS = f"{JOURNAL}/status"
_STATUS_BYTES = 50_000
_NO_COMMIT = 90
"""Our own exit code for a workspace without a commit."""
_STOP = """kill -TERM -1 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 -1 2>/dev/null || break; sleep 0.05; done
kill -KILL -1 2>/dev/null; true"""
"""Ends every process that may be signalled. kill(2) spares the calling shell and the sandbox's first process."""

_PIPE_CLOSED = 141
"""Exit code of a pipe of which a part was ended by SIGPIPE."""

_LAST_PIPE = """trap 'ended=$? parts=("${PIPESTATUS[@]}")
if [ $ended = 0 ]; then
  for part in "${parts[@]}"; do [ $part = 0 ] || [ $part = 141 ] || ended=$part; done
fi
exit $ended' EXIT"""
"""Lets a script end with the exit code of its last pipe's last part that failed."""

GIT = f"git -C {WORKSPACE} -c core.hooksPath=/dev/null -c core.quotePath=false -c core.sparseCheckout=false"
"""Git in the workspace. The agent can change the repository's configuration, so what matters is set here."""


class OutcomeUnknown(SandboxUnavailable):
    """A command of the product was run, but how it ended is unknown."""


@dataclass(frozen=True)
class CommittedTree:
    """A workspace that was reduced to its last commit."""

    findings: list[str]
    """What is wrong, as texts for the agent."""
    usable: bool
    """Whether there is a commit to go on with."""


async def keep_only_the_commit(sandbox: Sandbox) -> CommittedTree:
    """Note what is not committed, then make the workspace what a fresh clone of HEAD would be.

    Changes, untracked files and ignored files all go. So does the index, before the reset: flags in it (skip-worktree,
    assume-unchanged) could keep a file as it is.
    """
    command = f"""
cd {WORKSPACE} && [ -e .git ] && {GIT} rev-parse --quiet --verify HEAD >/dev/null || exit {_NO_COMMIT}
{GIT} status --porcelain=v1 --untracked-files=all >{_STATUS} || exit $?
head --bytes={_STATUS_BYTES} {_STATUS}
"""
    status = await sandbox.run(command, timeout_seconds=SMALL_SECONDS, cwd="/")
    if status.exit_code == _NO_COMMIT:
        return CommittedTree([evidence.no_commit().text()], False)
    if status.exit_code != 0:
        return CommittedTree([evidence.git_failed("git status", status.stderr).text()], False)
    command = f"""
set -e
cd {WORKSPACE}
find . -type d ! -perm -u+rwx -exec chmod u+rwx {{}} \\;
find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {{}} +
rm -f .git/index .git/index.lock
{GIT} reset --quiet --hard HEAD
"""
    findings = [finding.text()] if (finding := evidence.uncommitted(status.stdout)) else []
    if embedded := await _embedded_repositories(sandbox):
        return CommittedTree([*findings, evidence.embedded_repositories(embedded).text()], False)
    reset = await sandbox.run(command, timeout_seconds=5 * SMALL_SECONDS, cwd="/")
    if reset.exit_code != 0:
        return CommittedTree([*findings, evidence.git_failed("git reset --hard HEAD", reset.stderr).text()], False)
    return CommittedTree(findings, True)


async def _embedded_repositories(sandbox: Sandbox) -> list[str]:
    """Folders that HEAD names as repositories of their own, without saying where to get them from.

    Git stores the hash of such a repository's commit and no file of it, so the folder is empty in a fresh clone.
    """
    command = f"""
{GIT} ls-tree -r -z HEAD | sed -zn 's/^160000 commit [0-9a-f]*\\t//p' | while IFS= read -r -d '' path; do
  {GIT} config --blob HEAD:.gitmodules --get-regexp '^submodule\\..*\\.path$' 2>/dev/null | cut -d' ' -f2- |
    grep -qxF -- "$path" || printf '%s\\0' "$path"
done | head --bytes={_STATUS_BYTES}
"""
    listed = await sandbox.run(command, timeout_seconds=SMALL_SECONDS, cwd="/")
    return [path for path in listed.stdout.split("\0") if path]


async def read_product(sandbox: Sandbox) -> ProductManifest:
    """Read the product's cofounder.json.

    Raises:
        InvalidInput: it is missing or invalid; a sentence for the agent.
    """
    try:
        content = await read_bounded(sandbox, f"{WORKSPACE}/{PRODUCT_FILE}", PRODUCT_FILE_BYTES)
    except (FileNotFoundError, InvalidInput) as error:
        raise InvalidInput(evidence.NO_PRODUCT_FILE) from error
    except ValueError as error:
        raise InvalidInput(f"{PRODUCT_FILE} is larger than {PRODUCT_FILE_BYTES} bytes.") from error
    return parse_product_manifest(content.decode("utf-8", "replace"))


async def read_plan_file(sandbox: Sandbox) -> Plan | None:
    """Read the plan in the workspace; None if there is no such file."""
    try:
        content = await read_beginning(sandbox, f"{WORKSPACE}/{PLAN_FILE}", MAX_PLAN_BYTES)
    except (FileNotFoundError, InvalidInput):
        return None
    return parse_plan(content.decode("utf-8", "replace"))


async def run_step(
    sandbox: Sandbox, call_id: str, command: str, seconds: float, env: Mapping[str, str] | None = None
) -> CallOutcome:
    """Run one of a product's commands once. A second attempt with the same id attaches to it.

    `env`: added to its environment: stand-ins for the product's secrets.

    A pipe fails if any part of it fails. If it ended because a reader such as `head` closed the pipe early, which is
    not a failure, the command is run again so that only its last pipe counts, without such ends.

    Raises:
        OutcomeUnknown: its outcome was lost; only a fresh sandbox helps.
    """
    outcome = await _call(sandbox, call_id, f"set -o pipefail\n{command}", seconds, env)
    if outcome.exit_code == _PIPE_CLOSED:
        outcome = await _call(sandbox, f"{call_id}-again", f"{_LAST_PIPE}\n{command}", seconds, env)
    return outcome


async def _call(
    sandbox: Sandbox, call_id: str, script: str, seconds: float, env: Mapping[str, str] | None
) -> CallOutcome:
    command = {"command": script, "timeout_seconds": None}
    outcome = await sandbox.call(call_id, "bash", command, timeout_seconds=seconds, env=env)
    if outcome.state != "done":
        raise OutcomeUnknown(f"What became of call {call_id} in sandbox {sandbox.id} is unknown: {outcome.text}")
    return outcome


async def stop_processes(lock: WorkspaceLock) -> None:
    """End everything in the sandbox that the agent or the product has started: SIGTERM, then SIGKILL.

    Raises:
        StaleClaim: a later attempt holds the lock, and its processes must go on.
    """
    await lock.run(_STOP)


async def start_product(sandbox: Sandbox, name: str, command: str, env: Mapping[str, str]) -> None:
    """Start the server in the background, once per `name` and boot of the sandbox. It outlives this connection.

    All other processes are ended first: a server that the checks left running must not answer instead. `env`, added to
    its environment, goes with the request and into no file.

    Raises:
        SandboxUnavailable: the server could not be started.
    """
    folder = _folder(name, await sandbox.boot())
    # A file needs no quoting and has no length limit.
    await sandbox.write(f"{folder}.sh", f"cd {WORKSPACE} || exit 1\nset -o pipefail\n{command}\n")
    script = f"""
mkdir {folder} 2>/dev/null || exit 0
{_STOP}
setsid nohup bash -c 'bash {folder}.sh >{folder}/log 2>&1; echo $? >{folder}/exit' </dev/null >/dev/null 2>&1 &
"""
    output = await sandbox.run(script, timeout_seconds=SMALL_SECONDS, cwd="/", env=env)
    if output.exit_code != 0:
        problem = redact(output.stderr, env.values())[-500:]
        raise SandboxUnavailable(f"The product could not be started in sandbox {sandbox.id}: {problem}")


async def wait_for_page(
    sandbox: Sandbox,
    name: str,
    product: ProductManifest,
    seconds: float,
    keep_log: Callable[[Output], Output] | None = None,
    secrets: Collection[str] = (),
) -> Finding | None:
    """Wait until GET / answers 200. Returns None then, otherwise what is wrong.

    Args:
        keep_log: called with the server's log before a finding quotes it; returns it with the path of a copy.
        secrets: what the server knows, blanked in its log and its answer.
    """
    boot = await sandbox.boot()
    deadline = time.monotonic() + seconds
    answer: HttpAnswer | None = None
    ended: int | None = None
    while True:
        answer = await sandbox.http_get(product.port, "/", _ANSWER_SECONDS, PAGE_BYTES) or answer
        if answer is not None and answer.status == 200:
            return None
        # `ended` was read before this answer: a server that had ended by then can't answer any more.
        if ended or time.monotonic() > deadline:
            break
        ended = await _exit_code(sandbox, _folder(name, boot))
        await asyncio.sleep(_POLL_SECONDS)
    log = await read_log(sandbox, name, secrets)
    if keep_log is not None:
        log = keep_log(log)
    if ended:
        return evidence.start_ended(product.start, ended, log)
    if answer is None:
        return evidence.not_answering(product.port, seconds, log)
    body = redact(clean(answer.body.decode("utf-8", "replace")), secrets)
    return evidence.bad_status(answer.status, body, log)


async def refused_since_boot(sandbox: Sandbox) -> list[str]:
    """Return the hosts that the sandbox was not let out to. Empty where that is unknown, as in E2B's cloud."""
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1] + '?since=0').read(99999).decode())"
    url = f'"${REFUSED_HOSTS_VARIABLE}"'
    command = f"[ -z {url} ] || python3 -c {shlex.quote(ask)} {url}"
    output = await sandbox.run(command, timeout_seconds=SMALL_SECONDS, cwd="/")
    try:
        return refused_hosts(json.loads(output.stdout or "null"))
    except ValueError:
        return []


async def is_served(sandbox: Sandbox, product: ProductManifest) -> bool:
    """Whether GET / answers 200 now."""
    answer = await sandbox.http_get(product.port, "/", _ANSWER_SECONDS, PAGE_BYTES)
    return answer is not None and answer.status == 200


async def read_log(sandbox: Sandbox, name: str, secrets: Collection[str] = ()) -> Output:
    """What the server has printed, without the secrets: all of it, or its beginning and end."""
    log = await read_output(sandbox, f"{_folder(name, await sandbox.boot())}/log") or Output("")
    if not secrets:
        return log
    head, tail = (redact(clean(part), secrets) for part in (log.head, log.tail))
    return replace(log, head=head, tail=tail)


async def read_exit_code(sandbox: Sandbox, name: str) -> int | None:
    """The exit code of a server that has ended; None while it runs."""
    return await _exit_code(sandbox, _folder(name, await sandbox.boot()))


async def _exit_code(sandbox: Sandbox, folder: str) -> int | None:
    output = await sandbox.run(f"cat {folder}/exit 2>/dev/null || true", timeout_seconds=SMALL_SECONDS, cwd="/")
    text = output.stdout.strip()
    return int(text) if text.isdigit() else None


def _folder(name: str, boot: str) -> str:
    # With a boot its processes end, so in the next one the server has to be started again.
    return f"{JOURNAL}/server-{name}-{''.join(char for char in boot if char.isalnum())}"


async def read_optional(sandbox: Sandbox, path: str) -> str | None:
    """The text of a file in the sandbox; None if there is no such file."""
    try:
        return (await read_bounded(sandbox, path, _OUR_FILE_BYTES)).decode()
    except FileNotFoundError:
        return None


async def kill_all(sandboxes: Sandboxes, build_id: str, *roles: Role, keep: str | None = None) -> set[str]:
    """Kill a build's sandboxes of these roles, except the one to keep. Returns the ids of those killed."""
    ids: set[str] = set()
    for role in roles:
        ids |= set(await sandboxes.find(build_id, role))
    for sandbox_id in sorted(ids - {keep}):
        await sandboxes.kill(sandbox_id)
    return ids - {keep}
