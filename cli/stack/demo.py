"""`cofounder demo`: runs one build from a brief to a running preview, on an embedded stack with API and worker."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.text import Text
from temporalio.client import Client

from cli.api_client import ApiClient, sign_in_url
from cli.commands.build import FIRST_GOAL
from cli.downloads import save
from cli.feed_state import FeedState, describe_model, is_rehearsal
from cli.feed_view import until_closed, watch_build
from cli.output import clock, is_interactive, print_rows
from cli.stack.programs import (
    FOUNDER,
    RealKeys,
    check_stack,
    confirm_spending,
    local_preview_url,
    program_environment,
    run_until_signal,
    running_programs,
    stack_for,
    wait_for_first,
)
from clients.loopback import with_address
from clients.temporal import connect_temporal
from db.migrate import migrate
from domain.budget import dollars
from domain.errors import CofounderError
from domain.names import build_workflow_id, preview_workflow_id
from local.ports import Ports
from local.stack import LocalStack

EXAMPLES = Path(__file__).parents[1] / "examples"
RESULTS = Path(".cofounder") / "demo"
"""Below the working directory: one directory per demo, with its results and logs."""

_PREVIEW_SECONDS = 15.0
"""Request the preview for this many seconds before giving up."""

_KEY_HEADER = "X-Cofounder-Key"
"""In it a program shows the preview's gateway its token."""

_CLOUD_RELEASE_SECONDS = 60.0
"""Wait this many seconds for a workflow to release its cloud sandbox."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of `cofounder demo`."""

    brief: dict[str, Any]
    interview: dict[str, Any] | None
    goal: str = FIRST_GOAL
    keys: RealKeys = field(default_factory=RealKeys)
    confirmed: bool = False
    """Do not ask whether to spend real money."""
    leave: bool = False
    """Stop everything when the build ends, also in a terminal."""


@dataclass(frozen=True)
class DemoResult:
    """The result of a demo. `preview_status` is the preview's HTTP status, None if it did not answer."""

    state: FeedState
    build: dict[str, Any]
    preview_status: int | None
    files: dict[str, Path]

    @property
    def good(self) -> bool:
        """Whether the build is ready and its preview answers."""
        return self.state.status == "ready" and self.preview_status == 200

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        files = {name: str(path) for name, path in self.files.items()}
        return {"good": self.good, "build": self.build, "preview_status": self.preview_status, "files": files}


async def run_demo(console: Console, options: DemoOptions) -> DemoResult:
    """Run the demo until its end or Ctrl-C.

    Everything that it starts ends with it, also if this process is killed.

    Raises:
        CofounderError, StackError: the demo can't continue; the message says what to do.
        KeyboardInterrupt: it was stopped before it was done.
    """
    demo = _Demo(console, options)
    await run_until_signal(demo.run())
    if demo.result is None:
        raise KeyboardInterrupt
    return demo.result


