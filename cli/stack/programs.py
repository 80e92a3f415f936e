"""Runs the embedded stack with an API and a worker beside it, for `cofounder up` and `cofounder demo`."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from temporalio.service import RPCError

from cli.api_client import ApiClient
from cli.feed_state import printable
from cli.output import is_interactive
from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal, workers_on
from db.money import budget_of
from db.session import make_engine, make_sessions, open_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.budget import dollars
from domain.egress import DEFAULT_SETS
from domain.errors import CofounderError
from local.operator_network import operator_network
from local.ports import LOOPBACK
from local.postgres import api_database_url
from local.process import Command, GuardedProcess
from local.stack import PARTS, LocalStack, PartName, Progress
from services.deployment import check_deployment
from settings import LOCAL_SANDBOX_ONLY, Settings, load_settings

FOUNDER = "founder"
"""The user of requests that do not name one."""

_API_START_SECONDS = 180.0
"""Give up if the API does not answer within this many seconds. One that has ended is noticed at once."""

_WORKER_START_SECONDS = 180.0
"""Give up if the worker does not poll within this many seconds."""

_LOG_LINES = 12
"""Quote this many lines of the log of a program that ended by itself."""

# Slows the rehearsal model down, so that a person can read along.
_REHEARSAL_OPTIONS = ("--think-ms", "300")

Watchers = Sequence["asyncio.Task[None]"]
"""Tasks that fail if a server or a program ends by itself."""


class StartFailed(CofounderError):
    """A program did not start, or ended by itself; the message says why."""


@dataclass(frozen=True)
class RealKeys:
    """Keys of real services. A service without a key is replaced by its stand-in on this machine."""

    anthropic: str | None = None
    e2b: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "RealKeys":
        """Read the keys from the environment.

        Raises:
            StartFailed: no key is set.
        """
        keys = cls(environment.get("ANTHROPIC_API_KEY") or None, environment.get("E2B_API_KEY") or None)
        if keys == cls():
            raise StartFailed("REAL=1 needs a key: set ANTHROPIC_API_KEY, E2B_API_KEY or both, or leave REAL out.")
        return keys


@dataclass(frozen=True)
class Programs:
    """A running API and worker."""

    api: ApiClient
    api_url: str
    watchers: Watchers


async def run_until_signal(work: Coroutine[Any, Any, bool]) -> bool | None:
    """Run the work to its end and return its result. SIGINT, SIGTERM or SIGHUP cancels it and returns None."""
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signalled.set)
    task = asyncio.create_task(work)
    signal_task = asyncio.create_task(signalled.wait())
    try:
        await asyncio.wait({task, signal_task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        signal_task.cancel()
        task.cancel()
        await asyncio.wait({task})
    return None if task.cancelled() else task.result()


def stack_for(console: Console, keys: RealKeys, data: Path | None = None) -> LocalStack:
    """The embedded stack, without the parts that the keys make unnecessary."""
    local: dict[PartName, bool] = {"model": keys.anthropic is None, "sandbox": keys.e2b is None}

    def show(progress: Progress) -> None:
        if progress.state == "ready":
            console.print(f"  {progress.part:<9} ready after {progress.seconds:.1f} s")

    local_only = [name.upper() for name in Settings.fields_of(LOCAL_SANDBOX_ONLY)]
    ignored = [name for name in local_only if os.environ.get(name)] if keys.e2b is not None else []
    if ignored:
        console.print(f"E2B's cloud does not reach this network: {', '.join(ignored)} will be ignored.")
    settings = load_settings()
    # The rehearsal model installs nothing.
    has_egress = keys.anthropic is not None and keys.e2b is None and settings.sandbox_egress_hosts != []
    if has_egress and settings.sandbox_egress_hosts is None:
        console.print(
            "Sandboxes on this machine reach only hosts that are named: SANDBOX_EGRESS_HOSTS=all is taken as "
            f"{','.join(DEFAULT_SETS)}."
        )
    return LocalStack(
        data,
        parts=[part for part in PARTS if local.get(part, True)],
        egress="proxy" if has_egress else "none",
        allow=settings.sandbox_egress_hosts or () if has_egress else (),
        network=operator_network(settings, os.environ) if has_egress else None,
        model_options=_REHEARSAL_OPTIONS,
        on_progress=show,
    )


@asynccontextmanager
async def running_programs(
    console: Console,
    stack: LocalStack,
    environment: Mapping[str, str],
    *,
    port: int,
    token: str,
    logs: Path,
    metrics: Mapping[str, str] | None = None,
) -> AsyncIterator[Programs]:
    """Run an API on the port and a worker as processes of their own until the end of the block.

    Both serve when the block begins, so that `cofounder doctor` sees them from then on.

    Args:
        metrics: METRICS_ADDRESS of `api` and `worker`.

    Raises:
        StartFailed: one of them did not start.
    """
    url = f"http://{LOOPBACK}:{port}"
    environment = {**environment, "PUBLIC_URL": url}
    commands = {
        "api": ["-m", "api", "--host", LOOPBACK, "--port", str(port)],
        "worker": ["-m", "worker"],
    }
    async with AsyncExitStack() as closing:
        watchers = [asyncio.create_task(stack.wait())]
        closing.callback(watchers[0].cancel)
        for name, arguments in commands.items():
            own = {"DATABASE_URL": api_database_url(environment["DATABASE_URL"])} if name == "api" else {}
            if metrics:
                own["METRICS_ADDRESS"] = metrics[name]
            # -P: do not import modules from the working directory
            command = Command([sys.executable, "-P", *arguments], {**environment, **own}, grace=20.0)
            log = (logs / f"{name}.log").absolute()
            process = await stack.start_beside(command, log=log)
            process.has_served = True  # so that stop() asks it to end instead of killing it
            closing.push_async_callback(process.stop)
            watcher = asyncio.create_task(_fail_on_exit(name, process, log))
            closing.callback(watcher.cancel)
            watchers.append(watcher)
        api = await closing.enter_async_context(ApiClient(url, token))
        await wait_for_first(asyncio.create_task(_wait_for_api(api, logs / "api.log")), *watchers)
        console.print("  api       ready")
        await wait_for_first(asyncio.create_task(_wait_for_worker(environment, logs / "worker.log")), *watchers)
        console.print("  worker    ready")
        yield Programs(api, url, watchers)


def program_environment(
    caller: Mapping[str, str], stack: Mapping[str, str], keys: RealKeys, temporary: Path
) -> dict[str, str]:
    """The environment of the API and the worker: the stack's, and nothing of the caller's that could cost money."""
    passed_on = {"PATH", "CHROMIUM_PATH", "PAYLOAD_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    if keys != RealKeys():
        passed_on |= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    environment = {name: value for name, value in caller.items() if name.upper() in passed_on}
    environment["NO_PROXY"] = ",".join(filter(None, (caller.get("NO_PROXY"), LOOPBACK, "localhost")))
    environment |= {"HOME": str(temporary), "TMPDIR": str(temporary), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    environment["GRACEFUL_SHUTDOWN_SECONDS"] = "1"  # no need to wait: running activities end with the stack
    environment |= stack
    if keys.anthropic is not None:
        environment["ANTHROPIC_API_KEY"] = keys.anthropic
    if keys.e2b is not None:
        environment["E2B_API_KEY"] = keys.e2b
    return environment


def local_preview_url(port: int) -> str:
    """PREVIEW_URL of an API on this machine. Browsers find names below `localhost` without a name server."""
    return f"http://*.localhost:{port}"


async def check_stack(environment: Mapping[str, str]) -> None:
    """Check that the database and Temporal of a stack belong together, before anything is started on them.

    Raises:
        WrongNamespace: the data of one of them was lost; says what to do.
    """
    async with open_sessions(environment["DATABASE_URL"], pool_size=1) as sessions:
        client = await connect_temporal(environment)
        await check_deployment(sessions, BuildWorkflows(client, task_queue_of(environment)))


def task_queue_of(environment: Mapping[str, str]) -> str:
    """The task queue of the environment's builds."""
    return str(environment.get("TEMPORAL_TASK_QUEUE") or Settings.model_fields["temporal_task_queue"].default)


