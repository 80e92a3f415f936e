"""Prints what a command returns: lines for people, or one JSON document for scripts. Formats money and times."""

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

_LAST_COLUMN_MIN = 16
"""Print a table's rows as blocks if its last column would have fewer characters than this."""


class Output:
    """The output of one command. With `as_json`, only `print_result` writes to standard output."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.people = console_for_people(stderr=as_json)

    def note(self, text: str) -> None:
        """Print a progress line; with `as_json` on standard error."""
        self.people.print(printable(text))

    def print_result(self, document: object, show: Callable[[Console], None] | str) -> None:
        """Print the command's result: the document for scripts, `show` for people."""
        if self.as_json:
            write_json(document)
        elif isinstance(show, str):
            self.note(show)
        else:
            show(self.people)


def console_for_people(*, stderr: bool = False) -> Console:
    """A console that prints text without markup and does not wrap lines, so that they can be copied whole."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def write_json(document: object) -> None:
    """Write one line of JSON to standard output and flush it."""
    sys.stdout.write(json.dumps(document, default=str) + "\n")
    sys.stdout.flush()


def is_interactive(console: Console) -> bool:
    """Whether the output is a terminal that can redraw."""
    return console.file.isatty() and not console.is_dumb_terminal


def print_rows(console: Console, rows: Iterable[tuple[str, str | Text]]) -> None:
    """Print names and values side by side. Long values are not wrapped, so that an address can be copied whole."""
    for name, value in rows:
        text = value if isinstance(value, Text) else Text(printable(value))
        console.print(Text.assemble((f"{name:<12} ", "dim"), text), soft_wrap=True)


def print_table(console: Console, names: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows of cells; the last column takes the remaining width.

    A terminal gets a heading, and each row as a block if the table is too wide. Other outputs get one line per row,
    with tabs between untruncated values.
    """
    cells = [[cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row] for row in rows]
    if not is_interactive(console):
        for row in cells:
            # Console.print would turn tabs into spaces.
            console.file.write("\t".join(cell.plain for cell in row) + "\n")
        console.file.flush()  # here, where Typer handles a closed pipe; at exit Python would complain
        return
    widths = [
        max(cell_len(text) for text in (name, *(row[at].plain for row in cells))) for at, name in enumerate(names)
    ]
    remaining = console.width - sum(width + 2 for width in widths[:-1])
    if remaining < _LAST_COLUMN_MIN:
        _print_blocks(console, names, cells)
        return
    widths[-1] = remaining
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


def clock(seconds: float) -> str:
    """Format a duration in seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def local_time(value: Any, now: datetime | None = None) -> str:
    """Format a time from the API as local time, with how long ago or ahead it is."""
    at = datetime.fromisoformat(str(value))
    return f"{at.astimezone():%Y-%m-%d %H:%M} ({relative_time(at, now)})"


def table_time(console: Console, value: Any) -> str:
    """Format a time for a table: relative in a terminal, exact elsewhere."""
    return relative_time(datetime.fromisoformat(str(value))) if is_interactive(console) else str(value)


def relative_time(at: datetime, now: datetime | None = None) -> str:
    """Format how long ago or ahead a time is, with one unit."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        count = int(abs(seconds) // unit)
        if count:
            figure = f"{count} {name}{'s' if count > 1 else ''}"
            return f"{figure} ago" if seconds > 0 else f"in {figure}"
    return "just now" if seconds >= 0 else "in a minute"


def budget_text(percent: int | None, level: str | None) -> Text:
    """How much of today's allowance is used, in the colour of the budget's level."""
    if percent is None:
        return Text("unlimited")
    return Text(f"{percent} %", level if level in _BUDGET_COLOURS else "")


def budget_row(budget: dict[str, Any]) -> Text:
    """Format a build's budget from the API as one line."""
    text = budget_text(budget["percent"], budget.get("level"))
    if budget["percent"] is None:
        return text
    return text.append(f" of today's allowance used, refreshes at {local_time(budget['refreshes_at'])}", "default")
