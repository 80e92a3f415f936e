"""The table of `make products`, and its exit code."""

from collections.abc import Sequence
from dataclasses import dataclass, field

LEAST = 6
"""How many products have to be ready: with fewer, too little could be reached to show anything."""

STEPS = ("install", "check", "start", "gate", "snapshot")
"""The columns of seconds. `start` lasts until the first page answers; `gate` is all of the gate."""


@dataclass
class DayResult:
    """One build of a product. Seconds that are unknown are missing."""

    status: str
    problem: str = ""
    """Why it is not ready."""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class ProductResult:
    """A product's builds, or why there is none: `unreachable` names what this machine does not reach."""

    name: str
    planned_days: int
    days: list[DayResult] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        """Whether everything that the product needs could be reached."""
        return not self.unreachable

    @property
    def is_ready(self) -> bool:
        """Whether each of its builds became ready."""
        return len(self.days) == self.planned_days and all(day.status == "ready" for day in self.days)


def exit_code(results: Sequence[ProductResult], least: int = LEAST) -> int:
    """Return 0 if every product that counts is ready, and these are at least `least`; otherwise 1."""
    counted = [result for result in results if result.counts]
    return 0 if len(counted) >= least and all(result.is_ready for result in counted) else 1


def table(results: Sequence[ProductResult]) -> str:
    """Render a line for each build, what could not be reached, and a line that sums it up."""
    width = max([7, *(len(result.name) for result in results)])
    lines = [f"{'product':{width}} {'day':>3} " + " ".join(f"{step:>8}" for step in STEPS) + "  outcome"]
    for result in results:
        if not result.counts:
            lines.append(f"{result.name:{width}}   does not count: not reachable: {', '.join(result.unreachable)}")
        for number, day in enumerate(result.days, 1):
            seconds = " ".join(f"{day.seconds[step]:8.1f}" if step in day.seconds else f"{'-':>8}" for step in STEPS)
            lines.append(f"{result.name:{width}} {number:>3} {seconds}  {day.status}")
            lines += [f"    {line}" for line in day.problem.splitlines()]
    counted = [result for result in results if result.counts]
    ready = [result for result in counted if result.is_ready]
    lines.append(f"{len(ready)} of {len(counted)} reachable products ready each day; at least {LEAST} have to be.")
    return "\n".join(lines)
