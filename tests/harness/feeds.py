"""Builds without a workflow, and feeds of any length for them, written as the agent's activities write them."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import text

from db.builds import BuildRequest, insert_build
from db.feed import APPEND_BINDS, LAST_EVENT, append_events_cte
from db.projects import create_project
from db.session import Sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.events import (
    BuildEvent,
    ModelEvent,
    NarrationEvent,
    PhaseCompletedEvent,
    SnapshotStoredEvent,
    StatusEvent,
    ToolDoneEvent,
    ToolStartedEvent,
    TurnAnsweredEvent,
    TurnStartedEvent,
)
from tests.harness.worker import sample_brief

Line = tuple[int | None, BuildEvent]
"""An event, and the turn that it belongs to, if to one."""

_AT_ONCE = 2000
"""Events in one statement."""

_APPEND = text(f"with {append_events_cte()} {LAST_EVENT}").bindparams(*APPEND_BINDS)


async def build_row(sessions: Sessions, user: str, **columns: Any) -> uuid.UUID:
    """Insert a project with the sample brief and a build of it that no worker runs, and return the build's id.

    Args:
        columns: of the build's row, such as `status="sleeping"` and `wakes_at`. By default it is in the status `code`.
    """
    async with transaction(sessions) as tx:
        await ensure_user(tx, user)
        brief = sample_brief()
        project = await create_project(tx, user, brief["name"], brief, None)
        build = await insert_build(tx, BuildRequest(project.id, user, "Build the first version."))
        assert build is not None
        # As if its workflow had been started: the reaper of a worker on this stack would start it otherwise.
        build.admitted_at = build.started_at = datetime.now(UTC)
        for name, value in {"status": "code", **columns}.items():
            setattr(build, name, value)
        return build.id


async def write_feed(sessions: Sessions, build_id: uuid.UUID, lines: Iterable[Line]) -> int:
    """Append events to a build's feed, thousands in a statement, and return the id of the last."""
    remaining, last = iter(lines), 0
    while some := list(islice(remaining, _AT_ONCE)):
        rows = [{"type": event.type, "turn": turn, "data": event.to_data()} for turn, event in some]
        async with transaction(sessions) as tx:
            last = (await tx.execute(_APPEND, {"build": build_id, "events": rows})).scalar()
            tx.nudged.add(build_id)
    return int(last or 0)


async def write_events(sessions: Sessions, build_id: uuid.UUID, *events: BuildEvent, turn: int | None = None) -> int:
    """Append a few events of one turn to a build's feed, and return the id of the last."""
    return await write_feed(sessions, build_id, [(turn, event) for event in events])


def first_lines() -> list[Line]:
    """What every feed begins with."""
    statuses = [StatusEvent(status=status) for status in ("queued", "starting", "scaffold", "code")]
    model = ModelEvent(model="claude-sonnet-5-5", label="Claude Sonnet 5.5 (rehearsal)", plan="cto_scale")
    return [(None, event) for event in (*statuses[:2], model, *statuses[2:])]


def turn_lines(number: int, *, calls: int = 3) -> list[Line]:
    """What a turn adds: two sentences, and tool calls, of which each 25th fails."""
    events: list[BuildEvent] = [
        TurnStartedEvent(attempt=1),
        NarrationEvent(text=f"Turn {number}: I look at what is there.", claim=f"claim-{number}"),
        NarrationEvent(text="Then I change it and run the tests.", claim=f"claim-{number}"),
        TurnAnsweredEvent(tokens={"input": 900 + number, "output": 120}, tool_calls=calls, stop_reason="tool_use"),
    ]
    for call in range(calls):
        name, summary = _CALLS[(number + call) % len(_CALLS)]
        of_call = {"tool_use_id": f"toolu_{number:06}_{call}", "name": name, "summary": summary.format(number)}
        failed = (number * calls + call) % 25 == 24
        events += [ToolStartedEvent(**of_call), ToolDoneEvent(**of_call, is_error=failed, seconds=0.4 + call)]
    return [(number, event) for event in events]


def phase_lines(number: int, turn: int) -> list[Line]:
    """What a commit adds."""
    commit = f"{number:040x}"
    return [
        (turn, PhaseCompletedEvent(phase=number, commit=commit, title=f"Add part {number}")),
        (turn, SnapshotStoredEvent(number=number, reason="phase", bytes=40_000 + number, files=20 + number)),
    ]


def feed_lines(events: int, *, turns_per_phase: int = 10) -> Iterator[Line]:
    """The first `events` lines of a build that never ends: turns with tool calls, and a commit every few turns."""
    return islice(_endless(turns_per_phase), events)


def _endless(turns_per_phase: int) -> Iterator[Line]:
    yield from first_lines()
    turn = 0
    while True:
        turn += 1
        yield from turn_lines(turn)
        if turn % turns_per_phase == 0:
            yield from phase_lines(turn // turns_per_phase, turn)


_CALLS: Sequence[tuple[str, str]] = (
    ("bash", "python3 -m unittest tests/test_part_{0}.py"),
    ("read_file", "src/part_{0}.py"),
    ("write_file", "src/part_{0}.py"),
    ("edit_file", "src/app.py"),
    ("grep", "def part_{0}"),
    ("glob", "src/**/*.py"),
    ("bash", "git status --short"),
)
