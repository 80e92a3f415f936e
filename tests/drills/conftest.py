"""Drills: what operators and clouds do to a running deployment, done on real servers.

`make drills` runs all of them and prints a line for each: what was done, the figures, and whether it held. Those with
the marker `fast` are part of `make test`.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from db.migrate import migrate
from local.stack import LocalStack
from tests.harness.drainage import NOTICED_SOON


@pytest.fixture(autouse=True)
def _name_of_drill(request: pytest.FixtureRequest) -> None:
    """Let the report say what was done: the first line of the test's docstring."""
    what = (request.function.__doc__ or request.node.name).strip().splitlines()[0].rstrip(".")
    request.node.user_properties.append(("drill", what))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a figure to the drill's line, such as "30 builds ready after 41 s"."""

    def add(text: str) -> None:
        request.node.user_properties.append(("figure", text))

    return add


@pytest.fixture(scope="session")
def sandbox_oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the large stack's sandbox server logs what it is asked for."""
    return tmp_path_factory.mktemp("oracle")


@pytest.fixture(scope="session")
async def large_stack(sandbox_oracle: Path) -> AsyncIterator[LocalStack]:
    """A stack of its own, which has room for the sandboxes of dozens of builds."""
    options = ("--max-sandboxes", "200", "--oracle", str(sandbox_oracle))
    async with LocalStack(
        durable=False, time_skipping=True, temporal_ui=False, temporal_config=NOTICED_SOON, sandbox_options=options
    ) as running:
        await migrate(running.environment["DATABASE_URL"])
        yield running
