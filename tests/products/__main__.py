"""Builds real products with real installs, from whatever registries this machine reaches.

    python -m tests.products [NAME …]

Prints a table of seconds. The exit code is 0 only if every product that could be reached became ready on each of its
days, and at least six could.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import structlog

from clients.browser import Browser, find_chromium
from clients.temporal import connect_temporal, describe_namespace
from db.migrate import migrate
from db.session import open_sessions
from domain.egress import DEFAULT_SETS, hosts_of
from local.stack import LocalStack
from services.deployment import rebind
from settings import Settings, load_settings
from tests.harness.environment import outside_variables
from tests.harness.worker import worker_harness
from tests.products.build import build_product
from tests.products.reach import network_of, unreachable
from tests.products.recordings import Recording, read_recordings
from tests.products.report import LEAST, ProductResult, exit_code, table

_PATIENCE: dict[str, Any] = {"gate_attempts": 1, "gate_command_seconds": 1800, "gate_start_seconds": 300}
"""A recorded agent does not answer findings, so one gate is enough; and other work may keep this machine busy."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.products", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these products; default: all")
    names = parser.parse_args().names
    recordings = read_recordings()
    if unknown := set(names) - {each.name for each in recordings}:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(each.name for each in recordings)}")
    settings = load_settings()
    for variable in outside_variables(os.environ):
        del os.environ[variable]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    chosen = [each for each in recordings if not names or each.name in names]
    results = asyncio.run(_build_all(settings, chosen))
    print(table(results))
    return exit_code(results, min(LEAST, len(chosen)))


async def _build_all(settings: Settings, recordings: Sequence[Recording]) -> list[ProductResult]:
    hosts = hosts_of(DEFAULT_SETS)
    network = await network_of(settings, hosts)
    results = []
    async with LocalStack(durable=False, time_skipping=True, egress="proxy", allow=hosts, network=network) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        async with open_sessions(stack.environment["DATABASE_URL"]) as sessions:
            await rebind(sessions, await describe_namespace(await connect_temporal(stack.environment)))
        browser = Browser(find_chromium(None))
        try:
            async with worker_harness(stack, browser, **_PATIENCE) as harness:
                for recording in recordings:
                    missing = await unreachable(network, recording.needs, recording.reaches)
                    if missing:
                        result = ProductResult(recording.name, len(recording.days), unreachable=missing)
                    else:
                        result = await build_product(harness, recording)
                    results.append(result)
                    print(table([result]).partition("\n")[2].rpartition("\n")[0], flush=True)
        finally:
            await browser.close()
    return results


if __name__ == "__main__":
    sys.exit(main())
