"""Run benchmarks and print a table for each. Without names, run the first four below. --json writes all figures.

    python -m bench [NAME…] [--small] [--json PATH]

    turns       cost of a turn in builds of 25, 100 and 400 turns, next to the same turns in a plain loop
    throughput  builds a minute: 20 and 100 builds of 25 turns at once, with one worker and with two
    viewers     time from an event's commit to 1, 50 and 200 viewers
    start       time from POST to 201, and to the workflow's first task

These run only if named. Their sizes are options of their own programs (see `python -m bench.sleep --help` and so on):

    wake, asleep, reserve   sleeping, waking and reserving money
    recovery                how long a build stands still after its worker is killed
    reaper                  how long the reaper looks at 10,000 open builds
    fleet_page              what operators wait for with 2,000 builds: first rows, a changed filter
    web                     the console's page of a build with 10,000 and 50,000 events (needs its bundle)
    fleet                   1,000 builds that think: what they ask of each part, and which one is at its limit first
    rows_read               rows that the queries of the reaper, metrics and operators read with 220,000 builds
    snapshot_memory         how much a worker's memory grows while it takes a snapshot
    export_memory           how much it grows while it writes the export of a large project

Each runs on an embedded stack of its own, durable as in production, with the rehearsal model and no think time. Figures
depend on the machine and its load, which are printed too. A full run takes long; --small takes a minute or two.
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
"""Benchmarks that run unless others are named."""

PROGRAMS = {
    "wake": ("bench.sleep", "wake"),
    "asleep": ("bench.sleep", "asleep"),
    "reserve": ("bench.sleep", "reserve"),
    "recovery": ("bench.recovery",),
    "reaper": ("bench.reaper",),
    "fleet_page": ("bench.fleet_page",),
    "snapshot_memory": ("bench.snapshot_memory",),
    "export_memory": ("bench.export_memory",),
    "web": ("bench.web",),
    "fleet": ("bench.fleet",),
    "rows_read": ("bench.rows_read",),
}
"""Benchmarks that are programs of their own: the module and its arguments. They run only if named."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the first four benchmarks; see the module's docstring."""

    turns: Sequence[int] = (25, 100, 400)
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
    costs = await turns.measure(sizes.turns)
    _print(
        "Milliseconds a turn of one model call and one tool call, no think time",
        ("turns", "build", "plain loop", "difference", "model", "tool", "beyond both", "CPU worker", "CPU plain"),
        [
            (
                *(each.turns, each.wall, each.plain_wall, each.beyond_plain, each.model, each.plain_tool),
                *(each.beyond_model_and_tool, each.worker_cpu, each.plain_cpu),
            )
            for each in costs
        ],
    )
    _print(
        "What each turn adds",
        (
            *("turns", "history events", "history bytes", "runs", "conversation bytes", "database bytes"),
            *("per byte", "replay ms", "worker peak MB"),
        ),
        [
            (
                *(each.turns, each.history_events, each.history_bytes, each.runs, each.conversation_bytes),
                *(each.database_bytes, f"{each.bytes_per_byte:.2f}", each.replay_ms, each.worker_peak_mb),
            )
            for each in costs
        ],
    )
    return [each.figures() for each in costs], list(targets.of_turns(costs))


async def _throughput(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    results = await throughput.measure(sizes.builds, sizes.workers, sizes.build_turns)
    _print(
        f"Many builds of {sizes.build_turns} turns at once",
        (
            *("builds", "workers", "builds a minute", "seconds", "closing, s", "CPU ms a turn", "worker peak MB"),
            *("database bytes a turn", "per byte"),
        ),
        [
            (
                *(each.builds, each.workers, each.per_minute, each.seconds, each.closing_seconds),
                *(each.worker_cpu_per_turn, each.peak_mb, each.database_bytes, f"{each.bytes_per_byte:.2f}"),
            )
            for each in results
        ],
    )
    parts = list(results[0].cpu_by_part) if results else []
    _print(
        "CPU milliseconds a turn",
        ("builds", "workers", "all workers", *parts, "cores busy"),
        [
            (
                *(each.builds, each.workers, each.worker_cpu_per_turn, *each.cpu_by_part.values()),
                f"{each.busy:.0%}",
            )
            for each in results
        ],
    )
    return [each.figures() for each in results], list(targets.of_throughput(results))


async def _viewers(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    latencies = await viewers.measure(sizes.viewers, sizes.events)
    _print(
        "Milliseconds from an event's commit to its viewers",
        ("viewers", "events", "p50", "p99", "longest"),
        [(each.viewers, each.events, each.p50, each.p99, each.longest) for each in latencies],
    )
    return [each.figures() for each in latencies], list(targets.of_viewers(latencies))


async def _start(sizes: Sizes) -> tuple[list[dict[str, Any]], list[targets.Target]]:
    result = await starting.measure(sizes.starts)
    _print(
        "Milliseconds from the request that starts a build",
        ("builds", "to 201, p50", "longest", "to the first task, p50", "longest"),
        [
            (
                *(result.builds, result.created_p50, result.created_longest),
                *(result.first_task_p50, result.first_task_longest),
            )
        ],
    )
    return [result.figures()], []


async def _program(name: str) -> object:
    """Run a benchmark that is a program of its own; return its figures, if it writes any."""
    with tempfile.TemporaryDirectory() as directory:
        figures = Path(directory) / "figures.json"
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *PROGRAMS[name], env={**os.environ, "JSON": str(figures)}
        )
        if await program.wait() != 0:
            raise SystemExit(f"The benchmark {name} failed; its output is above.")
        return json.loads(figures.read_text()) if figures.exists() else None


_MEASURES = {"turns": _turns, "throughput": _throughput, "viewers": _viewers, "start": _start}


async def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; default: the first four")
    parser.add_argument("--small", action="store_true", help="small sizes, to check that the benchmarks run")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures to this file")
    for name in ("turns", "builds", "workers", "viewers"):
        parser.add_argument(f"--{name}", type=_numbers, metavar="N,…", help="sizes to measure, separated by commas")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*NAMES, *PROGRAMS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join([*NAMES, *PROGRAMS])}")
    sizes = asdict(SMALL if arguments.small else Sizes())
    sizes |= {name: value for name, value in vars(arguments).items() if name in sizes and value}
    host = machine()
    _CONSOLE.print("Machine: " + ", ".join(f"{name} {value}" for name, value in host.items()))
    figures: dict[str, Any] = {"machine": host}
    results: list[targets.Target] = []
    for name in arguments.names or NAMES:
        if name in PROGRAMS:
            figures[name] = await _program(name)
            continue
        figures[name], target_results = await _MEASURES[name](Sizes(**sizes))
        results += target_results
    if results:
        rows = [(each.name, each.bound, f"{each.measured:,.2f}", "met" if each.met else "MISSED") for each in results]
        _print("Targets", ("", "target", "measured", ""), rows)
    figures["targets"] = [asdict(each) for each in results]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    # Skip the interpreter's shutdown: the SDKs' native threads sometimes abort it (sdk-python#300).
    os._exit(0)
