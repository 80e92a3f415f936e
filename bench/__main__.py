"""Run benchmarks by name, all of them unless some are named; print a table each, and with --json write all figures.

    python -m bench [NAME…] [--small] [--json PATH]

    turns       what a turn costs at 25, 100, 400 and 1,000 turns, beside the same turns in a plain loop
    throughput  builds a minute: 20 and 100 builds of 25 turns at once, with one worker and with two
    viewers     from an event's commit to 1, 50 and 200 viewers
    start       from POST to 201, and to the workflow's first task

Only when named, each with its own sizes (`python -m bench.sleep --help` and so on tell which):

    wake, asleep, reserve   sleeping, waking and reserving money
    recovery                how long a build stands still when its worker is killed
    snapshot_memory         how much a worker grows while it takes a snapshot

Everything runs on an embedded stack of its own, durable as in use, with the rehearsal model and no think time. Figures
depend on the machine and on what else it does; both are told. All of it takes long; --small takes a minute or two.
Other sizes: --turns 25,100 --builds 20 --workers 1 --viewers 200.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import starting, targets, throughput, turns, viewers
from bench.machine import machine

NAMES = ("turns", "throughput", "viewers", "start")

PROGRAMS = {
    "wake": ("bench.sleep", "wake"),
    "asleep": ("bench.sleep", "asleep"),
    "reserve": ("bench.sleep", "reserve"),
    "recovery": ("bench.recovery",),
    "snapshot_memory": ("bench.snapshot_memory",),
}
"""Benchmarks that are programs of their own."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    turns: Sequence[int] = (25, 100, 400, 1000)
    builds: Sequence[int] = (20, 100)
    workers: Sequence[int] = (1, 2)
    build_turns: int = 25
    viewers: Sequence[int] = (1, 50, 200)
    events: int = 100
    starts: int = 20


SMALL = Sizes(turns=(10,), builds=(4,), workers=(1,), build_turns=5, viewers=(1, 20), events=20, starts=3)

_CONSOLE = Console(width=max(Console().width, 150), highlight=False)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{cell:,.1f}" if isinstance(cell, float) else str(cell) for cell in row))
    _CONSOLE.print(table)


async def _turns(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    found = await turns.measure(sizes.turns)
    _print(
        "Milliseconds a turn of one model call and one tool call, no think time",
        ("turns", "build", "plain loop", "beyond it", "model says", "tool", "beyond both", "CPU worker", "CPU plain"),
        [
            (
                *(each.turns, each.wall, each.plain_wall, each.beyond_plain, each.model, each.plain_tool),
                *(each.beyond_model_and_tool, each.worker_cpu, each.plain_cpu),
            )
            for each in found
        ],
    )
    _print(
        "What a turn leaves behind",
        (
            *("turns", "history events", "history bytes", "runs", "conversation bytes", "database bytes"),
            *("per byte", "replay ms", "worker peak MB"),
        ),
        [
            (
                *(each.turns, each.history_events, each.history_bytes, each.runs, each.conversation_bytes),
                *(each.database_bytes, f"{each.bytes_per_byte:.2f}", each.replay_ms, each.worker_peak_mb),
            )
            for each in found
        ],
    )
    return [each.figures() for each in found], list(targets.of_turns(found))


async def _throughput(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    found = await throughput.measure(sizes.builds, sizes.workers, sizes.build_turns)
    _print(
        f"Builds of {sizes.build_turns} turns at once",
        (
            *("builds", "workers", "builds a minute", "seconds", "then closing, s", "CPU ms a turn", "worker peak MB"),
            *("database bytes a turn", "per byte"),
        ),
        [
            (
                *(each.builds, each.workers, each.per_minute, each.seconds, each.closing_seconds),
                *(each.worker_cpu_per_turn, each.peak_mb, each.database_bytes, f"{each.bytes_per_byte:.2f}"),
            )
            for each in found
        ],
    )
    parts = list(found[0].cpu_by_part) if found else []
    _print(
        "Where the CPU goes, milliseconds a turn",
        ("builds", "workers", "the workers", *parts, "the cores are busy"),
        [
            (
                *(each.builds, each.workers, each.worker_cpu_per_turn, *each.cpu_by_part.values()),
                f"{each.busy:.0%}",
            )
            for each in found
        ],
    )
    return [each.figures() for each in found], list(targets.of_throughput(found))


async def _viewers(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    found = await viewers.measure(sizes.viewers, sizes.events)
    _print(
        "Milliseconds from an event's commit to its viewers",
        ("viewers", "events", "p50", "p99", "longest"),
        [(each.viewers, each.events, each.p50, each.p99, each.longest) for each in found],
    )
    return [each.figures() for each in found], list(targets.of_viewers(found))


async def _start(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    found = await starting.measure(sizes.starts)
    _print(
        "Milliseconds from the request that starts a build",
        ("builds", "to 201, p50", "longest", "to the first task, p50", "longest"),
        [
            (
                *(found.builds, found.created_p50, found.created_longest),
                *(found.first_task_p50, found.first_task_longest),
            )
        ],
    )
    return [found.figures()], []


async def _program(name: str) -> object:
    """Run a benchmark that is a program of its own; its figures, if it writes any."""
    with tempfile.TemporaryDirectory() as made:
        figures = Path(made) / "figures.json"
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *PROGRAMS[name], env={**os.environ, "JSON": str(figures)}
        )
        if await program.wait() != 0:
            raise SystemExit(f"the benchmark {name} failed")
        return json.loads(figures.read_text()) if figures.exists() else None


_MEASURES = {"turns": _turns, "throughput": _throughput, "viewers": _viewers, "start": _start}


async def main() -> None:
    """Run what is named."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; the first four unless some are named")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures to this file")
    for name in ("turns", "builds", "workers", "viewers"):
        parser.add_argument(f"--{name}", type=_numbers, metavar="N,…", help="these sizes instead")
    given = parser.parse_args()
    if unknown := set(given.names) - {*NAMES, *PROGRAMS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join([*NAMES, *PROGRAMS])}")
    chosen = asdict(SMALL if given.small else Sizes())
    chosen |= {name: value for name, value in vars(given).items() if name in chosen and value}
    on = machine()
    _CONSOLE.print("On " + ", ".join(f"{name} {value}" for name, value in on.items()))
    figures: dict[str, Any] = {"machine": on}
    judged: list[targets.Target] = []
    for name in given.names or NAMES:
        if name in PROGRAMS:
            figures[name] = await _program(name)
            continue
        figures[name], met = await _MEASURES[name](Sizes(**chosen))
        judged += met
    if judged:
        rows = [(each.name, each.bound, f"{each.measured:,.2f}", "met" if each.met else "MISSED") for each in judged]
        _print("Targets", ("", "target", "measured", ""), rows)
    figures["targets"] = [asdict(each) for each in judged]
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    # Not through the interpreter's shutdown: the SDKs' native threads sometimes abort it (sdk-python#300).
    os._exit(0)
