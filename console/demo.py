"""`cofounder demo`: the embedded stack, an API and a worker, and one build from a brief to a running preview."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from rich.console import Console
from rich.text import Text
from temporalio.client import Client

from clients.temporal import connect_temporal
from console.api_client import ApiClient
from console.feed_state import FeedState, describe_model, is_rehearsal, printable
from console.watch import clock, dollars, is_interactive, print_rows, watch_build
from db.migrate import migrate
from db.session import make_engine, make_sessions
from db.users import budget_today, ensure_user
from domain.errors import CofounderError
from domain.names import build_workflow_id, preview_workflow_id
from local.ports import LOOPBACK, Ports
from local.process import Command, GuardedProcess
from local.sandbox.egress import PACKAGE_REGISTRIES
from local.stack import PARTS, LocalStack, Progress

EXAMPLES = Path(__file__).parents[1] / "examples"
RESULTS = Path(".cofounder") / "demo"
"""Below the working directory: one directory for each demo, with what it made and its logs."""

GOAL = "Build the first version that the idea brief describes, with tests, and make it run."

_FOUNDER = "founder"
_API_START_SECONDS = 30.0
_PREVIEW_SECONDS = 15.0
_CLOUD_RELEASE_SECONDS = 60.0
_LOG_LINES = 12

# The rehearsal model answers at once; at this pace a person can read along.
_REHEARSAL_OPTIONS = ("--think-ms", "300")


class DemoFailed(CofounderError):
    """The demo did not get to a running product; the message says why."""


@dataclass(frozen=True)
class RealKeys:
    """Keys of real services. What has none is stood in for on this machine."""

    anthropic: str | None = None
    e2b: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "RealKeys":
        """The keys in the environment.

        Raises:
            DemoFailed: there are none.
        """
        keys = cls(environment.get("ANTHROPIC_API_KEY") or None, environment.get("E2B_API_KEY") or None)
        if keys == cls():
            raise DemoFailed("REAL=1 needs a key: set ANTHROPIC_API_KEY, E2B_API_KEY or both, or leave REAL out.")
        return keys


@dataclass(frozen=True)
class Wish:
    """What the demo is to do."""

    brief: dict[str, Any]
    interview: dict[str, Any] | None
    goal: str = GOAL
    keys: RealKeys = field(default_factory=RealKeys)
    confirmed: bool = False
    """The spending cap needs no further question."""
    leave: bool = False
    """Stop everything at the end, also in a terminal."""


@dataclass(frozen=True)
class Outcome:
    """What came of it. `preview_status` is what the preview answered, where it did."""

    state: FeedState
    preview_url: str | None
    preview_status: int | None

    @property
    def good(self) -> bool:
        """Whether the build is ready and the product answers."""
        return self.state.status == "ready" and self.preview_status == 200


async def run_demo(console: Console, wish: Wish) -> bool:
    """Run the demo until its end, or until Ctrl-C; whether it came to a product that answers.

    Everything that it starts ends with it, also when this process is killed.

    Raises:
        CofounderError, StackError: it could not go on; the message says what to do.
        KeyboardInterrupt: somebody stopped it before it was done.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told.set)
    demo = _Demo(console, wish)
    work = asyncio.create_task(demo.run())
    telling = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({work, telling}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        telling.cancel()
        work.cancel()
        await asyncio.wait({work})
    if work.cancelled():
        if demo.outcome is None:
            raise KeyboardInterrupt
        return demo.outcome.good
    return work.result()


class _Demo:
    """One run of the demo."""

    def __init__(self, console: Console, wish: Wish) -> None:
        self.outcome: Outcome | None = None
        self._console = console
        self._wish = wish
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
        self._results = RESULTS / stamp
        self._token = secrets.token_urlsafe(24)

    async def run(self) -> bool:
        keys = self._wish.keys
        local = {"model": keys.anthropic is None, "sandbox": keys.e2b is None}
        with_network = keys.anthropic is not None and keys.e2b is None
        stack = LocalStack(
            parts=[part for part in PARTS if local.get(part, True)],
            egress="proxy" if with_network else "none",
            model_options=_REHEARSAL_OPTIONS,
            on_progress=self._show_progress,
        )
        async with stack:
            self._results.mkdir(parents=True)
            environment = {
                **program_environment(os.environ, stack.environment, self._wish.keys, stack.data / "tmp"),
                "API_TOKEN": self._token,
                "API_USER": _FOUNDER,
            }
            await migrate(environment["DATABASE_URL"])
            if keys != RealKeys():
                await self._say_what_it_may_cost(environment["DATABASE_URL"])
            async with self._programs(stack, environment) as (api, programs):
                build = asyncio.create_task(self._build(api, stack, environment))
                try:
                    await _first_of(build, *programs)
                    return build.result()
                finally:
                    self._console.print("\nstopping…")
                    if not build.done():
                        build.cancel()
                        await asyncio.wait({build})

    # -- before the build ----------------------------------------------------------------------------------------

    def _show_progress(self, progress: Progress) -> None:
        if progress.state == "ready":
            self._console.print(f"  {progress.part:<9} ready after {progress.seconds:.1f} s")

    async def _say_what_it_may_cost(self, database_url: str) -> None:
        engine = make_engine(database_url, pool_size=1)
        try:
            async with make_sessions(engine).begin() as session:
                user = await ensure_user(session, _FOUNDER)
                budget = await budget_today(session, user, datetime.now(UTC).date())
        finally:
            await engine.dispose()
        keys = self._wish.keys
        used = [name for name, key in (("ANTHROPIC_API_KEY", keys.anthropic), ("E2B_API_KEY", keys.e2b)) if key]
        cap = "no cap" if budget.allowance is None else dollars(budget.allowance - budget.spent)
        self._console.print(f"\nThis uses {' and '.join(used)} and spends real money.", style="bold yellow")
        if keys.anthropic is not None:
            self._console.print(f"Model calls stop at {cap} today (plan {user.plan}); the build then sleeps.")
        if keys.e2b is not None:
            self._console.print("Sandboxes are billed by E2B for the time that they run; they end with this demo.")
        if is_interactive(self._console) and sys.stdin.isatty() and not self._wish.confirmed:
            await self._confirm()

    async def _confirm(self) -> None:
        self._console.print("Go on? [y/N] ", end="", markup=False)
        typed, loop = asyncio.Event(), asyncio.get_running_loop()
        # Not in a thread: one that waits for a line can't be stopped by Ctrl-C.
        loop.add_reader(sys.stdin, typed.set)
        try:
            await typed.wait()
        finally:
            loop.remove_reader(sys.stdin)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise DemoFailed("Not confirmed; nothing was spent.")

    @asynccontextmanager
    async def _programs(
        self, stack: LocalStack, environment: Mapping[str, str]
    ) -> AsyncIterator[tuple[ApiClient, Sequence["asyncio.Task[None]"]]]:
        """An API and a worker, as processes of their own; the tasks fail when one of them ends by itself."""
        ports = Ports()
        async with AsyncExitStack() as closing:
            closing.callback(ports.release)
            port = ports.choose(set())
            programs = {
                "api": ["-m", "api", "--host", LOOPBACK, "--port", str(port)],
                "worker": ["-m", "worker"],
            }
            watchers = [asyncio.create_task(stack.wait())]
            closing.callback(watchers[0].cancel)
            for name, arguments in programs.items():
                # -P: whatever lies in the working directory is not importable
                command = Command([sys.executable, "-P", *arguments], environment, grace=20.0)
                log = (self._results / f"{name}.log").absolute()
                process = await stack.start_beside(command, log=log)
                process.has_served = True  # so that it is asked to end, not killed
                closing.push_async_callback(process.stop)
                watcher = asyncio.create_task(_fail_when_it_ends(name, process, log))
                closing.callback(watcher.cancel)
                watchers.append(watcher)
            api = await closing.enter_async_context(ApiClient(f"http://{LOOPBACK}:{port}", self._token))
            await _first_of(asyncio.create_task(_wait_until_live(api)), *watchers)
            self._console.print("  api       ready\n  worker    started")
            yield api, watchers

    # -- the build -----------------------------------------------------------------------------------------------

    async def _build(self, api: ApiClient, stack: LocalStack, environment: Mapping[str, str]) -> bool:
        project = await api.create_project(self._wish.brief, self._wish.interview)
        build = await api.start_build(project["id"], self._wish.goal)
        temporal = await connect_temporal(environment)
        try:
            self._say_where(stack, build["id"])
            stays = not self._wish.leave and is_interactive(self._console)
            leave = _waits_for_nobody if not stays else lambda _: False
            state = await watch_build(self._console, api, build["id"], project["name"], leave)
            outcome = await self._look_at(api, build["id"], state)
            await self._summarize(api, stack, build["id"], outcome)
            self.outcome = outcome
            if stays:
                self._console.print("\nEverything stays up until Ctrl-C.", style="bold")
                await asyncio.Event().wait()
            return outcome.good
        finally:
            if self._wish.keys.e2b is not None:
                await _release_cloud_sandboxes(temporal, build["id"])

    def _say_where(self, stack: LocalStack, build_id: str) -> None:
        self._console.print(f"\nbuild        {build_id}")
        self._console.print(f"Temporal UI  {_ui_url(stack, build_id)}\n")

    async def _look_at(self, api: ApiClient, build_id: str, state: FeedState) -> Outcome:
        if state.status != "ready":
            return Outcome(state, None, None)
        build = await api.read_build(build_id)
        return Outcome(state, build["preview_url"], await _preview_status(build["preview_url"]))

    async def _summarize(self, api: ApiClient, stack: LocalStack, build_id: str, outcome: Outcome) -> None:
        state = outcome.state
        build = await api.read_build(build_id)
        saved = await self._save(api, build_id)
        seconds = ((state.ended_at or datetime.now(UTC)) - (state.began_at or datetime.now(UTC))).total_seconds()
        status = Text(state.status, "bold green" if outcome.good else "bold red")
        if state.reason:
            status.append(f": {state.reason}", "")
        if outcome.preview_url is not None and outcome.preview_status != 200:
            status.append(f", but its preview answered {outcome.preview_status or 'nothing'}", "red")
        rows: list[tuple[str, str | Text]] = [("status", status)]
        if outcome.preview_url:
            rows.append(("preview", outcome.preview_url))
        rows += [(name, str(path)) for name, path in saved.items()]
        rows.append(("logs", str(self._results)))
        rows.append(("Temporal UI", _ui_url(stack, build_id)))
        rows.append(("model", describe_model(build["model_label"])))
        real = "" if is_rehearsal(build["model_label"]) else " of real money"
        played = " (at the real model's prices; nothing was paid)" if is_rehearsal(build["model_label"]) else ""
        rows.append(("cost", f"{dollars(build['cost_microdollars'])}{real}{played}"))
        rows.append(
            ("work", f"{len(state.phases)} phases, {state.turn} turns, {state.calls_done} tool calls, {clock(seconds)}")
        )
        self._console.print()
        print_rows(self._console, rows)

    async def _save(self, api: ApiClient, build_id: str) -> dict[str, Path]:
        """Download what the build left, as far as there is anything."""
        wanted = {
            "desktop": ("screenshots/desktop", "desktop.webp"),
            "mobile": ("screenshots/mobile", "mobile.webp"),
            "workspace": ("snapshots/current/archive", "workspace.tar.gz"),
        }
        saved: dict[str, Path] = {}
        for name, (path, file) in wanted.items():
            with contextlib.suppress(CofounderError):
                await api.download(f"/v1/builds/{build_id}/{path}", self._results / file)
                saved[name] = self._results / file
        return saved


def program_environment(
    caller: Mapping[str, str], stack: Mapping[str, str], keys: RealKeys, temporary: Path
) -> dict[str, str]:
    """What the API and the worker see: the stack, and nothing of the caller's environment that could cost money."""
    passed_on = {"PATH", "CHROMIUM_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    if keys != RealKeys():
        passed_on |= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    environment = {name: value for name, value in caller.items() if name.upper() in passed_on}
    environment["NO_PROXY"] = ",".join(filter(None, (caller.get("NO_PROXY"), LOOPBACK, "localhost")))
    environment |= {"HOME": str(temporary), "TMPDIR": str(temporary), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    environment["GRACEFUL_SHUTDOWN_SECONDS"] = "1"  # what still runs ends with the stack
    environment |= stack
    if keys.anthropic is not None:
        environment["ANTHROPIC_API_KEY"] = keys.anthropic
    if keys.e2b is not None:
        environment["E2B_API_KEY"] = keys.e2b
    else:
        environment["SANDBOX_EGRESS_HOSTS"] = "none" if keys.anthropic is None else ",".join(PACKAGE_REGISTRIES)
    return environment


def _ui_url(stack: LocalStack, build_id: str) -> str:
    return f"{stack.temporal_ui_url}/namespaces/default/workflows/{build_workflow_id(build_id)}"


def _waits_for_nobody(state: FeedState) -> bool:
    """Whether the build waits for a person or another day, neither of which will come to a demo that nobody watches."""
    return state.status in ("needs_input", "sleeping")


async def _first_of(wanted: "asyncio.Task[Any]", *others: "asyncio.Task[None]") -> None:
    """Wait for `wanted`; raise what another task raises before that."""
    done, _ = await asyncio.wait({wanted, *others}, return_when=asyncio.FIRST_COMPLETED)
    if wanted not in done:
        wanted.cancel()
        await asyncio.wait({wanted})
    for task in done:
        task.result()


async def _fail_when_it_ends(name: str, process: GuardedProcess, log: Path) -> None:
    code = await asyncio.shield(process.exit_code)
    raise DemoFailed(f"The {name} ended by itself, with exit code {code}. Its log ({log}) ends with:{_last_words(log)}")


def _last_words(log: Path) -> str:
    return "".join(f"\n  {printable(line)}" for line in log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


async def _wait_until_live(api: ApiClient) -> None:
    try:
        async with asyncio.timeout(_API_START_SECONDS):
            while not await api.is_live():  # noqa: ASYNC110 (it is another process)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DemoFailed(f"The API did not answer within {_API_START_SECONDS:.0f} seconds.") from None


async def _preview_status(url: str | None) -> int | None:
    """What the preview answers; tried for a while, since it is only just opening."""
    if url is None:
        return None
    parts, headers = urlsplit(url), {}
    if (parts.hostname or "").endswith("localhost"):
        # Browsers resolve names below localhost, Python does not.
        headers["Host"] = parts.netloc
        url = parts._replace(netloc=f"{LOOPBACK}:{parts.port or 80}").geturl()
    status: int | None = None
    deadline = asyncio.get_running_loop().time() + _PREVIEW_SECONDS
    async with httpx2.AsyncClient(timeout=10, trust_env="Host" not in headers, follow_redirects=True) as http:
        while status != 200 and asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                status = (await http.get(url, headers=headers)).status_code
            if status != 200:
                await asyncio.sleep(0.5)
    return status


async def _release_cloud_sandboxes(temporal: Client, build_id: str) -> None:
    """Let the workflows give back what E2B would bill on: this machine's worker is about to be gone."""
    for workflow_id in (build_workflow_id(build_id), preview_workflow_id(build_id)):
        handle = temporal.get_workflow_handle(workflow_id)
        with contextlib.suppress(Exception):  # it may have ended, and nothing may keep the demo from stopping
            await handle.cancel()
            await asyncio.wait_for(handle.result(), _CLOUD_RELEASE_SECONDS)
