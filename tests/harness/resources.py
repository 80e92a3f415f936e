"""Samples what processes and tables use over time, and tells whether it grows."""

import asyncio
import csv
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

Measures = Mapping[str, float]
"""A value by the name of what was measured."""

WARM_UP_SHARE = 0.4
"""Caches fill and pools open during this part of the time; growth is measured after it."""

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = 60


@dataclass
class Samples:
    """Measurements over time: seconds since the beginning, and the values at each moment."""

    seconds: list[float] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, at: float, measures: Measures) -> None:
        """Add what was measured at a moment. A name may be missing at some."""
        for name in {*self.values, *measures}:
            row = self.values.setdefault(name, [None] * len(self.seconds))
            row.append(measures.get(name))
        self.seconds.append(at)

    def points(self, name: str, since: float = 0.0) -> list[tuple[float, float]]:
        """The measurements of a name, as (seconds, value), from a moment on."""
        row = self.values.get(name, [])
        return [(at, value) for at, value in zip(self.seconds, row, strict=True) if value is not None and at >= since]

    def after_warm_up(self, name: str) -> list[tuple[float, float]]:
        """The measurements by which growth is judged."""
        end = self.seconds[-1] if self.seconds else 0.0
        return self.points(name, end * WARM_UP_SHARE)

    def growth(self, name: str) -> float:
        """By how much the value grew after the warm-up, by the Theil-Sen estimate of its slope, which outliers hardly
        move. 0 if there are too few measurements."""
        points = _thinned(self.after_warm_up(name))
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for index, a in enumerate(points) for b in points[index + 1 :]]
        return statistics.median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0

    def level(self, name: str) -> float:
        """The median after the warm-up."""
        return statistics.median([value for _, value in self.after_warm_up(name)] or [0.0])

    def line(self, name: str) -> str:
        """The values as a line of bars, from 0 to the largest."""
        values = [value for _, value in self.points(name)]
        if not values:
            return ""
        size = max(1, len(values) // _COLUMNS)
        means = [statistics.fmean(values[start : start + size]) for start in range(0, len(values), size)]
        top = max(*means, 1e-9)
        return "".join(_BARS[min(len(_BARS) - 1, int(mean / top * len(_BARS)))] for mean in means)

    def write(self, file: Path) -> None:
        """Write all of it as CSV."""
        with file.open("w", newline="") as opened:
            writer = csv.writer(opened)
            names = sorted(self.values)
            writer.writerow(["seconds", *names])
            for index, at in enumerate(self.seconds):
                writer.writerow([f"{at:.1f}", *(self.values[name][index] for name in names)])


def _thinned(points: Sequence[tuple[float, float]], most: int = 400) -> Sequence[tuple[float, float]]:
    return points[:: max(1, len(points) // most)]


def process_measures(name: str, pid: int) -> dict[str, float]:
    """Memory in megabytes, open files and threads of a process without its children; nothing if it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return {
                f"{name}: MB": process.memory_info().rss / 1e6,
                f"{name}: files": float(process.num_fds()),
                f"{name}: threads": float(process.num_threads()),
            }
    except psutil.Error:
        return {}


async def keep_sampling(
    samples: Samples, measure: Callable[[], Awaitable[Measures]], every: float, *trouble: type[Exception]
) -> None:
    """Add a measurement every so many seconds until cancelled. One that fails with a `trouble` is left out."""
    began = monotonic()
    while True:
        with suppress(*trouble):
            samples.add(monotonic() - began, await measure())
        await asyncio.sleep(every)
