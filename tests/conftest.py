"""Fixtures of all tests: an environment that points to no real service, and the embedded stack."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.harness.certificates import share_certificates
from tests.harness.environment import outside_variables

if TYPE_CHECKING:
    from clients.browser import Browser
    from local.stack import LocalStack
    from tests.harness.worker import WorkerHarness

_TESTS = Path(__file__).parent

# At import, before any test module: no test may reach a real service, whatever variables the machine's owner has set.
for _variable in outside_variables(os.environ):
    del os.environ[_variable]

share_certificates()

# The scenarios are in modules of their own, whose failed assertions are to show their values, too.
pytest.register_assert_rewrite("tests.workflows")


_LONGEST = (
    *("workflows/test_scenarios.py", "integration/cli/test_demo.py", "faults/test_each_fault.py"),
    *("integration/test_worker.py", "faults/test_safeguards.py", "faults/test_servers_killed.py"),
    *("integration/activities/test_gate.py", "upgrade/test_previous_version.py", "workflows/test_long.py"),
    *("faults/test_chaos.py", "integration/local/test_stack.py", "integration/local/sandbox/test_packages.py"),
    *("faults/test_fuzz.py", "integration/clients/test_browser.py", "integration/test_whole_build.py"),
    *("integration/api/test_schema.py", "integration/repository/test_image.py", "integration/test_erasure.py"),
    *("integration/activities/test_gate_repairs.py", "integration/repository/test_nothing_left.py"),
    *("integration/activities/test_snapshot_repositories.py", "replay/test_replay.py", "integration/test_bad_input.py"),
    *("workflows/test_plan.py", "workflows/test_cancel.py", "workflows/test_flat.py", "integration/db/test_money.py"),
    *("integration/activities/test_snapshot.py", "integration/activities/test_judged_gate.py"),
)
"""The modules that take the longest; they start first. Each process runs one module at a time, so a long module that
starts last would keep one process busy while the others have nothing left."""


def pytest_configure() -> None:
    """Log errors as plain text: drawing a traceback with its variables takes a minute on a busy machine."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make drills` and `make web` ask for what takes too long for `make test`."""
    parser.addoption("--drills", action="store_true", help="run all drills and all thorough tests, and nothing else")
    parser.addoption("--web", action="store_true", help="also run the tests of the web console that are marked web")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each drill: what was done, its figures, and whether it held."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and any(key == "drill" for key, _ in report.user_properties)
    ]
    if not reports:
        return
    terminalreporter.section("drills")
    for report in reports:
        what = next(value for key, value in report.user_properties if key == "drill")
        figures = "; ".join(value for key, value in report.user_properties if key == "figure")
        verdict = "held" if report.passed else "DID NOT HOLD"
        terminalreporter.write_line(f"{what}: {figures + ': ' if figures else ''}{verdict} ({report.duration:.0f} s)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what the caller has time for. Run the longest modules first and the unit tests, which are short, last."""
    if config.getoption("drills"):
        chosen = _drills_and_thorough(items)
    else:
        chosen = _for_every_change(items, with_web=config.getoption("web"))
    if len(chosen) < len(items):
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen
    rank = {_TESTS / name: position for position, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: (rank.get(item.path, len(rank)), _TESTS / "unit" in item.path.parents))


def _drills_and_thorough(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if _is_drill(item) or item.get_closest_marker("thorough")]


def _for_every_change(items: list[pytest.Item], *, with_web: bool) -> list[pytest.Item]:
    return [
        item
        for item in items
        if not item.get_closest_marker("thorough")
        and (not _is_drill(item) or item.get_closest_marker("fast"))
        and (with_web or not item.get_closest_marker("web"))
    ]


def _is_drill(item: pytest.Item) -> bool:
    return _TESTS / "drills" in item.path.parents


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the rehearsal model stores the raw bodies of its requests."""
    return tmp_path_factory.mktemp("bodies")


@pytest.fixture(scope="session")
async def stack(bodies: Path) -> "AsyncIterator[LocalStack]":
    """The whole embedded stack, once per session: migrated, without fsync, and with timers that tests can skip."""
    from clients.temporal import connect_temporal, describe_namespace
    from db.migrate import migrate
    from db.session import open_sessions
    from local.stack import LocalStack
    from services.deployment import rebind

    async with LocalStack(durable=False, time_skipping=True, model_options=("--bodies", str(bodies))) as running:
        await migrate(running.environment["DATABASE_URL"])
        async with open_sessions(running.environment["DATABASE_URL"]) as sessions:
            # Now, as tests insert builds without workflows, with which no worker would bind the database.
            await rebind(sessions, await describe_namespace(await connect_temporal(running.environment)))
        yield running


@pytest.fixture(scope="session")
async def browser() -> "AsyncIterator[Browser]":
    """One Chromium for all workers in this process, as it takes seconds to start."""
    from clients.browser import Browser, find_chromium

    shared = Browser(find_chromium(None))
    yield shared
    await shared.close()


@pytest.fixture(scope="session")
async def harness(stack: "LocalStack", browser: "Browser") -> "AsyncIterator[WorkerHarness]":
    """A worker with the default settings, for tests that need no others."""
    from tests.harness.worker import worker_harness  # the whole program, which the unit tests must not wait for

    async with worker_harness(stack, browser) as running:
        yield running
