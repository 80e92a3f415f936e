"""What fault tests compare with: which processes clients have started, and what killed sandboxes had in /tmp."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_ARGUMENT_CHARACTERS = 500


class Oracle:
    """`<directory>/started.jsonl` has a line for each process; `<directory>/tmp/<id>` is a killed sandbox's /tmp."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "started.jsonl"
        self._kept = directory / "tmp"
        self._kept.mkdir(parents=True, exist_ok=True)

    def started(self, sandbox_id: str, pid: int, arguments: Sequence[str]) -> None:
        """Note a process."""
        words = [argument[:_ARGUMENT_CHARACTERS] for argument in arguments]
        line = {"time": time.time(), "sandbox": sandbox_id, "pid": pid, "arguments": words}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep(self, sandbox_id: str, directory: Path) -> None:
        """Keep the /tmp of a sandbox whose directory is about to be removed."""
        try:
            (directory / "tmp").rename(self._kept / sandbox_id)
        except OSError as error:
            log.warning("the /tmp of %s is not kept: %s", sandbox_id, error)
