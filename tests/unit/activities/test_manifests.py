"""Manifests of many files are read beside the event loop, so that heartbeats go on."""

import time

import pytest

from activities.sandbox.manifests import compare_manifests, read_manifest, write_manifest
from domain.manifest import Entry, Kind
from tests.harness.event_loop import longest_pause

FILES = 100_000


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    paths = (f"src/{number % 997}/file-{number}.py" for number in range(FILES))
    return [Entry(path, Kind.FILE, 0o644, 100, "a" * 64) for path in paths]


@pytest.mark.parametrize("step", ["write", "read", "compare"])
async def test_the_event_loop_goes_on_meanwhile(entries: list[Entry], step: str) -> None:
    text, sha256 = await write_manifest(entries)
    assert len(sha256) == 64
    steps = {
        "write": lambda: write_manifest(entries),
        "read": lambda: read_manifest(text),
        "compare": lambda: compare_manifests(entries, entries),
    }
    took, pause = await longest_pause(steps[step], time.process_time)
    assert pause < 0.8 * took, f"{pause:.1f} of {took:.1f} s"
