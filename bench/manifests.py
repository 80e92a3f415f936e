"""Measure for how long a manifest of many files keeps a worker's event loop from anything else, heartbeats included.

    python -m bench.manifests [--files 200000,1000000]

Each step runs once on the event loop, as it did before, and once as snapshots run it now.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence

from activities.sandbox.manifests import compare_manifests, read_manifest, write_manifest
from domain.manifest import Entry, Kind, compare, digest, parse_manifest, render_manifest
from tests.harness.event_loop import longest_pause


def entries_of(files: int) -> list[Entry]:
    """Return a manifest of this many files."""
    return [
        Entry(f"src/{number % 997}/file-{number}.py", Kind.FILE, 0o644, number, "a" * 64) for number in range(files)
    ]


async def _on_the_loop(step: Callable[[], object]) -> None:
    step()


async def measure(files: int) -> list[tuple[str, float, float, float, float]]:
    """Return for each step: its name, and seconds and longest pause on the event loop and beside it."""
    entries = entries_of(files)
    text, _ = await write_manifest(entries)
    steps: dict[str, tuple[Callable[[], object], Callable[[], Awaitable[object]]]] = {
        "write": (lambda: digest(render_manifest(entries)), lambda: write_manifest(entries)),
        "read": (lambda: parse_manifest(text), lambda: read_manifest(text)),
        "compare": (lambda: compare(entries, entries), lambda: compare_manifests(entries, entries)),
    }
    rows = []
    for name, (before, now) in steps.items():
        on_loop = await longest_pause(lambda before=before: _on_the_loop(before))  # type: ignore[misc]
        rows.append((name, *on_loop, *await longest_pause(now)))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="200000,1000000", help="numbers of files, comma-separated")
    given = parser.parse_args(arguments)
    print("files       step     on the loop: s  pause s   beside it: s  pause s")
    for files in map(int, given.files.split(",")):
        for name, took, pause, took_now, pause_now in asyncio.run(measure(files)):
            print(f"{files:<11,} {name:<8} {took:>14.1f} {pause:>8.2f} {took_now:>15.1f} {pause_now:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
