"""What a sandbox uses: processor time and memory of its processes, and the disk that its files are on.

Pid 1 takes a sample now and then, as E2B does, and keeps the last ones.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import deque

SAMPLE_SECONDS = 5.0
MAX_SAMPLES = 720
"""An hour of samples."""

PAGE_BYTES = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUS = os.cpu_count() or 1


class Usage:
    """Samples of one sandbox. `disk` is a directory on its disk; no part of that is reserved for the sandbox."""

    def __init__(self, disk: str) -> None:
        self.disk = disk
        self.samples: deque[dict[str, float]] = deque(maxlen=MAX_SAMPLES)
        self.paused = False
        self.start()

    def start(self) -> None:
        """Begin to measure processor time from here on: at the boot, and when a pause ends."""
        self.measured_at = time.monotonic()
        self.cpu_seconds = _processes()[0]

    def due(self) -> bool:
        """Whether it is time for another sample."""
        return not self.paused and time.monotonic() - self.measured_at >= SAMPLE_SECONDS

    def sample(self) -> None:
        """Measure. The processor's share is that since the last sample, in percent of all processors."""
        since = max(time.monotonic() - self.measured_at, 1e-3)
        before = self.cpu_seconds
        cpu_seconds, memory_bytes = _processes()
        disk = os.statvfs(self.disk)
        self.measured_at, self.cpu_seconds = time.monotonic(), cpu_seconds
        self.samples.append(
            {
                "time": time.time(),
                "cpus": _CPUS,
                "cpu_percent": min(max(cpu_seconds - before, 0.0) / since / _CPUS * 100, 100.0),
                "memory": memory_bytes,
                "disk_used": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
                "disk_total": disk.f_blocks * disk.f_frsize,
            }
        )


def read_at_once(path: str) -> bytes:
    """The first page of a file of /proc, without the cost of a file object."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _processes() -> tuple[float, int]:
    """Processor seconds of all processes, those that ended included, and the bytes of memory of all but pid 1."""
    ticks = memory = 0
    for name in os.listdir("/proc"):  # noqa: PTH208  # a tenth of the time
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = read_at_once(f"/proc/{name}/stat").rpartition(b")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # utime, stime, and both of the children that it waited for
                memory += int(fields[21]) * PAGE_BYTES if name != "1" else 0
    return ticks / _TICKS, memory
