"""Queries that run again and again read what is open, however much has ended."""

import pytest
from sqlalchemy import text

from bench.rows_read import Reading, fill, measure
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from local.stack import LocalStack
from tests.harness.api_server import new_database

OPEN, CLOSED_OF_EACH = 100, 40

OF_AN_OPEN_BUILD = 10
"""Rows that a query may read for each open build: its turns, its calls, its user."""

READS_WHAT_HAS_ENDED = {
    "retention: builds to archive": "the first look; later ones begin at its cursor",
    "operators: closed builds": "it counts them",
}

pytestmark = pytest.mark.thorough


async def _readings(sessions: Sessions) -> dict[str, Reading]:
    return {each.name: each for each in await measure(sessions, large=OPEN * CLOSED_OF_EACH, by_index=True)}


async def test_repeated_queries_read_what_is_open(stack: LocalStack) -> None:
    engine = make_engine(await new_database(stack), limited=False)
    sessions = make_sessions(engine)
    await fill(sessions, OPEN, CLOSED_OF_EACH, turns=2)
    readings = await _readings(sessions)
    assert READS_WHAT_HAS_ENDED.keys() <= readings.keys()
    rows = {name: each.rows for name, each in readings.items() if name not in READS_WHAT_HAS_ENDED}
    assert {name: count for name, count in rows.items() if count > OPEN * OF_AN_OPEN_BUILD} == {}
    assert not [name for name in rows if readings[name].scanned]
    for name in READS_WHAT_HAS_ENDED:
        assert readings[name].rows >= OPEN * CLOSED_OF_EACH, "then it belongs to the others"

    async with transaction(sessions) as tx:
        await tx.session.execute(text("drop index ix_builds_closed"))
    without = (await _readings(sessions))["reaper: builds closed lately"]
    assert without.rows > OPEN * OF_AN_OPEN_BUILD, "a lost index is noticed"
    await engine.dispose()
