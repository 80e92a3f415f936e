"""`cofounder doctor --paid`: asks the real services for what no test of this project could show, within a cap.

Each question is an assumption of docs/vendors.md. Before a question may cost anything, its worst case is reserved; a
question whose worst case does not fit under the cap is not asked.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from cli.feed_state import printable
from domain.errors import CofounderError

State = Literal["held", "not held", "not asked"]

_STYLES = {"held": "green", "not held": "bold red", "not asked": "yellow"}


@dataclass(frozen=True)
class Verdict:
    """What became of a question."""

    state: State
    detail: str
    name: str = ""
    assumption: str = ""
    microdollars: int = 0
    """What the question cost at most."""

    def as_json(self) -> dict[str, Any]:
        """The verdict as JSON."""
        return asdict(self)


def held(detail: str) -> Verdict:
    """The service does what the program assumes."""
    return Verdict("held", detail)


def not_held(detail: str) -> Verdict:
    """It does something else."""
    return Verdict("not held", detail)


class NotAsked(CofounderError):
    """The question was not asked; the text says why."""


@dataclass
class Bill:
    """What one call has cost. Until `microdollars` is set, it counts as its worst case."""

    microdollars: int | None = None


class Purse:
    """The money of one run, in microdollars (1 = 0.000001 USD). It never goes above its cap."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.spent = 0

    @contextlib.contextmanager
    def reserve(self, worst: int) -> Iterator[Bill]:
        """Reserve the worst case of a call for the block, and count afterwards what the block says it cost.

        Raises:
            NotAsked: it does not fit under the cap.
        """
        if self.spent + worst > self.cap:
            raise NotAsked(
                f"it could cost {dollars(worst)}, and {dollars(self.cap - self.spent)} are left. Raise --cap to ask it"
            )
        bill = Bill()
        self.spent += worst
        try:
            yield bill
        finally:
            if bill.microdollars is not None:
                self.spent += bill.microdollars - worst


@dataclass(frozen=True)
class Question:
    """An assumption, and how to ask for it. `ask` may raise any of our errors, which are then the verdict."""

    name: str
    assumption: str
    ask: Callable[[], Awaitable[Verdict]]


async def ask_all(questions: list[Question], purse: Purse, report: Callable[[Verdict], object]) -> list[Verdict]:
    """Ask the questions one after the other, and report each verdict."""
    verdicts = []
    for question in questions:
        before = purse.spent
        try:
            verdict = await question.ask()
        except NotAsked as reason:
            verdict = Verdict("not asked", str(reason))
        except CofounderError as error:
            verdict = not_held(str(error))
        verdicts.append(
            Verdict(verdict.state, verdict.detail, question.name, question.assumption, purse.spent - before)
        )
        report(verdicts[-1])
    return verdicts


def cannot_ask(name: str, assumption: str, reason: str) -> Question:
    """A question that is listed, so that no one takes it for answered, but never asked."""

    async def refuse() -> Verdict:
        raise NotAsked(reason)

    return Question(name, assumption, refuse)


def dollars(microdollars: int) -> str:
    """Format an amount in USD."""
    return f"${microdollars / 1_000_000:.4f}"


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print the verdict: state, name, assumption, cost; below it what was seen."""
    line = Text.assemble((f"{verdict.state:<10}", _STYLES[verdict.state]), f"{verdict.name:<12} {verdict.assumption}")
    if verdict.microdollars:
        line.append(f" ({dollars(verdict.microdollars)})", "dim")
    console.print(line)
    console.print(Text(f"{'':23}{printable(verdict.detail)}", "dim"))
