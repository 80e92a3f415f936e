"""Totals of days: they follow the ledger for every writer, and a migration of a filled database begins with them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import money
from db.drift import Drift, find_drift
from db.models import AuditEntry
from db.session import make_sessions
from db.transaction import transaction
from domain.audit import Action, Author
from domain.identity import How
from local.stack import LocalStack
from services.ledger import correct_drifts
from tests.harness.empty_database import empty_database, migrate_to
from tests.harness.wait import until_far_from_midnight, wait_until

ROWS = (
    "insert into plan_tiers (name, default_models, concurrent_builds, tool_call_cap) values ('free', '{}', 1, 1)",
    "insert into users (id, plan) values ('ada', 'free'), ('bob', 'free')",
    "insert into projects (id, user_id, name) values (:project, 'ada', 'A product')",
    "insert into builds (id, project_id, user_id, goal, body_hash) values (:build, :project, 'ada', 'Build.', '')",
)
ENTRY = """
    insert into ledger (id, build_id, user_id, turn, day, model, cost, state, closed_at)
    values (:id, :build, :user, 1, :day, 'm', :cost, :state, case when :state = 'open' then null else now() end)
"""


def today() -> date:
    """The day by UTC. No test begins right before its end."""
    return datetime.now(UTC).date()


@pytest.fixture
async def engine(stack: LocalStack) -> AsyncIterator[AsyncEngine]:
    await until_far_from_midnight()
    async with empty_database(stack) as made:
        yield made


class Rows:
    """Rows as the previous version writes them, which knows nothing of totals."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.ids = {"build": uuid.uuid4(), "project": uuid.uuid4()}

    async def run(self, *statements: str, **values: object) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                used = {name: value for name, value in {**self.ids, **values}.items() if f":{name}" in statement}
                await connection.execute(text(statement), used)

    async def begin_day(self, user: str, day: date) -> None:
        await self.run("insert into user_days (user_id, day) values (:user, :day)", user=user, day=day)

    async def call(self, user: str, day: date, cost: int, state: str = "open") -> uuid.UUID:
        claim = uuid.uuid4()
        await self.run(ENTRY, id=claim, user=user, day=day, cost=cost, state=state)
        return claim

    async def drift(self, first: date = date.min) -> list[Drift]:
        async with transaction(make_sessions(self.engine)) as tx:
            return await find_drift(tx, first)

    async def state(self, user: str, day: date) -> tuple[int, int]:
        async with transaction(make_sessions(self.engine)) as tx:
            state = await money.budget_of(tx, user, day)
            return state.spent, state.reserved

    async def fleet(self, day: date) -> tuple[int, int]:
        async with self.engine.begin() as connection:
            sums = "select coalesce(sum(spent), 0), coalesce(sum(reserved), 0) from fleet_days where day = :day"
            spent, reserved = (await connection.execute(text(sums), {"day": day})).one()
            return int(spent), int(reserved)


async def test_totals_follow_a_writer_that_does_not_know_them(engine: AsyncEngine) -> None:
    await migrate_to(engine, "head")
    rows = Rows(engine)
    await rows.run(*ROWS)
    for user in ("ada", "bob"):
        await rows.begin_day(user, today())
    settled, lost, refused = [await rows.call("ada", today(), 1000) for _ in range(3)]
    await rows.call("bob", today(), 500)
    assert (await rows.state("ada", today()), await rows.fleet(today())) == ((0, 3000), (0, 3500))
    close = "update ledger set state = :state, cost = :cost, closed_at = now() where id = :id"
    await rows.run(close, id=settled, state="settled", cost=300)
    await rows.run(close, id=lost, state="estimated", cost=1000)
    await rows.run(close, id=refused, state="released", cost=0)
    assert (await rows.state("ada", today()), await rows.fleet(today())) == ((1300, 0), (1300, 500))
    await rows.run("update ledger set day = :day where id = :id", id=settled, day=today() - timedelta(days=1))
    assert (await rows.state("ada", today()), await rows.fleet(today())) == ((1000, 0), (1000, 500))
    await rows.run("delete from ledger where id = :id", id=lost)
    assert (await rows.state("ada", today()), await rows.fleet(today())) == ((0, 0), (0, 500))
    assert await rows.drift() == []


