"""Runs a product in a sandbox, from its last commit and by its cofounder.json. The gate and previews share this."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from clients.archive import read_beginning, read_bounded
from clients.sandbox import CallOutcome, HttpAnswer, Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL, WORKSPACE
from clients.workspace_lock import WorkspaceLock
from domain import evidence
from domain.egress import refused_hosts
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

_LOG_BYTES = 12_000
"""How much of the beginning and of the end of the server's output is read."""

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
find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {{}} +
rm -f .git/index .git/index.lock
{GIT} reset --quiet --hard HEAD
"""
    findings = [finding.text()] if (finding := evidence.uncommitted(status.stdout)) else []
    reset = await sandbox.run(command, timeout_seconds=5 * SMALL_SECONDS, cwd="/")
    if reset.exit_code != 0:
        return CommittedTree([*findings, evidence.git_failed("git reset --hard HEAD", reset.stderr).text()], False)
    return CommittedTree(findings, True)


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


async def run_step(sandbox: Sandbox, call_id: str, command: str, seconds: float, env: Mapping[str, str]) -> CallOutcome:
    """Run one of a product's commands once. A second attempt with the same id attaches to it.

    `env`: added to its environment: stand-ins for the product's secrets.

    Raises:
        OutcomeUnknown: its outcome was lost; only a fresh sandbox helps.
    """
    outcome = await sandbox.call(
        call_id, "bash", {"command": command, "timeout_seconds": None}, timeout_seconds=seconds, env=env
    )
    if outcome.state != "done":
        raise OutcomeUnknown(f"What became of `{command[:200]}` in sandbox {sandbox.id} is unknown: {outcome.text}")
    return outcome


def step_outcome(command: str, outcome: CallOutcome) -> evidence.StepOutcome:
    """The outcome of `run_step`, as a finding quotes it."""
    output = Output(outcome.text, outcome.tail, outcome.output_bytes)
    refused = refused_hosts(outcome.refused_hosts)
    return evidence.StepOutcome(command, outcome.exit_code, outcome.timed_out, outcome.seconds, output, refused)


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
    await sandbox.write(f"{folder}.sh", f"cd {WORKSPACE} || exit 1\n{command}\n")
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
    sandbox: Sandbox, name: str, product: ProductManifest, seconds: float, secrets: Collection[str] = ()
) -> Finding | None:
    """Wait until GET / answers 200. Returns None then, otherwise what is wrong.

    `secrets`: what the server knows, blanked in its log and its answer.
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
    if ended:
        return evidence.start_ended(product.start, ended, log)
    if answer is None:
        return evidence.not_answering(product.port, seconds, log)
    body = redact(clean(answer.body.decode("utf-8", "replace")), secrets)
    return evidence.bad_status(answer.status, body, log)


async def is_served(sandbox: Sandbox, product: ProductManifest) -> bool:
    """Whether GET / answers 200 now."""
    answer = await sandbox.http_get(product.port, "/", _ANSWER_SECONDS, PAGE_BYTES)
    return answer is not None and answer.status == 200


async def read_log(sandbox: Sandbox, name: str, secrets: Collection[str] = ()) -> Output:
    """What the server has printed, without the secrets: all of it, or beginning and end."""
    path = f"{_folder(name, await sandbox.boot())}/log"
    size = await sandbox.run(f"stat --format=%s {path} || echo 0", timeout_seconds=SMALL_SECONDS, cwd="/")
    total = int(size.stdout.strip() or 0)
    head_bytes = total if total <= 2 * _LOG_BYTES else _LOG_BYTES
    head = await sandbox.run(f"head --bytes={head_bytes} {path}", timeout_seconds=SMALL_SECONDS, cwd="/")
    if head_bytes == total:
        return Output(redact(clean(head.stdout), secrets), bytes=total)
    tail = await sandbox.run(f"tail --bytes={_LOG_BYTES} {path}", timeout_seconds=SMALL_SECONDS, cwd="/")
    return Output(redact(clean(head.stdout), secrets), redact(clean(tail.stdout), secrets), total)


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
