"""How far a build has come, folded from the events of its feed."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.events import BuildEvent, GatePassedEvent, PhaseCompletedEvent, StatusEvent
from domain.status import Status


@dataclass(frozen=True)
class TimedEvent:
    """An event, the turn that it belongs to, and when it was written."""

    event: BuildEvent
    turn: int | None
    at: datetime


@dataclass(frozen=True)
class Phase:
    """A phase that a commit has ended."""

    number: int
    title: str
    commit: str | None
    turn: int | None
    ended_at: datetime


@dataclass(frozen=True)
class Sleep:
    """A time in which the build slept. `until` is None while it does."""

    since: datetime
    until: datetime | None
    reason: str | None
    wakes_at: str | None


@dataclass(frozen=True)
class Milestones:
    """The phases and sleeps of a build in order, and the numbers of the gates that its product has passed."""

    phases: tuple[Phase, ...]
    sleeps: tuple[Sleep, ...]
    passed_gates: frozenset[int]


MILESTONE_TYPES = (StatusEvent.type, PhaseCompletedEvent.type, GatePassedEvent.type)
"""The types of the events that `read_milestones` folds."""


def read_milestones(events: Iterable[TimedEvent]) -> Milestones:
    """Fold a build's events, the oldest first. A status that is repeated while the build sleeps begins no new sleep."""
    phases: list[Phase] = []
    sleeps: list[Sleep] = []
    passed: set[int] = set()
    for timed in events:
        event = timed.event
        if isinstance(event, PhaseCompletedEvent):
            phases.append(Phase(event.phase, event.title, event.commit, timed.turn, timed.at))
        elif isinstance(event, GatePassedEvent):
            passed.add(event.number)
        elif isinstance(event, StatusEvent):
            _note_status(sleeps, event, timed.at)
    return Milestones(tuple(phases), tuple(sleeps), frozenset(passed))


def worked_seconds(milestones: Milestones, began_at: datetime | None) -> list[float]:
    """How long each phase took, in seconds: from the end of the one before, or from `began_at`; sleeps do not count."""
    seconds = []
    since = began_at
    for phase in milestones.phases:
        begin = phase.ended_at if since is None else since
        took = phase.ended_at - begin
        for sleep in milestones.sleeps:
            until = phase.ended_at if sleep.until is None else sleep.until
            took -= max(min(until, phase.ended_at) - max(sleep.since, begin), timedelta())
        seconds.append(max(took.total_seconds(), 0.0))
        since = phase.ended_at
    return seconds


def _note_status(sleeps: list[Sleep], event: StatusEvent, at: datetime) -> None:
    last = sleeps[-1] if sleeps and sleeps[-1].until is None else None
    if event.status == Status.SLEEPING:
        since = at if last is None else last.since
        if last is not None:
            sleeps.pop()
        sleeps.append(Sleep(since, None, event.reason, event.wakes_at))
    elif last is not None:
        sleeps[-1] = Sleep(last.since, at, last.reason, last.wakes_at)
