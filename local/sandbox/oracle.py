"""A log for fault tests to compare with: what clients asked of sandboxes, the processes that they started, and the /tmp
of killed sandboxes."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_ARGUMENT_CHARACTERS = 500


class Oracle:
    """Writes `<directory>/started.jsonl`, one line a process, `<directory>/control.jsonl`, one line a call that names a
    sandbox, and `<directory>/tmp/<id>`, a killed sandbox's /tmp."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "started.jsonl"
        self._control_log = directory / "control.jsonl"
        self._kept = directory / "tmp"
        self._max_running = directory / "max-running"
        self._kept.mkdir(parents=True, exist_ok=True)

    def max_running(self) -> int | None:
        """The number of sandboxes that may run at once, if a test has limited it in `<directory>/max-running`."""
        try:
            return int(self._max_running.read_text())
        except (FileNotFoundError, ValueError):  # not limited, or being written
            return None

    def asked(self, sandbox_id: str, method: str, path: str) -> None:
        """Log a call of the control plane."""
        with self._control_log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "sandbox": sandbox_id, "call": f"{method} {path}"}) + "\n")

    def started(self, sandbox_id: str, pid: int, arguments: Sequence[str]) -> None:
        """Log a process."""
        words = [argument[:_ARGUMENT_CHARACTERS] for argument in arguments]
        line = {"time": time.time(), "sandbox": sandbox_id, "pid": pid, "arguments": words}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep(self, sandbox_id: str, directory: Path) -> None:
        """Keep the /tmp of a sandbox whose directory is about to be removed."""
        try:
            (directory / "tmp").rename(self._kept / sandbox_id)
        except OSError as error:
            log.warning("the /tmp of %s could not be kept: %s", sandbox_id, error)
