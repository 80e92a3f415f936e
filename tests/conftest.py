"""What every test gets: an environment that points nowhere, and the embedded stack."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clients.browser import Browser
    from local.stack import LocalStack
    from tests.harness.worker import WorkerHarness

_PREFIXES = ("ANTHROPIC_", "AWS_", "COFOUNDER_", "E2B_", "PG", "PROJECT_", "REHEARSAL_", "S3_", "SANDBOX_", "TEMPORAL_")
_NAMES = {"AUTONOMOUS_AGENT", "BRIEF", "DATABASE_URL", "EXIT", "IDEA", "REAL"}


def _points_outside(variable: str) -> bool:
    name = variable.upper()
    return name in _NAMES or name.startswith(_PREFIXES) or name.endswith("_PROXY")


# At import, before any test module is: whatever the machine's owner has set, no test may reach a real service.
for _variable in [name for name in os.environ if _points_outside(name)]:
    del os.environ[_variable]


_LONGEST = (
    *("test_each_fault", "test_chaos", "test_servers_killed", "test_safeguards"),
    *("test_whole_build", "test_demo", "test_local_stack", "test_scenarios", "test_nothing_left", "test_snapshot"),
    *("test_local_sandbox_server", "test_gate", "test_rehearsal", "test_local_sandbox_confinement", "test_flat"),
    *("test_local_sandbox", "test_dispatch", "test_replay", "test_lifecycle", "test_sandbox_client", "test_bad_input"),
)
"""The modules that take the longest. Each process gets one module after the other; at the end none should wait for
another that has just begun with a long one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, the others as they come."""
    rank = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the rehearsal model keeps the raw bodies of the requests that it was sent."""
    return tmp_path_factory.mktemp("bodies")


@pytest.fixture(scope="session")
async def stack(bodies: Path) -> "AsyncIterator[LocalStack]":
    """The whole embedded stack, once per session: migrated, no fsync, and timers that tests may skip."""
    from db.migrate import migrate
    from local.stack import LocalStack

    async with LocalStack(durable=False, time_skipping=True, model_options=("--bodies", str(bodies))) as running:
        await migrate(running.environment["DATABASE_URL"])
        yield running


@pytest.fixture(scope="session")
async def browser() -> "AsyncIterator[Browser]":
    """One Chromium for all workers in this process: it takes seconds to start."""
    from clients.browser import Browser, find_chromium

    shared = Browser(find_chromium(None))
    yield shared
    await shared.close()


@pytest.fixture(scope="session")
async def harness(stack: "LocalStack", browser: "Browser") -> "AsyncIterator[WorkerHarness]":
    """A worker with the default settings, for the tests that need no others."""
    from tests.harness.worker import worker_harness  # the whole program, which the unit tests must not wait for

    async with worker_harness(stack, browser) as running:
        yield running
