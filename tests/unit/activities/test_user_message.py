"""The table of notes for the model."""

from activities.turn.user_message import note_events
from domain.events import BudgetEvent, GuardEvent
from domain.notes import NOTES, TurnNote


def test_every_note_has_a_row() -> None:
    assert set(NOTES) == set(TurnNote)


def test_the_founder_reads_about_guards_and_the_budget() -> None:
    notes = [TurnNote.WIND_DOWN, TurnNote.RESUMED, TurnNote.LAST_TURN, TurnNote.STEER_REPEATING]
    events = note_events(notes, {"budget_percent": 91})
    assert [event.type for event in events] == [GuardEvent.type, GuardEvent.type, BudgetEvent.type]
    assert events[0].to_data() == {"text": NOTES[TurnNote.LAST_TURN].guard}
    assert events[2].to_data() == {"text": NOTES[TurnNote.WIND_DOWN].budget, "budget_percent": 91}