async def wait_for_first(task: "asyncio.Task[Any]", *others: "asyncio.Task[None]") -> None:
    """Wait for `task`. Raises what one of the others raises before it is done."""
    done, _ = await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
    if task not in done:
        task.cancel()
        await asyncio.wait({task})
    for each in done:
        each.result()


async def _fail_on_exit(name: str, process: GuardedProcess, log: Path) -> None:
    code = await asyncio.shield(process.exit_code)
    raise StartFailed(_with_log(f"The {name} ended by itself, with exit code {code}.", log))


def _with_log(problem: str, log: Path) -> str:
    """The problem, followed by the last lines of the program's log."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return f"{problem} Its log ({log}) ends with:" + "".join(f"\n  {printable(line)}" for line in lines)


async def _wait_for_api(api: ApiClient, log: Path) -> None:
    try:
        async with asyncio.timeout(_API_START_SECONDS):
            while not await api.is_live():  # noqa: ASYNC110 (it is another process)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise StartFailed(_with_log(f"The API did not answer within {_API_START_SECONDS:.0f} seconds.", log)) from None


async def _wait_for_worker(environment: Mapping[str, str], log: Path) -> None:
    """Wait until the worker polls. It has created the search attributes and the reaper's schedule by then."""
    queue = task_queue_of(environment)
    try:
        async with asyncio.timeout(_WORKER_START_SECONDS):
            client = await connect_temporal(environment)
            while True:
                with contextlib.suppress(RPCError):  # if Temporal has ended, the stack reports it
                    if await workers_on(client, queue):
                        return
                await asyncio.sleep(0.1)
    except TimeoutError:
        late = f"The worker did not start within {_WORKER_START_SECONDS:.0f} seconds."
        raise StartFailed(_with_log(late, log)) from None


async def confirm_spending(console: Console, keys: RealKeys, database_url: str, *, confirmed: bool) -> None:
    """Print the spending cap. In a terminal, ask for confirmation unless it is given already.

    Raises:
        StartFailed: the person did not confirm.
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        async with transaction(make_sessions(engine)) as tx:
            user = await ensure_user(tx, FOUNDER)
            budget = await budget_of(tx, user.id, datetime.now(UTC).date())
    finally:
        await engine.dispose()
    used = [name for name, key in (("ANTHROPIC_API_KEY", keys.anthropic), ("E2B_API_KEY", keys.e2b)) if key]
    cap = "no cap" if budget.allowance is None else dollars(budget.allowance - budget.spent)
    console.print(f"\nThis uses {' and '.join(used)} and spends real money.", style="bold yellow")
    if keys.anthropic is not None:
        console.print(f"Model calls stop at {cap} today (plan {user.plan}); the build then sleeps.")
    if keys.e2b is not None:
        console.print("E2B bills sandboxes while they run; they end with their builds and previews.")
    if is_interactive(console) and sys.stdin.isatty() and not confirmed:
        await _confirm(console)


async def _confirm(console: Console) -> None:
    console.print("Continue? [y/N] ", end="", markup=False)
    typed, loop = asyncio.Event(), asyncio.get_running_loop()
    # Not in a thread: Ctrl-C can't stop a thread that waits for a line.
    loop.add_reader(sys.stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StartFailed("Not confirmed; nothing was spent.")
