"""Where a command's output goes: lines for people, or one JSON document for scripts."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cli.feed_state import printable

_BUDGET_COLOURS = ("green", "yellow", "red")

_STRETCHED_LEAST = 16
"""A table whose last column would be narrower than this is shown one row below the other instead."""


class Output:
    """The output of one command. With `as_json`, standard output carries nothing but what `print_result` is given."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.people = console_for_people(stderr=as_json)

    def note(self, text: str) -> None:
        """Say something on the way. Scripts find it on standard error."""
        self.people.print(printable(text))

    def print_result(self, document: object, show: Callable[[Console], None] | str) -> None:
        """What was asked for: the document for scripts, `show` for people."""
        if self.as_json:
            write_json(document)
        elif isinstance(show, str):
            self.note(show)
        else:
            show(self.people)


def console_for_people(*, stderr: bool = False) -> Console:
    """A console that takes text as it is; long lines are left to the terminal, so that they can be copied whole."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def write_json(document: object) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(json.dumps(document, default=str) + "\n")
    sys.stdout.flush()


def is_interactive(console: Console) -> bool:
    """Whether somebody sits before a terminal that can redraw."""
    return console.file.isatty() and not console.is_dumb_terminal


def print_rows(console: Console, rows: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values side by side. Long values are left to the terminal, so that an address can be copied whole."""
    for name, value in rows:
        told = value if isinstance(value, Text) else Text(printable(value))
        console.print(Text.assemble((f"{name:<12} ", "dim"), told), soft_wrap=True)


def print_table(console: Console, names: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Rows of cells; the last column takes the room that is left.

    In a terminal it has a heading, and where it would be too wide, each row is shown as a block. Elsewhere it is one
    line a row with tabs between whole values.
    """
    cells = [[cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row] for row in rows]
    if not is_interactive(console):
        for row in cells:
            # Not by `print`, which makes spaces of tabs.
            console.file.write("\t".join(cell.plain for cell in row) + "\n")
        console.file.flush()  # here, where a reader that has gone away is no error
        return
    fixed = [max(cell_len(text) for text in (name, *(row[at].plain for row in cells))) for at, name in enumerate(names)]
    room = console.width - sum(width + 2 for width in fixed[:-1])
    if room < _STRETCHED_LEAST:
        _print_blocks(console, names, cells)
        return
    widths = [*fixed[:-1], room]
    for row in [[Text(name, "dim") for name in names], *cells]:
        console.print(_line(row, widths))


def _line(row: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(row[:-1], widths, strict=False):
        line.append_text(cell).append(" " * (width - cell_len(cell.plain) + 2))
    last = row[-1].copy()
    last.truncate(widths[-1], overflow="ellipsis")
    return line.append_text(last)


def _print_blocks(console: Console, names: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    for row in rows:
        console.print(row[0])
        for name, cell in zip(names[1:], row[1:], strict=True):
            if cell.plain:
                line = Text.assemble((f"  {name} ", "dim"), cell)
                line.truncate(max(console.width, 8), overflow="ellipsis")
                console.print(line)


def dollars(microdollars: int) -> str:
    """An amount of money for people."""
    return f"${microdollars / 1_000_000:.4f}"


def clock(seconds: float) -> str:
    """A duration as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def local_time(value: Any, now: datetime | None = None) -> str:
    """A time of the API as people read it: the local time, and how far away it is."""
    at = datetime.fromisoformat(str(value))
    return f"{at.astimezone():%Y-%m-%d %H:%M} ({relative_time(at, now)})"


def table_time(console: Console, value: Any) -> str:
    """A time in a table: how long ago for people, exact for what reads the lines."""
    return relative_time(datetime.fromisoformat(str(value))) if is_interactive(console) else str(value)


def relative_time(at: datetime, now: datetime | None = None) -> str:
    """How long ago, or in how long, in one figure."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        count = int(abs(seconds) // unit)
        if count:
            figure = f"{count} {name}{'s' if count > 1 else ''}"
            return f"{figure} ago" if seconds > 0 else f"in {figure}"
    return "just now" if seconds >= 0 else "in a minute"


def budget_text(percent: int | None, level: str | None) -> Text:
    """Today's share of the allowance that is used, in the colour of its level."""
    if percent is None:
        return Text("unlimited")
    return Text(f"{percent} %", level if level in _BUDGET_COLOURS else "")


def budget_row(budget: dict[str, Any]) -> Text:
    """The budget of a build as the API tells it, in a line."""
    told = budget_text(budget["percent"], budget.get("level"))
    if budget["percent"] is None:
        return told
    return told.append(f" of today's allowance used, refreshes at {local_time(budget['refreshes_at'])}", "default")
