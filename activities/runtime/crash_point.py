"""Named points between two lines of an activity at which a build has to survive the death of its worker.

Activities change rows, servers and sandboxes one after the other, so the points are there. They do nothing, and no
setting or environment variable can make them do anything. The fault tests' own program,
`tests/harness/rigged_worker.py`, starts a worker in which another function replaces `crash_point`.
"""

from typing import Literal

CrashPoint = Literal[
    "think.before_call",
    "think.after_call",
    "think.committed",
    "compact.before_call",
    "compact.after_call",
    "compact.stored",
    "dispatch.intended",
    "dispatch.acted",
    "snapshot.uploaded",
    "permit.taken",
    "workspace.made",
    "workspace.paused",
    "judge.before_call",
    "judge.after_call",
    "judge.stored",
    "gate.recorded",
    "finish_build.committed",
]


async def crash_point(name: CrashPoint) -> None:
    """Do nothing."""
