"""Measure how long a build stands still after its worker is killed.

    python -m bench.recovery [--repetitions 5]

Kills the worker with SIGKILL during a model call and during a command, and takes the time to the build's next event.
"with a second worker": another one is already waiting for work. "without": a new one starts at once, as under a
supervisor, and its start counts. Prints the median and the longest, in seconds.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import uuid
from time import monotonic

from sqlalchemy import func, select

from db.models import Event
from tests.harness.fault_waits import LONG, close_preview, until_calling, until_closed, until_command_held
from tests.harness.faults import FaultHarness, fault_harness
from tests.harness.sample_build import sample_script
from tests.harness.worker import WorkerHarness

MOMENTS = ("a model call", "a command")


async def recovery_seconds(faults: FaultHarness, moment: str, *, second: bool) -> float:
    """Return the seconds from the worker's death to the build's next event."""
    harness = faults.harness()
    first = await faults.worker(harness, STREAM_IDLE_SECONDS=LONG)
    if moment == "a model call":
        stalls = [{"kind": "stall", "seconds": 600, "after": 1}]
        build_id = await harness.start(script=sample_script(), faults=stalls)
        await until_calling(faults, harness, build_id, turn=2)
        hold = None
    else:
        build_id = await harness.start(script=sample_script(hold=True))
        hold = await until_command_held(faults, harness, build_id)
    other = await faults.worker(harness) if second else None
    before = await _last_event(harness, build_id)
    first.send(signal.SIGKILL)
    died = monotonic()
    if hold is not None:
        hold.unlink()  # lets the command end; its result waits for a worker
    other = other or await faults.worker(harness)
    while await _last_event(harness, build_id) == before:
        await asyncio.sleep(0.02)
    seconds = monotonic() - died
    await until_closed(harness, build_id)
    await close_preview(harness, build_id)
    await other.end()
    return seconds


async def _last_event(harness: WorkerHarness, build_id: uuid.UUID) -> int | None:
    async with harness.session() as tx:
        return await tx.session.scalar(select(func.max(Event.id)).where(Event.build_id == build_id))


async def _measure(repetitions: int) -> None:
    kinds = [(moment, second) for moment in MOMENTS for second in (True, False)]

    async def row(faults: FaultHarness, moment: str, second: bool) -> None:
        seconds = [await recovery_seconds(faults, moment, second=second) for _ in range(repetitions)]
        how = "with a second worker" if second else "without"
        print(f"killed in {moment:13} {how:21} p50 {statistics.median(seconds):5.1f} s  longest {max(seconds):5.1f} s")

    async with fault_harness() as faults:
        await asyncio.gather(*(row(faults, moment, second) for moment, second in kinds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="kills for each of the four rows")
    asyncio.run(_measure(parser.parse_args().repetitions))
    sys.stdout.flush()
    os._exit(0)
