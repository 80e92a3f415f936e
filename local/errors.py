"""Errors of the embedded stack. Each message says what is wrong and what to do; none needs a traceback.

StackError
├── DataInUse      another stack uses this data directory
├── PortBusy       a requested port is taken
├── PartFailed     a part did not start
└── PartDied       a part ended while the stack was up
"""


class StackError(Exception):
    """The embedded stack did not start, or did not stay up."""


class DataInUse(StackError):
    """Another stack uses this data directory."""


class PortBusy(StackError):
    """A requested port is taken, or this process may not listen on it."""


class PartFailed(StackError):
    """A part did not start. `part` is its name."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


class PartDied(StackError):
    """A part ended by itself while the stack was up. `part` is its name."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part
