"""`python -m local.rehearsal`: serve until SIGTERM or SIGINT."""

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from local.rehearsal.server import Rehearsal, create_app

_PR_SET_PDEATHSIG = 1


class _Server(uvicorn.Server):
    """uvicorn, but it does not end itself with the signal that stopped it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True
        self.force_exit = True  # a stalled stream must not delay the shutdown


def _die_with_parent() -> None:
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent or parent == 1:
        sys.exit(1)  # the parent ended before prctl took effect


def _listen(port: int) -> socket.socket:
    # The protocol must be explicit: asyncio turns Nagle's algorithm off only if it sees TCP. With it on, a stream of
    # small events waits 40 ms for the reader's acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


def main() -> None:
    """Read the options, print the address as one line of JSON, and serve."""
    options = argparse.ArgumentParser(prog="python -m local.rehearsal", description=__doc__)
    options.add_argument("--port", type=int, default=0, help="port to listen on; 0 for any free one")
    options.add_argument("--log", type=Path, help="append one JSON line per request to this file")
    options.add_argument("--bodies", type=Path, help="keep each request's raw body in this directory")
    options.add_argument(
        "--scripts",
        type=Path,
        help='JSON file {"scripts": [...], "limits": [...], "rates": [...], "faults": [...]} to load',
    )
    options.add_argument(
        "--think-ms", type=int, default=0, help="milliseconds that a turn takes, spread over its words"
    )
    options.add_argument("--die-with-parent", action="store_true", help="exit when the parent process ends (Linux)")
    arguments = options.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # until the event loop installs its own handlers
    if arguments.die_with_parent:
        _die_with_parent()
    rehearsal = Rehearsal(log=arguments.log, bodies=arguments.bodies, think_seconds=arguments.think_ms / 1000)
    try:
        if arguments.scripts:
            rehearsal.control.load(json.loads(arguments.scripts.read_text(encoding="utf-8")))
        listener = _listen(arguments.port)
    except (OSError, ValueError) as error:
        sys.exit(f"The rehearsal model cannot start: {error}")
    config = uvicorn.Config(create_app(rehearsal), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # The socket already listens, so a reader of this line can connect; the server answers once the loop runs.
    sys.stdout.write(json.dumps({"ANTHROPIC_API_KEY": "rehearsal", "ANTHROPIC_BASE_URL": address}) + "\n")
    sys.stdout.flush()
    _Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
