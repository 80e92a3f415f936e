"""What can go wrong with the embedded stack. Each message says what to do; none needs a traceback.

StackError
├── DataInUse      another stack works in this data directory
├── PortBusy       a port that was asked for is taken
├── PartFailed     a part did not start
└── PartDied       a part ended while the stack was up
"""


class StackError(Exception):
    """The embedded stack could not start or stay up."""


class DataInUse(StackError):
    """Another stack works in this data directory."""


class PortBusy(StackError):
    """A port that was asked for is taken, or may not be taken."""


class PartFailed(StackError):
    """A part did not start. `part` is its name."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


class PartDied(StackError):
    """A part ended while the stack was up, and nobody asked it to. `part` is its name."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part
