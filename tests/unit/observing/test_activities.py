"""The ids that log lines get from the activity that they come from."""

import structlog
from temporalio import activity
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ExecuteActivityInput

from domain.payloads import ThinkInput
from observing.activities import ActivityLogs, log_context

BUILD = "9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11"


def _environment(workflow_id: str) -> ActivityEnvironment:
    environment = ActivityEnvironment()
    environment.info = ActivityEnvironment.default_info()
    environment.info = environment.info.__class__(
        **{**environment.info.__dict__, "workflow_id": workflow_id, "activity_type": "think", "attempt": 2}
    )
    return environment


def test_an_activity_of_a_build_has_its_ids() -> None:
    request = ThinkInput(build_id=BUILD, turn=7)
    context = _environment(f"build-{BUILD}").run(lambda: log_context(activity.info(), [request]))
    assert context == {"activity": "think", "attempt": 2, "build_id": BUILD, "turn": 7}


def test_any_other_activity_has_its_workflow() -> None:
    context = _environment("reaper").run(lambda: log_context(activity.info(), []))
    assert context == {"activity": "think", "attempt": 2, "workflow_id": "reaper"}


async def test_lines_of_an_activity_have_them_and_later_lines_do_not() -> None:
    seen: list[dict[str, object]] = []

    class Inner:
        def __init__(self) -> None:
            self.next = self

        async def execute_activity(self, input: ExecuteActivityInput) -> None:
            seen.append(structlog.contextvars.get_contextvars())

    interceptor = ActivityLogs().intercept_activity(Inner())  # type: ignore[arg-type]
    given = ExecuteActivityInput(fn=lambda: None, args=[], executor=None, headers={})
    await _environment(f"build-{BUILD}").run(interceptor.execute_activity, given)
    assert seen == [{"activity": "think", "attempt": 2, "build_id": BUILD}]
    assert structlog.contextvars.get_contextvars() == {}
