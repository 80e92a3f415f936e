"""What the invariants of the random run let a restore of the database take, and what not."""

from datetime import UTC, datetime
from typing import Any

from db.models import Event, ToolCall
from db.recovery import SKIPPED_EVENTS
from tests.faults.recovered import LostTime, Past
from tests.harness.fault_waits import Request

PAST = Past("a goal", [LostTime(10, 20)], skips=1)


def request(name: str, arrived_at: float, messages: int = 1) -> Request:
    body: dict[str, Any] = {"messages": [{"role": "user"}] * messages}
    return Request(name, body, arrived_at)


def names(requests: list[Request]) -> list[str]:
    return [each.id for each in requests]


def events(*ids: int) -> list[Event]:
    return [Event(id=each) for each in ids]


def call(intended_at: float) -> ToolCall:
    return ToolCall(intended_at=datetime.fromtimestamp(intended_at, UTC))


def test_a_restore_begins_another_course() -> None:
    requests = [request("before", 5), request("lost", 15), request("after", 25)]
    assert [names(course) for course in PAST.courses(requests)] == [["before", "lost"], ["before", "after"]]
    assert names(PAST.last_course(requests)) == ["before", "after"]
    assert names(PAST.last_course(requests[:2])) == ["before", "lost"], "it has ended in the lost time"
    assert [names(course) for course in Past("a goal").courses(requests)] == [["before", "lost", "after"]]


def test_each_lost_turn_is_booked_once_and_every_other_call_by_itself() -> None:
    lost = [request("first", 11, 1), request("again", 12, 1), request("next", 13, 3)]
    assert PAST.calls_to_book(lost) == 2
    assert PAST.calls_to_book([request("crash", 5, 1), request("another", 25, 1)]) == 2
    assert Past("a goal").calls_to_book(lost) == 3


def test_a_feed_leaves_out_ids_only_as_often_as_the_database_was_put_back() -> None:
    later = SKIPPED_EVENTS + 3
    assert PAST.is_complete(events(1, 2), 2)
    assert PAST.is_complete(events(1, 2, later, later + 1), later + 1)
    assert PAST.is_complete(events(1, 2), SKIPPED_EVENTS + 2)
    assert not PAST.is_complete(events(1, 2, 4), 4)
    assert not PAST.is_complete(events(1, 2), 3)
    assert not PAST.is_complete(events(1, later - 1, later + SKIPPED_EVENTS), later + SKIPPED_EVENTS)
    assert not Past("a goal").is_complete(events(1, 2, later), later)


def test_a_call_is_lost_if_its_rows_heard_of_it_only_later() -> None:
    assert PAST.was_lost(call(25), [15.0])
    assert not PAST.was_lost(call(5), [15.0])
    assert not PAST.was_lost(call(25), [25.5])
