"""Shows a build's feed: live in a terminal, as lines elsewhere, as JSON documents for scripts."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from cli.api_client import ApiClient
from cli.feed_state import FeedEvent, FeedState, Line, describe_model, is_rehearsal, printable
from cli.output import budget_text, clock, console_for_people, is_interactive, write_json

_MARKS = {
    "narration": ("  ", ""),
    "done": ("✓ ", "green"),
    "failed": ("✗ ", "red"),
    "running": ("… ", "cyan"),
    "phase": ("◆ ", "bold magenta"),
    "note": ("· ", "dim"),
    "warning": ("! ", "yellow"),
    "good": ("★ ", "bold green"),
}
_STATUS_STYLE = {
    "ready": "bold green",
    "failed": "bold red",
    "cancelled": "red",
    "sleeping": "yellow",
    "waiting": "yellow",
}
_LINES_MIN = 6
"""Show at least this many lines of the feed, even if the terminal is too low for them."""


def _elapsed(state: FeedState, at: datetime) -> float:
    return 0.0 if state.began_at is None else max(0.0, (at - state.began_at).total_seconds())


def _text_of(line: Line) -> Text:
    mark, style = _MARKS[line.look]
    return Text(mark + line.text, style=style)


class _View:
    """The live display, rendered at each refresh."""

    def __init__(self, console: Console, product: str, build_id: str) -> None:
        self._console = console
        self._product = product
        self._build_id = build_id
        self.state = FeedState()
        self.trouble: str | None = None

    def __rich__(self) -> RenderableType:
        state = self.state
        head = Text.assemble(
            (printable(self._product), "bold"),
            "  build ",
            (self._build_id, "dim"),
            "\n",
            "model  ",
            self._model(),
            "\n",
        )
        head.append_text(self._phases())
        foot = Text.assemble(
            (state.status, _STATUS_STYLE.get(state.status, "bold cyan")),
            f"   turn {state.turn}   tool calls {state.calls_done} (✗ {state.calls_failed})   ",
            self._budget(),
            f"   {clock(_elapsed(state, state.ended_at or datetime.now(UTC)))}",
        )
        if state.reason:
            foot.append(f"\n{state.reason}", "yellow")
        if state.wake_command:
            foot.append("\nwake it: ", "dim").append(printable(state.wake_command))
        if self.trouble:
            foot.append(f"\nreconnecting: {printable(self.trouble)}", "yellow")
        head.no_wrap = foot.no_wrap = False  # also on a console with soft wrapping
        head.overflow = foot.overflow = "fold"
        width = self._console.width
        used = len(head.wrap(self._console, width - 4)) + len(foot.wrap(self._console, width)) + 4
        available = max(_LINES_MIN, self._console.height - used)
        return Group(Panel(head, border_style="dim"), *self._last_lines(available), Text(), foot)

    def _model(self) -> Text:
        label = self.state.model_label
        return Text(describe_model(label), style="yellow" if is_rehearsal(label) else "")

    def _budget(self) -> Text:
        return Text("budget ").append_text(budget_text(self.state.budget_percent, self.state.budget_level))

    def _phases(self) -> Text:
        if not self.state.phases:
            return Text("phases  none done yet", "dim")
        finished = [f"◆ {phase}" for phase in self.state.phases[-5:]]
        return Text("  ".join([f"phases {len(self.state.phases)} ", *finished]), "magenta")

    def _last_lines(self, available: int) -> list[Text]:
        rows: list[Text] = []
        for line in reversed(self.state.lines):
            wrapped = list(_text_of(line).wrap(self._console, self._console.width))
            if len(rows) + len(wrapped) > available:
                break
            rows[:0] = wrapped
        return rows


ShouldLeave = Callable[[FeedState], bool]
"""Decides from the state so far whether to stop watching."""

ShowEvent = Callable[[FeedEvent, FeedState, FeedState], None]
"""Shows an event. Takes the states before and after it."""


def until_closed(_: FeedState) -> bool:
    """Stay until the build is closed."""
    return False


async def watch_build(
    console: Console,
    api: ApiClient,
    build_id: str,
    product: str,
    leave: ShouldLeave = until_closed,
    *,
    after: int = 0,
) -> FeedState:
    """Show the build until it is closed or `leave` returns True. Returns the last state.

    Args:
        after: without a live display, show only what follows this event.
    """
    if is_interactive(console):
        return await _watch_live(console, api, build_id, product, leave)

    def show(event: FeedEvent, before: FeedState, state: FeedState) -> None:
        if event.id > after:
            for line in _new_lines(before, state):
                console.print(f"{clock(_elapsed(state, line.at)):>6} {_MARKS[line.look][0]}{line.text}")

    return await _follow(api, build_id, leave, show, _report_trouble(console_for_people(stderr=True)))


async def watch_as_json(api: ApiClient, build_id: str, leave: ShouldLeave, *, after: int = 0) -> FeedState:
    """Write each event after `after` as a line of JSON, until the build is closed or `leave` returns True."""

    def show(event: FeedEvent, before: FeedState, state: FeedState) -> None:
        if event.id > after:
            write_json(asdict(event) | {"created_at": event.created_at.isoformat()})

    return await _follow(api, build_id, leave, show, _report_trouble(console_for_people(stderr=True)))


async def wait_for_build(api: ApiClient, build_id: str, leave: ShouldLeave) -> FeedState:
    """Follow the build without showing anything."""
    return await _follow(api, build_id, leave, lambda *_: None, lambda _: None)


async def _watch_live(console: Console, api: ApiClient, build_id: str, product: str, leave: ShouldLeave) -> FeedState:
    view = _View(console, product, build_id)

    def note_trouble(trouble: str | None) -> None:
        view.trouble = trouble

    def show(event: FeedEvent, before: FeedState, state: FeedState) -> None:
        view.state = state

    with Live(view, console=console, refresh_per_second=8):
        return await _follow(api, build_id, leave, show, note_trouble)


async def _follow(
    api: ApiClient, build_id: str, leave: ShouldLeave, show: ShowEvent, on_trouble: Callable[[str | None], None]
) -> FeedState:
    state = FeedState()
    events: AsyncGenerator[FeedEvent, None]
    async with aclosing(api.follow(build_id, on_trouble=on_trouble)) as events:
        async for event in events:
            before, state = state, state.apply(event)
            show(event, before, state)
            if leave(state):
                break
    return state


def _report_trouble(console: Console) -> Callable[[str | None], None]:
    """Report once that the connection is lost, and once that it is back."""
    lost = False

    def report(trouble: str | None) -> None:
        nonlocal lost
        if trouble is not None and not lost:
            console.print(f"reconnecting: {printable(trouble)}")
        elif trouble is None and lost:
            console.print("connected again")
        lost = trouble is not None

    return report


def _new_lines(before: FeedState, after: FeedState) -> Iterator[Line]:
    """The lines that the last event added, without running tool calls: those are shown when they are done."""
    known_ids = {id(line) for line in before.lines}
    return (line for line in after.lines if id(line) not in known_ids and line.look != "running")
