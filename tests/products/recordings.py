"""Recorded agent scripts: what an agent writes and runs to build a product, day by day.

A recording is a text. A line that begins with `>>> ` is a direction, and the lines below belong to it:

    >>> brief JSON        the idea brief
    >>> needs pip npm     what it installs from
    >>> reaches HOST      a host that it needs beside
    >>> day               the build of another day begins
    >>> turn TEXT         a turn begins, in which the agent says this
    >>> write PATH        write_file with the lines below
    >>> bash SECONDS      bash with the lines below; the tool's own limit if there is no number
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.sample_build import tool
from tests.harness.scripts import bash

RECORDINGS = Path(__file__).parent / "recordings"

_DIRECTION = ">>> "


@dataclass
class Recording:
    """How a product is built. `days` holds the rehearsal model's script of each day's build."""

    name: str
    brief: dict[str, Any] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    """`pip`, `npm`: the registries that it installs from."""
    reaches: list[str] = field(default_factory=list)
    """Hosts that it needs beside the registries."""
    days: list[dict[str, Any]] = field(default_factory=list)


def read_recordings() -> list[Recording]:
    """Read all recordings, by name."""
    return [parse_recording(path.stem, path.read_text()) for path in sorted(RECORDINGS.glob("*.txt"))]


def parse_recording(name: str, text: str) -> Recording:
    """Read a recording. Raises ValueError, which names a direction that there is not."""
    recording, days = Recording(name), list[list[list[dict[str, Any]]]]()
    for word, rest, content in _directions(text):
        match word:
            case "brief":
                recording.brief = json.loads(rest)
            case "needs":
                recording.needs = rest.split()
            case "reaches":
                recording.reaches = rest.split()
            case "day":
                days.append([])
            case "turn":
                days[-1].append([{"text": rest}])
            case "write":
                days[-1][-1].append(tool("write_file", file_path=rest, content=content))
            case "bash":
                # A person who reads a failure has to see which command it was.
                days[-1][-1].append(bash(f"set -e\n{content}", int(rest) if rest else None))
            case _:
                raise ValueError(f"{name}: a recording has no direction {word}")
    recording.days = [{"kind": "steps", "turns": turns} for turns in days]
    return recording


def _directions(text: str) -> Iterator[tuple[str, str, str]]:
    """Each direction's word, the rest of its line, and the lines below it."""
    word, rest, lines = "", "", list[str]()
    for line in [*text.splitlines(keepends=True), f"{_DIRECTION}end"]:
        if not line.startswith(_DIRECTION):
            lines.append(line)
            continue
        if word:
            yield word, rest, "".join(lines)
        word, _, rest = line.removeprefix(_DIRECTION).strip().partition(" ")
        lines = []
