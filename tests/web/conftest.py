"""Fixtures of the console's tests: one API and one Chromium for all, and a signed-in page for each test.

Write a test like this; at its end the fixture asserts that the browser's console is empty, that no policy was violated,
and that nothing but our own origin and previews was asked for anything:

    async def test_the_feed_shows_what_the_agent_says(console: Console) -> None:
        build = await build_row(console.api.sessions, console.user)
        await write_feed(console.api.sessions, build, feed_lines(100))
        await console.open(f"/builds/{build}")
        await expect(console.page.get_by_text("Turn 1: I look at what is there.")).to_be_visible()

Rows of builds that no worker runs (`tests/harness/feeds.py`) are fast; the fixture `agent` has a worker for the others.
`web` marks what only `make web` runs. The page's policy forbids evaluating text, so `wait_for_function` and
`add_script_tag` do not work: use locators with `expect`, and `page.evaluate` with a function.
"""

import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from pydantic import SecretStr

from clients.browser import Browser as ProductBrowser
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, RunningApi, running_api, settings_for
from tests.harness.console import DESKTOP, PHONE, Console, chromium, console_of
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness, worker_harness

_ROOT = Path(__file__).parents[2]

_SECRETS_KEY = "main:c2l4dGVlbiBieXRlcyBvciBtb3JlLCBmb3IgdGVzdHM="

_QUEUE = "web-tests"
"""The task queue of the API, and of the worker if a test has one."""


@pytest.fixture(scope="session", autouse=True)
def bundle() -> Path:
    """The console as its sources are now: built if they have changed. Wait as long for a page as for anything else."""
    expect.set_options(timeout=DEADLINE * 1000)
    built = subprocess.run([sys.executable, "scripts/setup", "--console"], cwd=_ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return _ROOT / "web" / "dist"


@pytest.fixture(scope="session")
async def web_api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    """The API with the console, on the stack's own database."""
    environment = stack.environment
    settings = settings_for(
        environment["DATABASE_URL"],
        environment,
        temporal_task_queue=_QUEUE,
        api_operator_token=SecretStr(OPERATORS),
        secrets_key=SecretStr(_SECRETS_KEY),
        webhook_private_hosts="127.0.0.1",
    )
    async with running_api(settings, environment) as running:
        yield running


@pytest.fixture(scope="session")
async def agent(stack: LocalStack, browser: ProductBrowser) -> AsyncIterator[WorkerHarness]:
    """A worker that runs the builds of `web_api`, with the rehearsal model: `agent.start(console.user, script=…)`."""
    async with worker_harness(stack, browser, temporal_task_queue=_QUEUE) as running:
        yield running


@pytest.fixture(scope="session")
async def web_browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests, which have a context of their own each."""
    async with chromium() as running:
        yield running


@pytest.fixture
async def console(web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    """A desktop's browser, signed in as a founder of its own, at the first page."""
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **DESKTOP) as signed_in:
        yield signed_in


@pytest.fixture
async def phone(web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    """A phone's browser with touch, signed in as a founder of its own, at the first page."""
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **PHONE) as signed_in:
        yield signed_in
