"""Manifests of many files are read beside the event loop, so that heartbeats go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from activities.sandbox.manifests import compare_manifests, read_manifest, write_manifest
from domain.manifest import Entry, Kind

FILES = 200_000
LONGEST_PAUSE_SECONDS = 1.0
"""A heartbeat is due every two seconds. On the event loop itself, each of the steps takes longer than this."""


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return [
        Entry(f"src/{number % 997}/file-{number}.py", Kind.FILE, 0o644, number, "a" * 64) for number in range(FILES)
    ]


async def longest_pause(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds for which the event loop did nothing else while this ran."""
    longest, ended = 0.0, False

    async def watch() -> None:
        nonlocal longest
        last = time.monotonic()
        while not ended:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last - 0.01), time.monotonic()

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await work()
    ended = True
    await watching
    return longest


async def test_the_event_loop_goes_on_meanwhile(entries: list[Entry]) -> None:
    text, sha256 = await write_manifest(entries)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "write": lambda: write_manifest(entries),
        "read": lambda: read_manifest(text),
        "compare": lambda: compare_manifests(entries, entries),
    }
    pauses = {name: await longest_pause(step) for name, step in steps.items()}
    assert max(pauses.values()) < LONGEST_PAUSE_SECONDS, pauses
    assert len(sha256) == 64
