"""Timeouts and retries. Temporal owns every retry; the vendors' SDKs run with theirs off.

No interval is longer than a minute, so that no retry waits longer after an outage than the outage has lasted plus a
minute. The limits of attempts are for defects. If a dependency is away, its build waits for it (`workflows/outage.py`)
before they are reached; `activities/runtime/errors.py` sees to that. If the database is away, the step starts over.
"""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType


class Options(TypedDict, total=False):
    """The options of `workflow.execute_activity_method` that we set."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType
    task_queue: str
    priority: Priority


_HEARTBEAT = timedelta(seconds=15)
"""A cancel arrives with a heartbeat, and heartbeats are sent at most every 0.8 of this."""

DATABASE: Options = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30)),
}
"""Short reads and writes. Retried for ever: nothing is lost while the database is away."""

WEBHOOK: Options = {
    "start_to_close_timeout": timedelta(minutes=2),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(minutes=1)),
}
"""One attempt to deliver a message. What is retried is our own outage: that a receiver fails is a result."""

BULK: Options = {
    "start_to_close_timeout": timedelta(minutes=5),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30)),
}
"""A batch of an act on many builds, which takes `domain.bulk.BATCH_SECONDS`. Retried for ever: a build that can't be
reached is given up by its row."""

ERASURE: Options = {
    "start_to_close_timeout": timedelta(minutes=30),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(minutes=1)),
}
"""A step of an erasure. Retried for ever: what was asked for is done once the server that is away is back."""

EXPORT: Options = {
    "start_to_close_timeout": timedelta(hours=6),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(minutes=1)),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""The file of an export. Retried until a server that is away is back. A cancelled one has ended when the workflow has,
so that an erasure finds all that it has written."""

THINK: Options = {
    "start_to_close_timeout": timedelta(minutes=75),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(minutes=1), maximum_attempts=20),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""A model call, with time for the longest output from a slow model (`domain/output_limits.py`) and for the wait until
its rate limit allows it. If the model is away, the build waits for it after a few attempts."""

COMPACT: Options = {
    "start_to_close_timeout": timedelta(minutes=15),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=5),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""A model call that sums up the conversation. Without it, the conversation goes on as it is."""

TOOL: Options = {
    "start_to_close_timeout": timedelta(minutes=20),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=15),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""A tool call; the timeout allows the longest run that the agent may request. A retry attaches to it."""

SANDBOX: Options = {
    "start_to_close_timeout": timedelta(minutes=15),
    "heartbeat_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=10),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""Opening, pausing and resuming a sandbox; a restore moves a whole archive. Here and below the workflow waits until a
cancelled activity has ended, so that nothing creates a sandbox or writes to one after the build has released it."""

RELEASE: Options = {**SANDBOX, "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30))}
"""Retried until it succeeds: no sandbox outlives its build and preview."""

SNAPSHOT: Options = {
    "start_to_close_timeout": timedelta(minutes=15),
    "heartbeat_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=10),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""A snapshot that must succeed before the build continues."""

OF_REST = Priority(priority_key=4)
"""Of the snapshot of a build that rests from now on, in a queue of its own role: no one waits for it. The other steps
there, which have the key 3, open a workspace, or a build waits for them. In a queue for all work it would wait for
tool calls without end, and its sandbox cost money for as long. Of one key, users take turns, as the key of the workflow
says."""

PAUSE_IF_POSSIBLE: Options = {**SANDBOX, "retry_policy": RetryPolicy(maximum_attempts=2)}
"""A pause that may fail: it only saves money."""

SNAPSHOT_IF_POSSIBLE: Options = {**SNAPSHOT, "retry_policy": RetryPolicy(maximum_attempts=2)}
"""A snapshot that may fail, as at a phase boundary; the next one covers it."""

SNAPSHOT_AT_END: Options = {**SNAPSHOT, "retry_policy": RetryPolicy(maximum_attempts=3)}
"""The last snapshot of a build that ends. No later one covers it, and a deploy may end an attempt or two."""

GATE: Options = {
    "start_to_close_timeout": timedelta(minutes=45),
    "heartbeat_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=8),
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}
"""The evidence gate: a restore, an install and a check in a fresh sandbox."""

HOOK: Options = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=3),
}
"""The hook after a build; its failure never fails the build."""

REAP: Options = {
    "start_to_close_timeout": timedelta(minutes=10),
    "heartbeat_timeout": timedelta(seconds=60),
    "retry_policy": RetryPolicy(maximum_attempts=3),
}
"""One pass over every open build; the schedule repeats it."""

PROBE: Options = {
    "start_to_close_timeout": timedelta(seconds=50),
    "heartbeat_timeout": _HEARTBEAT,
    "retry_policy": RetryPolicy(maximum_attempts=1),
}
"""One look at the dependencies that are down; the schedule repeats it."""

REAP_STEP: Options = {
    "start_to_close_timeout": timedelta(minutes=2),
    "heartbeat_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(maximum_attempts=2),
}
"""A step of the reaper, which begins nothing after 40 seconds; the schedule repeats it."""
