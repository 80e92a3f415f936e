"""Which model calls a database that was put back does not know of, as far as Temporal's histories tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.failures import BILLED_FAILURES, DATABASE_UNAVAILABLE, outage_of
from domain.status import Dependency

TURN, COMPACTION, JUDGE = "turn", "compaction", "judge"
"""Kinds of calls in the ledger."""

_CLOCKS = timedelta(seconds=1)
"""The clocks of Temporal and the database differ by at most this much."""


@dataclass(frozen=True)
class AskedCalls:
    """The calls that a workflow's run has asked for, for one turn. `kind` is turn, compaction or judge."""

    kind: str
    turn: int
    asked_at: datetime
    """When the first was asked for."""
    calls: int
    """How many of them the model's API may bill."""


@dataclass(frozen=True)
class KnownCall:
    """A call in the ledger that was not released."""

    kind: str
    turn: int
    opened_at: datetime


@dataclass(frozen=True)
class LostCall:
    """A call that no row knows of. `name` tells it from the other calls of its build."""

    kind: str
    turn: int
    name: str


_BEFORE_THE_JUDGE = frozenset(
    {
        *("SandboxUnavailable", "SandboxOverloaded", "SandboxGone", "SandboxFull", "OutcomeUnknown"),
        *("SnapshotFailed", "StoreUnavailable", "NoPermit", "SandboxRefused", "NeedsPerson", "RowsAreAhead"),
    }
)
"""Types of errors with which an attempt of the gate fails before it calls the judge: the call comes last."""


def billed_judges(failures: int, error_type: str | None) -> int:
    """How many calls of the judge failed attempts of the gate may have made; the arguments are `billed_failures`'."""
    return 0 if error_type in _BEFORE_THE_JUDGE else billed_failures(failures, error_type)


def billed_failures(failures: int, error_type: str | None) -> int:
    """How many calls of failed attempts the model's API may bill.

    Args:
        failures: how many attempts have failed, one after the other.
        error_type: of the last one's application error; None if it timed out. Temporal forgets the others. If the
            database did not answer, or the API refused the call, one of them may have been billed, and the rest are
            taken to have failed as the last one did.
    """
    if error_type == DATABASE_UNAVAILABLE:
        return min(failures, 1)  # the call that was being made when the database went away
    is_refused = error_type == "NeedsPerson" or outage_of(error_type) is Dependency.MODEL
    if is_refused and error_type not in BILLED_FAILURES:
        return min(max(failures - 1, 0), 1)
    return failures


def lost_calls(
    asked: Sequence[AskedCalls], known: Sequence[KnownCall], *, answered: int, progress: int
) -> list[LostCall]:
    """The calls that no row knows of, in the order of their turns.

    Args:
        asked: the calls of the workflow's runs that may be unknown, once for each kind and turn.
        known: the calls in the ledger.
        answered: the last turn that is answered in the rows, which know all about it and the turns before.
        progress: the last turn that is answered in the workflow.
    """
    by_turn = {each.turn: each for each in asked if each.kind == TURN and each.turn > answered}
    lost: list[LostCall] = []
    for turn in sorted({*by_turn, *range(answered + 1, progress + 1)}):
        least = int(turn <= progress)
        lost += _lost(TURN, turn, by_turn.get(turn), known, least)
    others = [each for each in asked if each.kind != TURN and each.turn >= answered]
    for each in sorted(others, key=lambda each: (each.turn, each.kind)):
        lost += _lost(each.kind, each.turn, each, known, 0)
    return lost


def _lost(kind: str, turn: int, asked: AskedCalls | None, known: Sequence[KnownCall], least: int) -> list[LostCall]:
    """Compare a turn's calls with the ledger. A call that another run has asked for before is none of them."""
    since = None if asked is None else asked.asked_at - _CLOCKS
    in_ledger = sum(
        (call.kind, call.turn) == (kind, turn) and (since is None or call.opened_at >= since) for call in known
    )
    calls = max(least, 0 if asked is None else asked.calls)
    run = "" if asked is None else f" of {asked.asked_at.isoformat()}"
    return [LostCall(kind, turn, f"{kind} {turn}{run}, {number}") for number in range(in_ledger + 1, calls + 1)]
