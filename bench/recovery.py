"""How long a build stands still when its worker is killed.

    python -m bench.recovery [--repetitions 5]

Kills the worker with SIGKILL in a model call and in a command, and takes the time to the build's next event. "with a
second worker": another one has been waiting for work. "without": a new one is started at once, as a supervisor would;
the time holds its start. Prints median and longest, in seconds.
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
from tests.faults.cases import LONG, until_calling, until_command_held
from tests.faults.ground import Ground, ground
from tests.faults.report import close_preview, closed
from tests.faults.story import story
from tests.workshop import Workshop

PLACES = ("a model call", "a command")


async def stands_still(here: Ground, place: str, *, second: bool) -> float:
    """Seconds from the worker's death to the build's next event."""
    shop = here.shop()
    first = await here.worker(shop, STREAM_IDLE_SECONDS=LONG)
    if place == "a model call":
        stalls = [{"kind": "stall", "seconds": 600, "after": 1}]
        build_id = await shop.start(script=story(), faults=stalls)
        await until_calling(here, shop, build_id, turn=2)
        held = None
    else:
        build_id = await shop.start(script=story(held=True))
        held = await until_command_held(here, shop, build_id)
    other = await here.worker(shop) if second else None
    before = await _last_event(shop, build_id)
    first.send(signal.SIGKILL)
    died = monotonic()
    if held is not None:
        held.unlink()  # the command ends by itself, and waits for somebody to take its result
    other = other or await here.worker(shop)
    while await _last_event(shop, build_id) == before:
        await asyncio.sleep(0.02)
    stood_still = monotonic() - died
    await closed(shop, build_id)
    await close_preview(shop, build_id)
    await other.end()
    return stood_still


async def _last_event(shop: Workshop, build_id: uuid.UUID) -> int | None:
    async with shop.session() as session:
        return await session.scalar(select(func.max(Event.id)).where(Event.build_id == build_id))


async def _measure(repetitions: int) -> None:
    kinds = [(place, second) for place in PLACES for second in (True, False)]

    async def row(here: Ground, place: str, second: bool) -> None:
        taken = [await stands_still(here, place, second=second) for _ in range(repetitions)]
        how = "with a second worker" if second else "without"
        print(f"killed in {place:13} {how:21} p50 {statistics.median(taken):5.1f} s  longest {max(taken):5.1f} s")

    async with ground() as here:
        await asyncio.gather(*(row(here, place, second) for place, second in kinds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    asyncio.run(_measure(parser.parse_args().repetitions))
    sys.stdout.flush()
    os._exit(0)
