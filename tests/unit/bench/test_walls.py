"""The table of walls: what a fleet needs follows from a turn, and the first limit comes first."""

import pytest

from bench.walls import COLUMNS, Limits, Turn, table, walls

TURN = Turn(
    seconds=30,
    actions=5,
    requests=13,
    history_events=12,
    commits=9.2,
    wal_bytes=8_500,
    table_bytes=10_000,
    store_bytes=0,
    worker_ms=25,
    temporal_ms=30,
    postgres_ms=9,
    busy_slots=1,
)
"""As measured in July."""


def test_needs_follow_from_the_turns_a_second() -> None:
    rows = {row.name: row for row in walls(TURN)}
    assert rows["Temporal actions a second"].needs == pytest.approx([167, 1_667, 16_667], rel=0.01)
    assert rows["commits a second"].needs[0] == pytest.approx(307, rel=0.01)
    assert rows["cores of workers"].needs[1] == pytest.approx(8.3, rel=0.01)
    assert rows["tables, GB a day"].needs[0] == pytest.approx(28.8, rel=0.01)
    assert rows["workers by slots"].needs == [builds / 100 for builds in COLUMNS]


def test_a_wall_is_where_the_need_meets_the_limit() -> None:
    rows = walls(TURN)
    reached = {row.name: row.builds for row in rows}
    assert reached["sandboxes"] == pytest.approx(87, rel=0.01)
    assert reached["Temporal actions a second"] == 3_000
    assert reached["connections to PostgreSQL"] == pytest.approx(469, rel=0.01)
    assert rows[0].name == "sandboxes"
    limited = [row.builds for row in rows if row.builds is not None]
    assert limited == sorted(limited)
    assert all(row.builds is None for row in rows[len(limited) :])


def test_another_contract_moves_one_wall() -> None:
    before, after = walls(TURN), walls(TURN, Limits(sandboxes=1_100))
    changed = {row.name for row in after if row not in before}
    assert changed == {"sandboxes"}


def test_the_table_has_a_line_for_each_part() -> None:
    lines: list[str] = []
    table(walls(TURN), lines.append)
    assert len(lines) == len(walls(TURN)) + 2
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 4}
