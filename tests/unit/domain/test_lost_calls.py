"""Which model calls of a lost time are booked."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.failures import DATABASE_UNAVAILABLE, WORKER_STOPPED
from domain.lost_calls import (
    COMPACTION,
    JUDGE,
    TURN,
    AskedCalls,
    KnownCall,
    billed_failures,
    billed_judges,
    lost_calls,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def asked(turn: int, calls: int = 1, kind: str = TURN) -> AskedCalls:
    return AskedCalls(kind, turn, NOW, calls)


def known(turn: int, seconds: float = 1, kind: str = TURN) -> KnownCall:
    return KnownCall(kind, turn, NOW + timedelta(seconds=seconds))


def lost(
    asked: list[AskedCalls], known: list[KnownCall], *, answered: int = 4, progress: int = 4
) -> list[tuple[str, int]]:
    return [(call.kind, call.turn) for call in lost_calls(asked, known, answered=answered, progress=progress)]


@pytest.mark.parametrize(
    ("failures", "error_type", "billed"),
    [
        (0, None, 0),
        (3, None, 3),  # workers were killed
        (2, "LostCall", 2),
        (2, "BrokenStream", 2),
        (2, "ADefect", 2),
        (1, "ModelCallFailed", 0),
        (5, "ModelCallFailed", 1),
        (1, "NeedsPerson", 0),
        (0, DATABASE_UNAVAILABLE, 0),
        (19, DATABASE_UNAVAILABLE, 1),
    ],
)
def test_failed_attempts_may_be_billed(failures: int, error_type: str | None, billed: int) -> None:
    assert billed_failures(failures, error_type) == billed


def test_nothing_is_lost_if_rows_know_every_call() -> None:
    assert lost([asked(4), asked(5)], [known(4), known(5)]) == []
    assert lost([asked(5)], [known(5, seconds=-0.5)]) == [], "clocks differ"


def test_a_turn_whose_first_call_is_known_was_asked_for_again_in_the_lost_time() -> None:
    assert lost([asked(5, calls=2)], [known(5)]) == [(TURN, 5)]
    assert lost([asked(5, calls=3), asked(6)], [known(5)], progress=6) == [(TURN, 5), (TURN, 5), (TURN, 6)]


def test_turns_that_another_run_has_asked_for_are_lost_once() -> None:
    assert lost([asked(7)], [], progress=7) == [(TURN, 5), (TURN, 6), (TURN, 7)]
    assert lost([], [known(5, seconds=-3600)], progress=6) == [(TURN, 6)]


def test_calls_of_an_earlier_run_stand_for_none_of_this_one() -> None:
    assert lost([asked(5)], [known(5, seconds=-3600)]) == [(TURN, 5)]


def test_what_rows_have_the_answer_of_is_not_lost() -> None:
    assert lost([asked(3, calls=2), asked(2, kind=COMPACTION)], [known(3)]) == []


def test_an_answered_turn_had_a_call() -> None:
    assert lost([asked(5, calls=0)], [], progress=5) == [(TURN, 5)]
    assert lost([asked(5, calls=0)], []) == []


def test_summaries_are_lost_too() -> None:
    summed = asked(4, calls=2, kind=COMPACTION)
    assert lost([summed], [known(4)]) == [(COMPACTION, 4), (COMPACTION, 4)]
    assert lost([summed], [known(4, kind=COMPACTION)]) == [(COMPACTION, 4)]


def test_judgements_are_lost_too() -> None:
    judged = asked(4, kind=JUDGE)
    assert lost([judged], [known(4)]) == [(JUDGE, 4)]
    assert lost([judged], [known(4, kind=JUDGE)]) == []
    assert lost([asked(3, kind=JUDGE)], []) == [], "the rows know the turn after it"


@pytest.mark.parametrize(
    ("failures", "error_type", "billed"),
    [
        (2, None, 2),  # workers were killed
        (1, WORKER_STOPPED, 1),
        (9, DATABASE_UNAVAILABLE, 1),
        (1, "StaleClaim", 1),
        (2, "SandboxUnavailable", 0),
        (2, "SnapshotFailed", 0),
    ],
)
def test_an_attempt_of_the_gate_that_failed_before_the_judge_is_not_billed(
    failures: int, error_type: str | None, billed: int
) -> None:
    assert billed_judges(failures, error_type) == billed


def test_a_repeat_goes_on_with_the_names() -> None:
    first, second = lost_calls([asked(5, calls=2)], [], answered=4, progress=4)
    assert first.name != second.name
    [rest] = lost_calls([asked(5, calls=2)], [known(5)], answered=4, progress=4)
    assert rest == second, "the first one was booked"
