"""Exit codes, and which error or build status leads to which."""

from domain.errors import CofounderError

DONE = 0
NOT_DONE = 1
USAGE_ERROR = 2
UNREACHABLE = 3
BUILD_FAILED = 4
WAITS_FOR_PERSON = 5
INTERRUPTED = 130

MEANINGS = {
    DONE: "success; for build and watch: the build is ready",
    NOT_DONE: "failed or refused: standard error says why",
    USAGE_ERROR: "wrong usage",
    UNREACHABLE: "a server does not answer (the API, the database, Temporal): try again",
    BUILD_FAILED: "build and watch: the build failed or was cancelled",
    WAITS_FOR_PERSON: "build and watch: the build waits for a person",
    INTERRUPTED: "stopped by Ctrl-C",
}

WATCH_EXIT_CODES = "Exit code 0: ready; 4: failed or cancelled; 5: waits for a person; others: see `cofounder --help`."
"""Shown in the help of `build` and `watch`."""


class Unreachable(CofounderError):
    """A server that the command needs does not answer."""


def exit_code_of(error: Exception) -> int:
    """The exit code for an error."""
    return UNREACHABLE if isinstance(error, Unreachable) else NOT_DONE


def exit_code_of_build(status: str) -> int:
    """The exit code of `build` and `watch` for a build's status."""
    if status in ("failed", "cancelled"):
        return BUILD_FAILED
    return {"ready": DONE, "needs_input": WAITS_FOR_PERSON}.get(status, NOT_DONE)
