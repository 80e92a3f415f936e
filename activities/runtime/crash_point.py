"""Named places between two lines where the death of this process has to be survived.

They are in the activities because that is where rows, servers and sandboxes are changed one after the other. Here they
do nothing, and no setting or variable of the environment can make them do anything: the program of the fault tests,
`tests/faults/rigged_worker.py`, starts a worker in which another function stands in this one's place.
"""

from typing import Literal

CrashPoint = Literal[
    "think.before_call",
    "think.after_call",
    "think.committed",
    "dispatch.intended",
    "dispatch.acted",
    "snapshot.uploaded",
    "workspace.made",
    "gate.recorded",
    "finish_build.committed",
]


async def crash_point(name: CrashPoint) -> None:
    """Nothing happens here."""