class _Demo:
    """One run of the demo."""

    def __init__(self, console: Console, options: DemoOptions) -> None:
        self.result: DemoResult | None = None
        self._console = console
        self._options = options
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
        self._results = RESULTS / stamp
        self._token = secrets.token_urlsafe(24)  # the operators' token, so that the demo can show what the build costs

    async def run(self) -> bool:
        keys = self._options.keys
        ports = Ports()
        stack = stack_for(self._console, keys)
        async with stack:
            self._results.mkdir(parents=True)
            environment = {
                **program_environment(os.environ, stack.environment, keys, stack.data / "tmp"),
                "API_TOKEN": secrets.token_urlsafe(24),
                "API_OPERATOR_TOKEN": self._token,
                "API_USER": FOUNDER,
            }
            await migrate(environment["DATABASE_URL"])
            await check_stack(environment)
            if keys != RealKeys():
                database_url = environment["DATABASE_URL"]
                await confirm_spending(self._console, keys, database_url, confirmed=self._options.confirmed)
            try:
                port = ports.choose(set())
                environment["PREVIEW_URL"] = local_preview_url(port)
                async with running_programs(
                    self._console, stack, environment, port=port, token=self._token, logs=self._results
                ) as programs:
                    build = asyncio.create_task(self._build(programs.api, stack, environment))
                    try:
                        await wait_for_first(build, *programs.watchers)
                        return build.result()
                    finally:
                        self._console.print("\nstopping…")
                        if not build.done():
                            build.cancel()
                            await asyncio.wait({build})
            finally:
                ports.release()

    async def _build(self, api: ApiClient, stack: LocalStack, environment: Mapping[str, str]) -> bool:
        project = await api.create_project(self._options.brief, self._options.interview)
        build = await api.start_build(project["id"], self._options.goal)
        temporal = await connect_temporal(environment)
        try:
            await self._print_addresses(api, stack, build["id"])
            stays = not self._options.leave and is_interactive(self._console)
            leave = until_closed if stays else _needs_attention
            state = await watch_build(self._console, api, build["id"], project["name"], leave)
            result = await self._collect_result(api, build["id"], state)
            self._print_summary(stack, result)
            self.result = result
            if stays:
                await self._print_link(api, build["id"])
                self._console.print("\nEverything stays up until Ctrl-C.", style="bold")
                await asyncio.Event().wait()
            return result.good
        finally:
            if self._options.keys.e2b is not None:
                await _release_cloud_sandboxes(temporal, build["id"])

    async def _print_addresses(self, api: ApiClient, stack: LocalStack, build_id: str) -> None:
        self._console.print(f"\nbuild        {build_id}")
        self._console.print(f"Temporal UI  {_ui_url(stack, build_id)}")
        await self._print_link(api, build_id)
        self._console.print()

    async def _print_link(self, api: ApiClient, build_id: str) -> None:
        """Print a link that signs a browser in. Each works once, within ten minutes."""
        link = await api.make_sign_in_link()
        self._console.print(f"watch it     {sign_in_url(link, build_id)} (works once, within ten minutes)")

    async def _collect_result(self, api: ApiClient, build_id: str, state: FeedState) -> DemoResult:
        build = await api.read_build(build_id)
        status = await _preview_status(build["preview_url"], self._token) if state.status == "ready" else None
        return DemoResult(state, build, status, await self._save(api, build_id))

    def _print_summary(self, stack: LocalStack, result: DemoResult) -> None:
        state, build = result.state, result.build
        seconds = ((state.ended_at or datetime.now(UTC)) - (state.began_at or datetime.now(UTC))).total_seconds()
        status = Text(state.status, "bold green" if result.good else "bold red")
        if state.reason:
            status.append(f": {state.reason}", "")
        preview_url = build["preview_url"] if state.status == "ready" else None
        if preview_url is not None and result.preview_status != 200:
            status.append(f", but its preview answered {result.preview_status or 'nothing'}", "red")
        rows: list[tuple[str, str | Text]] = [("status", status)]
        if preview_url:
            rows.append(("preview", preview_url))
        rows += [(name, str(path)) for name, path in result.files.items()]
        rows.append(("logs", str(self._results)))
        rows.append(("Temporal UI", _ui_url(stack, build["id"])))
        rows.append(("model", describe_model(build["model_label"])))
        real = "" if is_rehearsal(build["model_label"]) else " of real money"
        note = " (at the real model's prices; nothing was paid)" if is_rehearsal(build["model_label"]) else ""
        rows.append(("cost", f"{dollars(build['cost_microdollars'])}{real}{note}"))
        rows.append(
            ("work", f"{len(state.phases)} phases, {state.turn} turns, {state.calls_done} tool calls, {clock(seconds)}")
        )
        self._console.print()
        print_rows(self._console, rows)

    async def _save(self, api: ApiClient, build_id: str) -> dict[str, Path]:
        """Download the build's screenshots and workspace; what does not exist is left out."""
        downloads = {
            "desktop": ("screenshots/desktop", "desktop.webp"),
            "mobile": ("screenshots/mobile", "mobile.webp"),
            "workspace": ("snapshots/current/archive", "workspace.tar.gz"),
        }
        files: dict[str, Path] = {}
        for name, (path, file) in downloads.items():
            with contextlib.suppress(CofounderError):
                async with api.stream(f"/v1/builds/{build_id}/{path}") as pieces:
                    await save(pieces, self._results / file, force=True)
                files[name] = self._results / file
        return files


def _ui_url(stack: LocalStack, build_id: str) -> str:
    return f"{stack.temporal_ui_url}/namespaces/default/workflows/{build_workflow_id(build_id)}"


def _needs_attention(state: FeedState) -> bool:
    """Whether the build waits for a person or for tomorrow. An unattended demo ends then."""
    return state.status in ("needs_input", "sleeping")


async def _preview_status(url: str | None, token: str) -> int | None:
    """The HTTP status of the preview, which may still be opening: tries until it is 200 or time is up.

    Follows no redirect: that would send the token to where the product leads.
    """
    if url is None:
        return None
    address, headers = with_address(url)
    status: int | None = None
    deadline = asyncio.get_running_loop().time() + _PREVIEW_SECONDS
    async with httpx2.AsyncClient(timeout=10, trust_env=False, headers=headers | {_KEY_HEADER: token}) as http:
        while status != 200 and asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                status = (await http.get(address)).status_code
            if status != 200:
                await asyncio.sleep(0.5)
    return status


async def _release_cloud_sandboxes(temporal: Client, build_id: str) -> None:
    """Cancel the workflows, so that they release the sandboxes that E2B bills, before the worker stops."""
    for workflow_id in (build_workflow_id(build_id), preview_workflow_id(build_id)):
        handle = temporal.get_workflow_handle(workflow_id)
        with contextlib.suppress(Exception):  # it may have ended, and an error must not keep the demo from stopping
            await handle.cancel()
            await asyncio.wait_for(handle.result(), _CLOUD_RELEASE_SECONDS)