async def test_a_day_that_begins_after_its_calls_counts_them(engine: AsyncEngine) -> None:
    await migrate_to(engine, "head")
    rows = Rows(engine)
    await rows.run(*ROWS)
    await rows.call("ada", today(), 700, "settled")
    assert await rows.state("ada", today()) == (700, 0)
    await rows.begin_day("ada", today())
    assert (await rows.state("ada", today()), await rows.fleet(today())) == ((700, 0), (700, 0))
    assert await rows.drift() == []


async def test_a_filled_database_is_migrated(engine: AsyncEngine) -> None:
    await migrate_to(engine, "0010")
    rows, long_ago, yesterday = Rows(engine), today() - timedelta(days=40), today() - timedelta(days=1)
    await rows.run(*ROWS)
    for day in (long_ago, yesterday, today()):
        await rows.begin_day("ada", day)
        await rows.call("ada", day, 400, "settled")
    old, open_now = await rows.call("ada", long_ago, 50), await rows.call("ada", today(), 60)
    await migrate_to(engine, "head")
    assert [await rows.state("ada", day) for day in (long_ago, yesterday, today())] == [(400, 50), (400, 0), (400, 60)]
    assert [await rows.fleet(day) for day in (yesterday, today())] == [(400, 0), (400, 60)]
    for claim in (old, open_now):
        await rows.run("update ledger set state = 'settled', cost = 10, closed_at = now() where id = :id", id=claim)
    assert [await rows.state("ada", day) for day in (long_ago, today())] == [(410, 0), (410, 0)]
    assert await rows.drift() == []


async def test_a_lost_change_is_found(engine: AsyncEngine) -> None:
    await migrate_to(engine, "head")
    rows = Rows(engine)
    await rows.run(*ROWS)
    await rows.begin_day("ada", today())
    await rows.run("alter table ledger disable trigger ledger_totals")
    await rows.call("ada", today(), 70)
    await rows.run("alter table ledger enable trigger ledger_totals")
    assert await rows.drift() == [Drift(today(), "ada", 0, 0, 0, 70)]
    await rows.run("update fleet_days set spent = 9")
    assert await rows.drift(today() + timedelta(days=1)) == []


async def test_totals_are_corrected_from_the_rows(engine: AsyncEngine) -> None:
    await migrate_to(engine, "head")
    rows, yesterday = Rows(engine), today() - timedelta(days=1)
    await rows.run(*ROWS)
    for user, day in (("ada", today()), ("bob", today()), ("ada", yesterday)):
        await rows.begin_day(user, day)
        await rows.call(user, day, 100, "settled")
    await rows.run("alter table ledger disable trigger ledger_totals")
    await rows.call("ada", today(), 70)
    await rows.run("alter table ledger enable trigger ledger_totals")
    await rows.run("update user_days set spent = spent + 7 where user_id = 'ada' and day = :day", day=yesterday)
    await rows.run("delete from fleet_days where day = :day", day=today())
    sessions = make_sessions(engine).by(Author("operator", How.COMMAND_LINE))
    assert {(each.day, each.is_of_fleet) for each in await correct_drifts(sessions, yesterday)} == {
        (today(), False),
        (yesterday, False),
        (today(), True),
    }
    assert await rows.drift() == []
    assert (await rows.state("ada", today()), await rows.fleet(today())) == ((100, 70), (200, 70))
    assert await correct_drifts(sessions, yesterday) == []
    async with transaction(sessions) as tx:
        assert [each.action for each in await tx.session.scalars(select(AuditEntry))] == [Action.LEDGER_CORRECT]


async def test_a_total_is_corrected_while_calls_go_on(engine: AsyncEngine) -> None:
    """A call whose transaction is open while its day is corrected is counted once."""
    await migrate_to(engine, "head")
    rows = Rows(engine)
    await rows.run(*ROWS)
    await rows.begin_day("ada", today())
    await rows.call("ada", today(), 100, "settled")
    await rows.run("update user_days set spent = spent + 7")
    async with engine.connect() as other:
        ids = {**rows.ids, "id": uuid.uuid4(), "user": "ada", "day": today(), "cost": 30, "state": "settled"}
        await other.execute(text(ENTRY), {name: value for name, value in ids.items() if f":{name}" in ENTRY})
        correcting = asyncio.create_task(correct_drifts(make_sessions(engine), today()))

        async def waits() -> bool:
            async with engine.connect() as third:
                blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = "
                return bool((await third.execute(text(f"{blocked} current_database()"))).scalar())

        await wait_until(waits, look_seconds=0.05)
        await other.commit()
        await correcting
    assert await rows.state("ada", today()) == (130, 0)
    assert await rows.drift() == []
