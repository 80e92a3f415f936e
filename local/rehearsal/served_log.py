"""The log of served requests. Tests compare ledgers with it."""

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local.rehearsal.cache import InputUsage


def usage_record(usage: InputUsage, output: int) -> dict[str, int]:
    """Return usage by token class, named as in the price table."""
    return asdict(usage) | {"output": output}


class ServedLog:
    """One JSON line per request, appended and flushed to a file, or kept in memory without one."""

    def __init__(self, path: Path | None = None, bodies: Path | None = None) -> None:
        self._path = path
        self._bodies = bodies
        self._lines: list[str] = []
        self._lock = threading.Lock()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._sequence = 0
        if bodies:
            bodies.mkdir(parents=True, exist_ok=True)
            numbers = [int(file.name.split("-", 1)[0]) for file in bodies.glob("[0-9]*-*.json")]
            self._sequence = max(numbers, default=0)

    def keep_body(self, request_id: str, raw: bytes) -> None:
        """Store a request's bytes unchanged in `<sequence>-<request id>.json`."""
        if self._bodies:
            self._sequence += 1
            (self._bodies / f"{self._sequence:06d}-{request_id}.json").write_bytes(raw)

    def append(self, line: dict[str, Any]) -> None:
        """Add a line."""
        text = json.dumps(line, ensure_ascii=False)
        with self._lock:
            if not self._path:
                self._lines.append(text)
                return
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines, oldest first, including those of earlier processes with the same file."""
        if self._path:
            texts = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        else:
            texts = list(self._lines)
        return [json.loads(text) for text in texts]
