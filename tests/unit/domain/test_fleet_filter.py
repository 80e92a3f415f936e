"""Filters of the fleet: read from text, written as text, and asked of Temporal."""

import uuid
from datetime import UTC, datetime

import pytest

from domain.errors import InvalidInput
from domain.fleet_filter import TEXT_MAX_CHARACTERS, FleetFilter
from domain.status import Dependency, Status, WaitingFor

ONE = uuid.UUID("0d5b8a7c-6d1f-4e5c-9f0b-4c1a52a7e0f3")

WHOLE = FleetFilter(
    status=(Status.SLEEPING, Status.WAITING),
    waiting_for=(WaitingFor.OPERATOR,),
    plan=("partner",),
    model=("claude-haiku-5-5",),
    user=('a"b\\c,=', "and"),
    version=("v2",),
    older_than_seconds=900,
    open=True,
)


def test_reads_conditions() -> None:
    parsed = FleetFilter.parse("  status=sleeping and plan = partner ")
    assert parsed == FleetFilter(status=(Status.SLEEPING,), plan=("partner",))
    assert FleetFilter.parse("dependency=model,sandbox").dependency == (Dependency.MODEL, Dependency.SANDBOX)
    assert FleetFilter.parse("open=false and older_than_seconds=60") == FleetFilter(older_than_seconds=60, open=False)


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_matches_every_build(text: str) -> None:
    assert FleetFilter.parse(text).is_empty
    assert FleetFilter().as_text() == ""


@pytest.mark.parametrize(
    "filter_", [WHOLE, FleetFilter(open=False), FleetFilter(user=("ada",)), FleetFilter(id=(ONE, uuid.UUID(int=7)))]
)
def test_text_and_filter_are_the_same(filter_: FleetFilter) -> None:
    assert FleetFilter.parse(filter_.as_text()) == filter_


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour=red", "There is no field 'colour'. Use one of id, status, waiting_for, dependency, plan"),
        ("status=asleep", "status can't be 'asleep'. Use one of queued, starting, scaffold"),
        ("waiting_for=me", "waiting_for can't be 'me'. Use one of founder, operator, store, kill_switch"),
        ("dependency=weather", "dependency can't be 'weather'. Use one of store, sandbox, model, capacity"),
        ("id=7", "id has a value that is not the id of a build"),
        ("status", "A condition is incomplete after 'status'. Write field=value"),
        ("=sleeping", "A condition is incomplete here"),
        ("status=", "status has no value"),
        ("status=sleeping,", "status has no value"),
        ("status=sleeping and", "A condition is incomplete here"),
        ("status=sleeping plan=partner", "Write `and` between two conditions, before 'plan'"),
        ("status=sleeping or plan=partner", "Write `and` between two conditions, before 'or'"),
        ("status=sleeping and status=code", "status is named twice"),
        ("older_than_seconds=15m", "older_than_seconds can't be '15m'. Use a number of seconds"),
        ("older_than_seconds=-1", "Use a number of seconds"),
        ("closed_since=today", "closed_since can't be 'today'. Use a day such as 2026-12-01"),
        ("closed_since=2026-12-01T08:30", "or a time such as 2026-12-01T08:30:00Z"),
        ("open=maybe", "open can't be 'maybe'. Use true or false"),
        ('user="ada', "A double quote is not closed"),
        ("plan=" + "x" * TEXT_MAX_CHARACTERS, "longer than"),
    ],
)
def test_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as error:
        FleetFilter.parse(text)
    assert says in str(error.value)


def test_asks_temporal_for_what_it_knows() -> None:
    query = WHOLE.temporal_query()
    assert query.text == (
        'WorkflowType = "BuildWorkflow" AND ExecutionStatus = "Running" AND BuildStatus IN ("sleeping", "waiting")'
        ' AND BuildWaitingFor = "operator" AND BuildPlan = "partner" AND BuildUser IN ("a\\"b\\\\c,=", "and")'
    )
    assert query.left_out == ("model", "version", "older_than_seconds")


def test_asks_temporal_for_users_as_it_knows_them() -> None:
    assert 'BuildUser = "<ada>"' in FleetFilter(user=("ada",)).temporal_query(lambda user: f"<{user}>").text


def test_runs_that_were_continued_are_not_asked_for() -> None:
    assert 'ExecutionStatus != "ContinuedAsNew"' in FleetFilter().temporal_query().text
    assert 'ExecutionStatus != "Running"' in FleetFilter(open=False).temporal_query().text


def test_commands_can_be_pasted_into_a_shell() -> None:
    query = FleetFilter(status=(Status.SLEEPING,)).temporal_query()
    assert query.list_command("default") == (
        'temporal workflow list --namespace default --query \'WorkflowType = "BuildWorkflow" AND '
        'ExecutionStatus != "ContinuedAsNew" AND BuildStatus = "sleeping"\''
    )
    assert "workflow signal" in query.wake_command("default")
    assert "--name wake" in query.wake_command("default")


def test_builds_that_ended_since_a_day_or_a_time() -> None:
    day = FleetFilter.parse("status=failed and closed_since=2026-12-01")
    assert day == FleetFilter(status=(Status.FAILED,), closed_since=datetime(2026, 12, 1, tzinfo=UTC))
    assert 'CloseTime >= "2026-12-01T00:00:00Z"' in day.temporal_query().text
    assert FleetFilter.parse(day.as_text()) == day
    assert FleetFilter.of(closed_since="2026-12-01T01:00:00+01:00").closed_since == day.closed_since


def test_builds_that_are_named_one_by_one() -> None:
    named = FleetFilter.parse(f"id={ONE},{ONE}")
    assert named == FleetFilter(id=(ONE,))
    assert f'WorkflowId = "build-{ONE}"' in named.temporal_query().text
    assert len(FleetFilter(id=tuple(uuid.UUID(int=number) for number in range(100))).as_text()) < TEXT_MAX_CHARACTERS
