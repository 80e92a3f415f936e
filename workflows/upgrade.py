"""How a build moves to another version of the workers: by continuing as new, between turns and in every wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.payloads import BuildInput, LoopState, Payload

from workflows.failures import end_if_cancelled
from workflows.projection import Projection

_AUTO_UPGRADE = workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE


def is_upgrade_due() -> bool:
    """Whether the workers are to have another version than this run."""
    return workflow.info().is_target_worker_deployment_version_changed()


def continue_as_new(request: Payload) -> NoReturn:
    """End this run and begin the next one: with the version that the workers are to have, if that is another one."""
    workflow.continue_as_new(request, initial_versioning_behavior=_AUTO_UPGRADE if is_upgrade_due() else None)


class Upgrade:
    """A run keeps to the version that it began with. The next run has the one that the workers are to have then.

    This needs no patch: without a versioned worker there is no other version, and no history says that there is one.
    """

    def __init__(self, build_id: str, state: LoopState, projection: Projection) -> None:
        self._build_id = build_id
        self._state = state
        self._projection = projection
        self._holds = 0

    @property
    def is_due(self) -> bool:
        """Whether the workers are to have another version than this run."""
        return is_upgrade_due()

    @property
    def is_possible(self) -> bool:
        """Whether a new run would find its way back to the step that this one is at."""
        return not self._holds

    def is_long(self, steps: int) -> bool:
        """Whether the history is long.

        Args:
            steps: turns, or waits of one kind, in this run. The setting that limits turns a run limits waits, too.
        """
        context = self._state.context
        limit = context.continue_as_new_turns if context is not None else None
        return workflow.info().is_continue_as_new_suggested() or (limit is not None and steps >= limit)

    @property
    def is_asked(self) -> bool:
        """Whether the build was asked to move in the wait that it is in, and may.

        Each time takes a signal, so that no build moves again and again.
        """
        return self._state.upgrade and self.is_possible and self.is_due

    @contextmanager
    def held(self, *, when: bool = True) -> Iterator[None]:
        """Keep this run as long as the block lasts: a new one would not find its way back to the same step."""
        self._holds += when
        try:
            yield
        finally:
            self._holds -= when

    def continue_as_new(self) -> NoReturn:
        """End this run and begin the next one.

        Raises:
            CancelledError: the build was cancelled, which a new run would not see.
        """
        end_if_cancelled()
        state = self._state
        state.upgrade, state.shown = False, self._projection.shown
        continue_as_new(BuildInput(build_id=self._build_id, state=state))
