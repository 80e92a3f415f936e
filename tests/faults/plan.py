"""A seeded plan of faults: what strikes which target, when, and for how long. The same seed gives the same plan."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from activities.runtime.crash_point import CrashPoint
from local.rehearsal.control import FaultKind
from local.stack import PARTS, PartName

KILLED_SERVERS: tuple[PartName, ...] = ("postgres", "temporal", "s3", "sandbox")
"""Servers that may be killed. The model's may not: it would forget the usage that the ledger is compared with."""

_GAP_SECONDS = 1.5, 4.5
_LASTING_SECONDS = 2.0, 8.0
_STOPPED_SECONDS = 1.0, 25.0
"""How long a stopped worker stays stopped. Heartbeats time out after 15 to 30 seconds: some workers continue before
that, some after."""

_OUTAGE_SECONDS = 40.0, 90.0
"""Longer than the activities' own attempts, so that builds wait for the server."""

_QUOTA_SECONDS = 10.0, 40.0

_DEPLOY = "worker: SIGTERM, and a newer one"

OPERATOR_ACTS = ("operator: namespace lost", "operator: database put back")
"""What stops every program. Each comes once in a while, beside all other kinds."""

_FIRST_ACTS_SECONDS = (30.0, 60.0), (95.0, 125.0)
"""When one of the acts comes first, and when the other does."""

_ACT_EVERY_SECONDS = 150.0
_PUT_BACK_SECONDS = 5.0, 40.0
"""How long builds go on between the backup and the moment when the database is put back to it."""

_DURATIONS = {
    "worker: SIGSTOP, SIGCONT": _STOPPED_SECONDS,
    "outage: long": _OUTAGE_SECONDS,
    "quota: one sandbox": _QUOTA_SECONDS,
    "operator: database put back": _PUT_BACK_SECONDS,
}


@dataclass(frozen=True, order=True)
class Action:
    """One fault. `target`, in [0, 1), selects among the builds, workers or servers that exist at the moment."""

    at: float
    kind: str
    target: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind}, for {self.seconds:.2f} s if it lasts, target {self.target:.3f}"


def kinds() -> tuple[str, ...]:
    """Every kind of fault, as `what: which`."""
    return (*_frequent_kinds(), *OPERATOR_ACTS)


def _frequent_kinds() -> tuple[str, ...]:
    return (
        *("worker: SIGKILL", "worker: SIGSTOP, SIGCONT", _DEPLOY),
        "worker: in the wrong namespace",
        *("api: SIGKILL", "api: SIGTERM"),
        *(f"crash at: {point}" for point in get_args(CrashPoint)),
        *(f"model: {kind}" for kind in get_args(FaultKind)),
        *(f"to {part}: {fault}" for part in PARTS for fault in ("delay", "cut", "blackhole", "answer lost")),
        *("to s3: 503", "to s3: 403", "outage: long", "quota: one sandbox"),
        *(f"killed: {part}" for part in KILLED_SERVERS),
        *("hangs: model", "workspace: sandbox killed", "workspace: sandbox paused", "workspace: files reverted"),
        *("workflow: terminated", "workflow: cancelled", "workflow: a poison one", "workflow: reset"),
    )


def plan_faults(seed: int, seconds: float, only: str = "") -> list[Action]:
    """Return the faults of a run in order.

    No frequent kind repeats before every one has occurred once. Each of the operator's acts comes every 150 seconds,
    the first one after 30 seconds at the earliest.

    Args:
        seed: determines the plan.
        seconds: length of the run.
        only: leave out the kinds without these words.
    """
    rng = random.Random(seed)
    deck = _deck(rng)
    actions, at = _acts(seed, seconds), rng.uniform(*_GAP_SECONDS)
    while at < seconds:
        actions.append(_action(rng, next(deck), at))
        at += rng.uniform(*_GAP_SECONDS)
    return sorted(action for action in actions if only in action.kind)


_SOAK_GAP_SECONDS = 10.0, 40.0
"""Between two faults of a soak: most of its time, everything works."""

_NOT_IN_A_SOAK = ("killed: ", "workflow: terminated", "hangs: ")
"""Kinds whose effects on memory would hide what is looked for: a killed server starts from nothing."""


_DEPLOY_EVERY_SECONDS = 600.0
_FIRST_DEPLOY_SHARE = 0.25
"""Of the time of a soak that is shorter than four times ten minutes."""


def plan_soak(seed: int, seconds: float) -> list[Action]:
    """Return the faults of a soak in order: the frequent kinds, without those that kill servers, and deploys.

    From the first deploy on, workers of two versions share the work.
    """
    rng = random.Random(f"soak of {seed}")
    deck = (kind for kind in _deck(rng) if not kind.startswith(_NOT_IN_A_SOAK))
    actions, at = [], rng.uniform(*_SOAK_GAP_SECONDS)
    while at < seconds:
        actions.append(_action(rng, next(deck), at))
        at += rng.uniform(*_SOAK_GAP_SECONDS)
    at = min(_DEPLOY_EVERY_SECONDS, _FIRST_DEPLOY_SHARE * seconds)
    while at < seconds:
        actions.append(_action(rng, _DEPLOY, at))
        at += _DEPLOY_EVERY_SECONDS
    return sorted(actions)


def _acts(seed: int, seconds: float) -> list[Action]:
    rng = random.Random(f"acts of {seed}")
    first = rng.sample(OPERATOR_ACTS, len(OPERATOR_ACTS))
    actions = []
    for kind, between in zip(first, _FIRST_ACTS_SECONDS, strict=True):
        at = rng.uniform(*between)
        while at < seconds:
            actions.append(_action(rng, kind, at))
            at += _ACT_EVERY_SECONDS
    return actions


def _action(rng: random.Random, kind: str, at: float) -> Action:
    duration = _DURATIONS.get(kind, _LASTING_SECONDS)
    return Action(round(at, 3), kind, round(rng.random(), 4), round(rng.uniform(*duration), 3))


def _deck(rng: random.Random) -> Iterator[str]:
    while True:
        cards = list(_frequent_kinds())
        rng.shuffle(cards)
        yield from cards
