"""How long phases took."""

from datetime import UTC, datetime, timedelta

from domain.progress import Milestones, Phase, Sleep, worked_seconds

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)


def _at(minutes: int) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def _phase(number: int, ended: int) -> Phase:
    return Phase(number, "", None, None, _at(ended))


def test_sleeps_do_not_count_as_work() -> None:
    phases = (_phase(1, 10), _phase(2, 100), _phase(3, 110))
    sleeps = (
        Sleep(_at(20), _at(80), None, None),
        Sleep(_at(99), _at(105), None, None),
        Sleep(_at(120), None, None, None),
    )
    milestones = Milestones(phases, sleeps, frozenset())
    assert worked_seconds(milestones, BEGIN) == [600.0, 29 * 60.0, 300.0]
    assert worked_seconds(milestones, None)[0] == 0.0
    assert worked_seconds(Milestones((), (), frozenset()), None) == []
