"""How much a worker grows while it takes and restores a snapshot of a large workspace.

    python -m bench.snapshot_memory [--megabytes 300]

On the embedded stack, whose servers are other processes: what is measured is this process's resident memory, which is
all that a worker would need beside its other work.
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
_EVERY_SECONDS = 0.005


@dataclass
class Growth:
    """How far the resident memory rose above what it was at the start, at most; in bytes, once the block has ended."""

    bytes: int = 0


@asynccontextmanager
async def growing() -> AsyncIterator[Growth]:
    """Watch this process's resident memory while the block runs."""
    process, growth, ended = psutil.Process(), Growth(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(_EVERY_SECONDS):
            growth.bytes = max(growth.bytes, process.memory_info().rss - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        ended.set()
        watcher.join()


async def _measure(megabytes: int) -> None:
    from activities.sandbox.snapshot_store import restore_snapshot
    from db.migrate import migrate
    from local.stack import LocalStack
    from tests.integration.rooms import open_rooms, shell

    async with LocalStack(durable=False, temporal_ui=False) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        async with open_rooms(stack) as rooms:
            small = await rooms.build()
            await rooms.take(small, await rooms.open(small), 1)  # what is imported and opened once is no growth
            build = await rooms.build()
            sandbox = await rooms.open(build)
            await shell(sandbox, f"for n in 1 2 3; do head -c {megabytes * MEGABYTE // 3} /dev/urandom >part$n; done")
            began = time.monotonic()
            async with growing() as taking:
                taken = await rooms.take(build, sandbox, 1)
            took = time.monotonic() - began
            began = time.monotonic()
            async with growing() as restoring:
                await restore_snapshot(rooms.store, sandbox, (await rooms.rows(build))[1])
            restored = time.monotonic() - began
            for each in (small, build):
                await rooms.kill_all(each)
    sys.stdout.write(
        f"archive of {taken.bytes / MEGABYTE:.0f} MiB\n"
        f"taken and verified in {took:.1f} s, the worker grew by {taking.bytes / MEGABYTE:.1f} MiB\n"
        f"restored and verified in {restored:.1f} s, the worker grew by {restoring.bytes / MEGABYTE:.1f} MiB\n"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How much a worker grows by a snapshot.")
    parser.add_argument("--megabytes", type=int, default=300, help="size of the workspace in MiB")
    asyncio.run(_measure(parser.parse_args().megabytes))
    sys.stdout.flush()
    os._exit(0)  # not through the interpreter's shutdown: the SDKs' native threads sometimes abort it


if __name__ == "__main__":
    main()
