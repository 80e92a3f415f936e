"""The table of walls: what a fleet needs follows from a turn, and the first limit comes first."""

import pytest

from bench.walls import COLUMNS, REAPER_MS, Limits, Turn, table, walls

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
    assert reached["commits a second"] == pytest.approx(19_702, rel=0.01), "no turn notifies in its commits"
    assert rows[0].name == "sandboxes"
    limited = [row.builds for row in rows if row.builds is not None]
    assert limited == sorted(limited)
    assert all(row.builds is None for row in rows[len(limited) :])


def test_what_grows_with_builds_beside_turns_has_a_line() -> None:
    rows = {row.name: row for row in walls(TURN)}
    assert rows["turns a second"].needs == pytest.approx([33, 333, 3_333], rel=0.02)
    assert rows["sandboxes started a second"].builds == pytest.approx(6_375)
    morning = rows["resumed a second in the morning, if as many sleep"]
    assert morning.needs[1] == pytest.approx(5.6, rel=0.01)
    assert morning.builds == pytest.approx(9_000)
    lock = rows["share of time in one user's lock, if all builds are theirs"]
    assert lock.needs[0] == pytest.approx(0.18)
    assert lock.builds == pytest.approx(5_556, rel=0.01)
    assert rows["seconds in which the reaper compares all"].needs[1] == pytest.approx(10 * REAPER_MS)
    assert not [name for name in rows if "store" in name], "without snapshots it would say nothing"


def test_a_longer_morning_raises_one_wall() -> None:
    before, after = walls(TURN), walls(TURN, Limits(morning_seconds=3_600))
    [changed] = [row for row in after if row not in before]
    assert changed.builds == pytest.approx(18_000)


def test_another_contract_moves_one_wall() -> None:
    before, after = walls(TURN), walls(TURN, Limits(sandboxes=1_100))
    changed = {row.name for row in after if row not in before}
    assert changed == {"sandboxes"}


def test_the_table_has_a_line_for_each_part() -> None:
    lines: list[str] = []
    table(walls(TURN), lines.append)
    assert len(lines) == len(walls(TURN)) + 2
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 4}
