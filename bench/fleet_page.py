"""Measure how long operators wait for the fleet: its figures, the first rows, and a changed filter.

The API runs in this process with its own database role, on a database of its own with the builds of many founders.

    python -m bench.fleet_page [--builds 2000] [--turns 30] [--closed 5] [--times 20]
"""

import argparse
import asyncio
import logging
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from pydantic import SecretStr

from bench.machine import machine
from local.stack import LocalStack
from tests.harness.api_server import AS_OPERATOR, OPERATORS, RunningApi, new_database, running_api, settings_for
from tests.harness.fleet import fill_fleet

FIRST_ROWS_SECONDS = 1.0
"""The longest that an operator may wait for the first rows of 2,000 builds."""

_REQUESTS: Mapping[str, str] = {
    "figures of the fleet": "/v1/ops/fleet",
    "first rows": "/v1/ops/builds?open=true&limit=100",
    "a changed filter": "/v1/ops/builds?where=status%3Dsleeping%20and%20plan%3Dpartner&limit=100",
    "the most expensive first": "/v1/ops/builds?open=true&sort=-spent&limit=100",
    "500 rows": "/v1/ops/builds?open=true&limit=500",
    "stuck builds": "/v1/ops/stuck",
    "spending of today": "/v1/ops/spend",
}


@dataclass(frozen=True)
class Wait:
    """Milliseconds that a request took: the first, which fills caches, and the median and longest of the others."""

    what: str
    first: float
    p50: float
    longest: float


async def measure(api: RunningApi, times: int) -> list[Wait]:
    """Make each request this many times, one after the other."""
    waits = []
    for what, path in _REQUESTS.items():
        taken = []
        for _ in range(times + 1):
            began = time.perf_counter()
            answer = await api.http.get(path, headers=AS_OPERATOR)
            answer.raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
        first, *others = taken
        waits.append(Wait(what, first, statistics.median(others), max(others)))
    return waits


async def _run(builds: int, turns: int, closed: int, times: int) -> None:
    async with LocalStack(parts=("postgres", "temporal", "s3"), temporal_ui=False) as stack:
        settings = settings_for(await new_database(stack), stack.environment, api_operator_token=SecretStr(OPERATORS))
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        async with running_api(settings, stack.environment) as api:
            await fill_fleet(api.sessions, builds, turns=turns, closed=closed)
            waits = await measure(api, times)
    print(machine())
    print(
        f"{builds:,} open builds of {turns} turns, {builds * closed:,} closed ones; milliseconds, {times} requests each"
    )
    print(f"{'':<26} {'first':>7} {'median':>7} {'longest':>8}")
    for wait in waits:
        print(f"{wait.what:<26} {wait.first:>7.0f} {wait.p50:>7.0f} {wait.longest:>8.0f}")
    rows = next(wait for wait in waits if wait.what == "first rows")
    met = "met" if rows.first <= FIRST_ROWS_SECONDS * 1000 else "missed"
    print(f"first rows within {FIRST_ROWS_SECONDS:.0f} s: {met}")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--builds", type=int, default=2_000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--closed", type=int, default=5, help="closed builds of each project")
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    asyncio.run(_run(options.builds, options.turns, options.closed, options.times))


if __name__ == "__main__":
    main()
