"""Tables, shares and figures for people."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.output import budget_row, budget_text, clock, print_table, relative_time


@pytest.mark.parametrize("width", [8, 30, 60, 200])
def test_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(file, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(width=width, force_terminal=True, soft_wrap=True, file=file, color_system=None)
    build = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    print_table(console, ["build", "status", "goal"], [[build, "ready", "龍\x1b[2J\t[bold]" * 30], [build, "code", ""]])
    lines = file.getvalue().splitlines()
    assert max(cell_len(line) for line in lines if build not in line) <= width
    assert sum(build in line for line in lines) == 2  # ids are never cut
    assert "\x1b" not in file.getvalue()
    if width == 200:
        assert lines[1].startswith(f"{build}  ready   龍[2J [bold]")


def test_budget_is_a_share_in_its_colour() -> None:
    assert str(budget_text(93, "red").style) == "red"
    assert (budget_text(93, "[evil]").plain, str(budget_text(93, "[evil]").style)) == ("93 %", "")
    assert budget_text(None, None).plain == "unlimited"
    told = budget_row({"percent": 42, "level": "green", "refreshes_at": "2026-11-21T00:00:00+00:00"}).plain
    assert told.startswith("42 % of today's allowance used, refreshes at 2026-11-2")


def test_moments_for_people() -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    for offset, told in ((-59, "just now"), (-90, "1 minute ago"), (-7200, "2 hours ago"), (90_000, "in 1 day")):
        assert relative_time(now + timedelta(seconds=offset), now) == told


def test_figures_for_people() -> None:
    assert (clock(5.9), clock(65), clock(3725)) == ("0:05", "1:05", "62:05")
