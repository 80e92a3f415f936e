"""Builds with a fuzz model, whose answers are hostile; then every invariant must hold.

    python -m tests.faults.fuzz [--builds 200] [--seed 1] [--turns 8]

The seed determines each answer. Prints the seeds of the builds for which an invariant does not hold; `--builds 1 --seed
N` repeats one of them.
"""

import argparse
import asyncio
import os
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import WorkflowFailureError

from domain.names import FINISH
from domain.status import CLOSED, Status, WaitingFor
from tests.faults.invariants import check_build, check_no_secret, check_nothing_left, check_spending
from tests.harness.fault_waits import Damage, close_preview
from tests.harness.faults import FaultHarness, fault_harness
from tests.harness.scripts import PRODUCT
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness

TURNS = 8
"""Hostile turns of a build."""

BUILDS_AT_ONCE = 4

MOST_PROCESSES = 128
"""Processes and threads of a sandbox. Hostile commands fork without end: with the usual limit, a thousand processes
keep a small machine busy until the command's time is over."""

MOST_ANSWERS = 6
"""A founder answers a build this many times, the last ones by letting it finish; a build that asks again is stuck."""

_CLEAN = "find . -mindepth 1 -maxdepth 1 -exec chmod -R u+rwX {} + -exec rm -rf {} + 2>/dev/null; git init -q -b main; "


@dataclass
class Outcome:
    """The result of a run. `damage` names the seed of each build for which an invariant does not hold, and what does
    not hold for all builds together: money, secrets, and what is left at the end."""

    builds: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)


def fuzz_script(seed: int, turns: int) -> dict[str, Any]:
    """A script of hostile turns, which ends with a product that passes the gate."""
    return {"kind": "fuzz", "seed": seed, "turns": turns, "product": _CLEAN + PRODUCT}


async def run_fuzz(
    seeds: Sequence[int], turns: int = TURNS, report: Callable[[str], object] = lambda _: None
) -> Outcome:
    """Run a build for each seed in a harness of its own, a few at once. `report` is told of each as it ends."""
    outcome, at_once = Outcome(), asyncio.Semaphore(BUILDS_AT_ONCE)
    async with fault_harness(sandbox_options=("--max-processes", str(MOST_PROCESSES))) as faults:
        harness = faults.harness()
        worker = await faults.worker(harness)

        async def one(seed: int) -> None:
            async with at_once:
                try:
                    status = await _build(faults, harness, seed, turns)
                    outcome.builds[status] += 1
                    report(f"seed {seed}: {status}")
                except Damage as damage:
                    found = [f"seed {seed}: {each}" for each in damage.findings]
                    outcome.damage += found
                    report("\n".join(found))

        await asyncio.gather(*map(one, seeds))
        outcome.damage += await _damage("money", check_spending(faults))
        outcome.damage += await _damage("secrets", check_no_secret(faults))
        await worker.end()
        outcome.damage += await _damage("the end", check_nothing_left(faults))
    return outcome


async def _damage(what: str, check: Awaitable[None]) -> list[str]:
    """What a check of all builds together finds."""
    try:
        await check
    except Damage as damage:
        return [f"{what}: {each}" for each in damage.findings]
    return []


async def _build(faults: FaultHarness, harness: WorkerHarness, seed: int, turns: int) -> str:
    build_id = await harness.start(script=fuzz_script(seed, turns))
    await _until_closed(harness, build_id)
    row = await harness.row(build_id)
    await check_build(faults, build_id, None)
    await close_preview(harness, build_id)
    return row.status


async def _until_closed(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Answer as a founder does who knows nothing of models: try again, then let it finish.

    Raises:
        Damage: it asks an operator for something that no operator could fix, or does not end.
    """
    answers, answered_at = 0, -1
    try:
        async with asyncio.timeout(DEADLINE):
            while (row := await harness.row(build_id)).status not in CLOSED:
                if row.status == Status.NEEDS_INPUT and row.status_seq != answered_at:
                    if row.waiting_for != WaitingFor.FOUNDER:
                        raise Damage([f"it asks for {row.waiting_for}: {row.reason}"])
                    if answers == MOST_ANSWERS:
                        raise Damage([f"it asks again and again: {row.reason}"])
                    answers, answered_at = answers + 1, row.status_seq
                    handle = harness.handle(build_id)
                    await (handle.signal(FINISH) if answers > MOST_ANSWERS // 2 else harness.builds.wake(build_id))
                await asyncio.sleep(0.2)
            with suppress(WorkflowFailureError):
                await harness.handle(build_id).result()
    except TimeoutError:
        row = await harness.row(build_id)
        raise Damage([f"it is stuck: {row.status}, {row.reason}"]) from None


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="seed of the first build; the next ones count on from it")
    parser.add_argument("--turns", type=int, default=TURNS, help="hostile turns of a build")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.builds)
    outcome = await run_fuzz(seeds, arguments.turns, lambda line: sys.stderr.write(f"{line}\n"))
    sys.stdout.write(f"seeds {seeds.start} to {seeds.stop - 1}: {dict(outcome.builds)}\n")
    sys.stdout.writelines(f"{line}\n" for line in outcome.damage)
    return 1 if outcome.damage or not outcome.builds[Status.READY] else 0


if __name__ == "__main__":
    code = asyncio.run(_main())
    # Skip the interpreter's shutdown: the SDKs' native threads sometimes abort it (sdk-python#300).
    sys.stdout.flush()
    os._exit(code)
