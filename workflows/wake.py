"""Waiting for signals. Each signal sets a flag in the build's state, which the wait that it ends clears."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.payloads import LoopState

from workflows.failures import end_if_cancelled
from workflows.upgrade import Upgrade


async def wait_for_wake(
    state: LoopState,
    at_most: timedelta | None,
    summary: str,
    *more: str,
    input_beyond: int | None = None,
    even_if_cancelled: bool = False,
    upgrade: Upgrade | None = None,
) -> bool:
    """Wait for the wake signal or one of the signals in `more`, then clear their flags.

    Args:
        state: the build's, with the flags.
        at_most: the longest wait; None for no limit.
        summary: what the timeline shows.
        more: names of further flags in the state that end the wait.
        input_beyond: input from the founder beyond this `input_count` ends the wait too.
        even_if_cancelled: wait although the build was cancelled, in its last steps.
        upgrade: continue as new if it asks for that. The next run has to come to this wait by itself.

    Returns:
        False if the time ran out.

    Raises:
        CancelledError: the workflow has been cancelled.
    """
    if not even_if_cancelled:
        end_if_cancelled()
    flags = ("wake", *more)

    def woken() -> bool:
        has_new_input = input_beyond is not None and state.input_count > input_beyond
        return has_new_input or any(getattr(state, flag) for flag in flags)

    def leaves() -> bool:
        return upgrade is not None and upgrade.is_asked

    try:
        await workflow.wait_condition(lambda: woken() or leaves(), timeout=at_most, timeout_summary=summary)
        if upgrade is not None and not woken():
            upgrade.continue_as_new()
    except TimeoutError:
        return False
    finally:
        for flag in flags:
            setattr(state, flag, False)
    return True
