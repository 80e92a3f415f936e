"""A workflow that says a text in each place that Temporal has for one."""

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError

_failed: set[str] = set()
"""Ids of workflows whose task has failed once."""

_SOON = timedelta(seconds=60)


@activity.defn
async def tell(word: str) -> str:
    """Say the word in a heartbeat, fail with it once, with a cause, and then return it."""
    activity.heartbeat(f"heartbeat {word}")
    if activity.info().attempt == 1:
        try:
            raise ValueError(f"cause {word}")
        except ValueError as cause:
            raise ApplicationError(f"failure {word}", f"detail {word}", type="Told") from cause
    assert activity.info().heartbeat_details
    return f"result {word}"


@activity.defn
async def refuse(word: str) -> None:
    """Fail for good."""
    raise ApplicationError(f"refusal {word}", f"refused {word}", type="Told", non_retryable=True)


@workflow.defn
class TellingChild:
    """Fails with what it was told."""

    @workflow.run
    async def run(self, word: str) -> None:
        """Fail."""
        raise ApplicationError(f"child {word}", f"child detail {word}", type="Told", non_retryable=True)


@workflow.defn
class TellingWorkflow:
    """Says its input in each place, fails a workflow task with it once, and ends with a failure."""

    def __init__(self) -> None:
        self._done = False

    @workflow.run
    async def run(self, word: str) -> None:
        """Wait for a signal, and then fail."""
        workflow.set_current_details(f"current details {word}")
        workflow.upsert_memo({"said": f"later memo {word}"})
        await workflow.execute_activity(
            tell,
            f"argument {word}",
            summary=f"activity {word}",
            start_to_close_timeout=_SOON,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100)),
        )
        try:
            await workflow.execute_activity(refuse, word, start_to_close_timeout=_SOON)
        except ActivityError:
            workflow.logger.debug("as it should be")
        try:
            await workflow.execute_child_workflow(
                TellingChild.run, word, memo={"said": f"memo {word}"}, static_summary=f"child {word}"
            )
        except ChildWorkflowError:
            workflow.logger.debug("as it should be")
        await workflow.sleep(timedelta(milliseconds=10), summary=f"timer {word}")
        if workflow.info().workflow_id not in _failed:
            _failed.add(workflow.info().workflow_id)
            raise RuntimeError(f"task {word}") from KeyError(f"cause of the task {word}")
        await workflow.wait_condition(lambda: self._done)
        raise ApplicationError(f"end {word}", f"end detail {word}", type="Told")

    @workflow.signal
    def finish(self, word: str) -> None:
        """End."""
        self._done = True

    @workflow.query
    def ask(self, word: str) -> str:
        """Repeat the word, or fail with it."""
        if "wrong" in word:
            raise ValueError(f"query {word}")
        return f"answer {word}"

    @workflow.update
    async def change(self, word: str) -> str:
        """Repeat the word, or fail with it."""
        if "wrong" in word:
            raise ApplicationError(f"update {word}", f"update detail {word}", type="Told")
        return f"changed {word}"

    @change.validator
    def check(self, word: str) -> None:
        """Refuse a word."""
        if "refused" in word:
            raise ValueError(f"rejection {word}")
