"""Measure how much history a turn adds to a build, to show that it does not grow with the build's length.

    python -m bench.flat [--turns 400] [--calls 1]

Runs a long script of the rehearsal model without think time on the embedded stack. Exports the histories of the whole
chain and prints events and bytes per turn, as Temporal stores them (protobuf), for the first and the second half.
"""

import argparse
import asyncio
import os
import sys


async def _measure(turns: int, calls: int) -> None:
    from db.migrate import migrate
    from domain.status import Status
    from local.stack import LocalStack
    from tests.harness.history import chain_of, shares_of
    from tests.harness.worker import worker_harness

    async with LocalStack(durable=False) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        async with worker_harness(stack, tool_call_cap=10**6) as harness:
            script = {"kind": "long", "turns": turns, "calls_per_turn": calls, "end": "end_turn"}
            build_id = await harness.start(script=script)
            row = await harness.until(build_id, frozenset({Status.CHECKS, Status.NEEDS_INPUT}), seconds=1800)
            await harness.builds.cancel(build_id)
            await harness.until(build_id, frozenset({Status.CANCELLED}))
            chain = await chain_of(harness.client, str(build_id))
    shares = [share for events in chain for share in shares_of(events)]
    print(f"{turns} turns of {calls} call(s): status {row.status}, {len(chain)} run(s) of the workflow")
    half = len(shares) // 2
    for name, part in (("first half", shares[:half]), ("second half", shares[half:]), ("all", shares)):
        print(
            f"{name:12} {len(part):4} turns  events/turn {sum(s.events for s in part) / len(part):6.2f}  "
            f"bytes/turn {sum(s.bytes for s in part) / len(part):7.1f}  "
            f"largest turn {max(s.bytes for s in part)}  largest payload {max(s.largest_payload for s in part)}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400, help="turns of the build")
    parser.add_argument("--calls", type=int, default=1, help="tool calls in each turn")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.turns, arguments.calls))
    sys.stdout.flush()
    os._exit(0)
