"""A build on the screen: live in a terminal, one line per event elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from console.api_client import ApiClient
from console.feed_state import FeedState, Line, describe_model, is_rehearsal, printable

_MARKS = {
    "said": ("  ", ""),
    "done": ("✓ ", "green"),
    "failed": ("✗ ", "red"),
    "running": ("… ", "cyan"),
    "phase": ("◆ ", "bold magenta"),
    "note": ("· ", "dim"),
    "warning": ("! ", "yellow"),
    "good": ("★ ", "bold green"),
}
_STATUS_STYLE = {"ready": "bold green", "failed": "bold red", "cancelled": "red", "sleeping": "yellow"}
_SCREEN_LINES_LEAST = 6


def dollars(microdollars: int) -> str:
    """An amount of money for people."""
    return f"${microdollars / 1_000_000:.4f}"


def clock(seconds: float) -> str:
    """A duration as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _elapsed(state: FeedState, at: datetime) -> float:
    return 0.0 if state.began_at is None else max(0.0, (at - state.began_at).total_seconds())


def _text_of(line: Line) -> Text:
    mark, style = _MARKS[line.look]
    return Text(mark + line.text, style=style)


def print_rows(console: Console, rows: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values side by side. Long values are left to the terminal, so that an address can be copied whole."""
    for name, value in rows:
        told = value if isinstance(value, Text) else Text(printable(value))
        console.print(Text(f"{name:<12} ", "dim").append_text(told), soft_wrap=True)


class _View:
    """What the live display shows at each refresh."""

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
            f"   turn {state.turn}   tool calls {state.calls_done} (✗ {state.calls_failed})"
            f"   cost {dollars(state.cost)}   {clock(_elapsed(state, state.ended_at or datetime.now(UTC)))}",
        )
        if state.reason:
            foot.append(f"\n{state.reason}", "yellow")
        if state.wake_command:
            foot.append("\nwake it: ", "dim").append(printable(state.wake_command))
        if self.trouble:
            foot.append(f"\nreconnecting: {printable(self.trouble)}", "yellow")
        head.no_wrap = foot.no_wrap = False  # also on a console that leaves long lines to the terminal
        head.overflow = foot.overflow = "fold"
        width = self._console.width
        taken = len(head.wrap(self._console, width - 4)) + len(foot.wrap(self._console, width)) + 4
        room = max(_SCREEN_LINES_LEAST, self._console.height - taken)
        return Group(Panel(head, border_style="dim"), *self._last_lines(room), Text(), foot)

    def _model(self) -> Text:
        label = self.state.model_label
        return Text(describe_model(label), style="yellow" if is_rehearsal(label) else "")

    def _phases(self) -> Text:
        if not self.state.phases:
            return Text("phases  none done yet", "dim")
        shown = [f"◆ {phase}" for phase in self.state.phases[-5:]]
        return Text("  ".join([f"phases {len(self.state.phases)} ", *shown]), "magenta")

    def _last_lines(self, room: int) -> list[Text]:
        rows: list[Text] = []
        for line in reversed(self.state.lines):
            wrapped = list(_text_of(line).wrap(self._console, self._console.width))
            if len(rows) + len(wrapped) > room:
                break
            rows[:0] = wrapped
        return rows


def is_interactive(console: Console) -> bool:
    """Whether somebody sits before a terminal that can redraw."""
    return console.file.isatty() and not console.is_dumb_terminal


def _never(_: FeedState) -> bool:
    return False


async def watch_build(
    console: Console, api: ApiClient, build_id: str, product: str, leave: Callable[[FeedState], bool] = _never
) -> FeedState:
    """Show the build until it is closed, or `leave` says that it has been seen enough; the state at the end."""
    if is_interactive(console):
        return await _watch_live(console, api, build_id, product, leave)
    return await _watch_plainly(console, api, build_id, leave)


async def _watch_live(
    console: Console, api: ApiClient, build_id: str, product: str, leave: Callable[[FeedState], bool]
) -> FeedState:
    view = _View(console, product, build_id)

    def note_trouble(trouble: str | None) -> None:
        view.trouble = trouble

    with Live(view, console=console, refresh_per_second=8):
        async with aclosing(api.follow(build_id, on_trouble=note_trouble)) as events:
            async for event in events:
                view.state = view.state.apply(event)
                if leave(view.state):
                    break
    return view.state


async def _watch_plainly(
    console: Console, api: ApiClient, build_id: str, leave: Callable[[FeedState], bool]
) -> FeedState:
    state = FeedState()
    async with aclosing(api.follow(build_id)) as events:
        async for event in events:
            before, state = state, state.apply(event)
            for line in _new_lines(before, state):
                said = f"{clock(_elapsed(state, line.at)):>6} {_MARKS[line.look][0]}{line.text}"
                console.print(said, markup=False, highlight=False, emoji=False, soft_wrap=True)
            if leave(state):
                break
    return state


def _new_lines(before: FeedState, after: FeedState) -> Iterator[Line]:
    """The lines that the last event added. A tool call is shown when it is done."""
    known = {id(line) for line in before.lines}
    return (line for line in after.lines if id(line) not in known and line.look != "running")
