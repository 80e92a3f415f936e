"""A healthy hour: builds, viewers and a Prometheus with the alert rules as they are, and no fault. No alert may fire.

    python -m tests.faults.healthy [--seconds 3600] [--builds 2]

Prints the alerts that fired, those that were about to, and what was built. The exit code is 1 if an alert fired.
"""

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import httpx2

from db.migrate import migrate
from db.session import open_sessions
from db.transaction import transaction
from db.users import UserChange, change_user, ensure_user
from local.ports import Ports
from local.prometheus import INSTALL, find_prometheus, prometheus
from local.stack import LocalStack
from tests.harness.observed_run import ObservedStack, observed_stack
from tests.harness.prometheus import until_targets_are_up
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.worker import sample_brief

_LOOK_SECONDS = 2.0


@dataclass
class Health:
    """What was seen. Seconds by the alert's name, from the beginning to when it first did so."""

    fired: dict[str, float] = field(default_factory=dict)
    pending: dict[str, float] = field(default_factory=dict)
    builds: Counter[str] = field(default_factory=Counter)


async def run_healthy(program: Path, seconds: float, builds: int) -> Health:
    """Run a deployment without faults.

    Args:
        program: Prometheus.
        builds: built at once, one after another.
    """
    health, ports = Health(), Ports()
    port = ports.choose(set())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with LocalStack(directory / "stack", temporal_ui=False) as stack:
            await migrate(stack.environment["DATABASE_URL"])
            await _make_founder(stack.environment["DATABASE_URL"])
            limits = {"NEW_PROJECTS_PER_DAY": "0"}  # an hour has hundreds
            async with observed_stack(stack, directory, f"healthy-{uuid.uuid4()}", **limits) as programs:
                targets = {f"cofounder-{each.name}": [each.metrics_address] for each in (programs.api, programs.worker)}
                command = prometheus(program, stack.data / "prometheus", port, targets, interval_seconds=15)
                process = await stack.start_beside(command, log=directory / "prometheus.log")
                url = f"http://127.0.0.1:{port}"
                try:
                    await until_targets_are_up(url)
                    await _go_on(programs, url, health, seconds, builds)
                finally:
                    await process.stop()
                    ports.release()
    return health


async def _make_founder(database_url: str) -> None:
    """Give the founder a plan without a limit: an hour of builds costs more than a day's share of the smallest one."""
    async with open_sessions(database_url) as sessions, transaction(sessions) as tx:
        await ensure_user(tx, "founder")
        await change_user(tx, "founder", UserChange(plan="cto_scale"), datetime.now(UTC).date())


async def _go_on(programs: ObservedStack, url: str, health: Health, seconds: float, builds: int) -> None:
    tasks = [asyncio.create_task(_build(programs, health)) for _ in range(builds)]
    tasks.append(asyncio.create_task(_watch_account(programs)))
    began = monotonic()
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
        while (now := monotonic() - began) < seconds:
            for alert in (await http.get("/api/v1/alerts")).json()["data"]["alerts"]:
                seen = health.fired if alert["state"] == "firing" else health.pending
                seen.setdefault(alert["labels"]["alertname"], now)
            for task in tasks:
                if task.done():
                    task.result()  # raise what ended it
            await asyncio.sleep(_LOOK_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _build(programs: ObservedStack, health: Health) -> None:
    """Build one product after another."""
    script = steps(
        *[[bash(f"echo {turn} >> log; git add -A; git commit -qm {turn}")] for turn in range(8)], [bash(PRODUCT)]
    )
    while True:
        build = await programs.build(sample_brief(), script)
        health.builds[build["status"]] += 1


async def _watch_account(programs: ObservedStack) -> None:
    """Follow the account and each of its builds, as the console does."""
    following: dict[str, asyncio.Task[None]] = {}
    async with programs.client() as http:

        async def follow(path: str) -> None:
            with suppress(httpx2.TransportError):
                async with http.stream("GET", path, timeout=None) as answer:
                    async for _ in answer.raise_for_status().aiter_lines():
                        pass

        try:
            while True:
                page = (await http.get("/builds")).raise_for_status().json()
                for build in page["builds"]:
                    if build["id"] not in following:
                        following[build["id"]] = asyncio.create_task(follow(f"/builds/{build['id']}/events"))
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            for task in following.values():
                task.cancel()
            await asyncio.gather(*following.values(), return_exceptions=True)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--builds", type=int, default=2, help="built at once")
    options = parser.parse_args()
    program = find_prometheus()
    if program is None:
        print(f"Prometheus is not on PATH: {INSTALL}")
        return 1
    health = asyncio.run(run_healthy(program, options.seconds, options.builds))
    print(f"{options.seconds:.0f} s without faults; builds: {dict(health.builds)}")
    for word, alerts in (("fired", health.fired), ("pending", health.pending)):
        named = ", ".join(f"{name} after {at:.0f} s" for name, at in alerts.items())
        print(f"  {word}: {named or 'none'}")
    return 1 if health.fired else 0


if __name__ == "__main__":
    sys.exit(main())
