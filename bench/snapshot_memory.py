"""Measure how much a worker's memory grows while it takes and restores a snapshot of a large workspace.

    python -m bench.snapshot_memory [--megabytes 300]

The embedded stack's servers are other processes, so the figure is this process's resident memory: what a worker needs
for a snapshot on top of its other work.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

MEGABYTE = 1024 * 1024
_INTERVAL_SECONDS = 0.005
"""Seconds between two looks at the resident memory."""


@dataclass
class Growth:
    """The highest rise of the resident memory above its start, in bytes; final once the block has ended."""

    bytes: int = 0


@asynccontextmanager
async def watch_growth() -> AsyncIterator[Growth]:
    """Watch this process's resident memory while the block runs."""
    process, growth, stop = psutil.Process(), Growth(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(_INTERVAL_SECONDS):
            growth.bytes = max(growth.bytes, process.memory_info().rss - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        stop.set()
        watcher.join()


async def _measure(megabytes: int) -> None:
    from activities.sandbox.snapshot_store import restore_snapshot
    from db.migrate import migrate
    from local.stack import LocalStack
    from tests.harness.activities import open_activity_harness, shell

    async with LocalStack(durable=False, temporal_ui=False) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        async with open_activity_harness(stack) as harness:
            small = await harness.build()
            # Warm up, so that imports and first connections do not count as growth.
            await harness.take(small, await harness.open(small), 1)
            build = await harness.build()
            sandbox = await harness.open(build)
            await shell(sandbox, f"for n in 1 2 3; do head -c {megabytes * MEGABYTE // 3} /dev/urandom >part$n; done")
            began = time.monotonic()
            async with watch_growth() as growth_taking:
                snapshot = await harness.take(build, sandbox, 1)
            seconds_taking = time.monotonic() - began
            began = time.monotonic()
            async with watch_growth() as growth_restoring:
                await restore_snapshot(harness.store, sandbox, (await harness.rows(build))[1])
            seconds_restoring = time.monotonic() - began
            for each in (small, build):
                await harness.kill_all(each)
    sys.stdout.write(
        f"archive of {snapshot.bytes / MEGABYTE:.0f} MiB\n"
        f"taken and verified in {seconds_taking:.1f} s, "
        f"the worker grew by {growth_taking.bytes / MEGABYTE:.1f} MiB\n"
        f"restored and verified in {seconds_restoring:.1f} s, "
        f"the worker grew by {growth_restoring.bytes / MEGABYTE:.1f} MiB\n"
    )


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description="How much a worker's memory grows while it takes and restores a snapshot."
    )
    parser.add_argument("--megabytes", type=int, default=300, help="size of the workspace in MiB")
    asyncio.run(_measure(parser.parse_args().megabytes))
    sys.stdout.flush()
    os._exit(0)  # skip the interpreter's shutdown: the SDKs' native threads sometimes abort it


if __name__ == "__main__":
    main()
