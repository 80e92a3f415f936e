"""A seeded plan of faults: what strikes, when, whom, and for how long. The same seed gives the same plan."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from activities.runtime.crash_point import CrashPoint
from local.rehearsal.control import FaultKind
from local.stack import PARTS, PartName

KILLED_SERVERS: tuple[PartName, ...] = ("postgres", "temporal", "s3", "sandbox")
"""Not the model's: it would forget what it has served, and with it what the ledger is compared with."""

_GAP_SECONDS = 1.5, 4.5
_LASTING_SECONDS = 2.0, 8.0
_STOPPED_SECONDS = 1.0, 25.0
"""Heartbeats are missed after 15 to 30 seconds: some workers come back before, some after."""


@dataclass(frozen=True, order=True)
class Action:
    """One fault. `whom`, in [0, 1), says which of those that are there at the moment."""

    at: float
    kind: str
    whom: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind}, for {self.seconds:.2f} s if it lasts, whom {self.whom:.3f}"


def kinds() -> tuple[str, ...]:
    """Every kind of fault: `what: which`."""
    return (
        *("worker: SIGKILL", "worker: SIGSTOP, SIGCONT", "worker: SIGTERM, and a newer one"),
        *(f"crash at: {point}" for point in get_args(CrashPoint)),
        *(f"model: {kind}" for kind in get_args(FaultKind)),
        *(f"to {part}: {fault}" for part in PARTS for fault in ("delay", "cut", "blackhole", "answer lost")),
        *("to s3: 503", "to s3: 403"),
        *(f"killed: {part}" for part in KILLED_SERVERS),
        *("hangs: model", "workspace: sandbox killed", "workspace: sandbox paused", "workspace: files reverted"),
        *("workflow: terminated", "workflow: cancelled", "workflow: a poison one"),
    )


def planned(seed: int, seconds: float) -> list[Action]:
    """The faults of a run, in order. None comes a second time before all have come once."""
    rng = random.Random(seed)
    deck = _deck(rng)
    actions, at = [], rng.uniform(*_GAP_SECONDS)
    while at < seconds:
        kind = next(deck)
        lasting = _STOPPED_SECONDS if kind == "worker: SIGSTOP, SIGCONT" else _LASTING_SECONDS
        actions.append(Action(round(at, 3), kind, round(rng.random(), 4), round(rng.uniform(*lasting), 3)))
        at += rng.uniform(*_GAP_SECONDS)
    return actions


def _deck(rng: random.Random) -> Iterator[str]:
    while True:
        cards = list(kinds())
        rng.shuffle(cards)
        yield from cards
