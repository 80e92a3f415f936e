"""How a run goes on over the rows of its build: a new run of a build that has begun, or one whose rows have moved."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.recovery import RecoveryActivities
    from domain.failures import ROWS_ARE_BEHIND
    from domain.payloads import BuildRef, LoadedState, LoopState
    from domain.status import Status, WaitingFor

from workflows import policies
from workflows.failures import end_if_cancelled, rows_moved, shielded
from workflows.projection import Projection
from workflows.waiting import Waiting
from workflows.workspace import Workspace

T = TypeVar("T")

_LOADS_PER_TURN = 3
"""Read the state from the rows this often within a turn. If that does not help, no repetition will."""


class BuildHasEnded(Exception):
    """The build's rows say that it has ended, which this run did not know."""

    def __init__(self, loaded: LoadedState) -> None:
        super().__init__(f"the build is {loaded.ended}")
        self.loaded = loaded


class Recovery:
    """Reads the build's state from its rows, and brings the workspace to where they are."""

    def __init__(
        self, build_id: str, state: LoopState, projection: Projection, workspace: Workspace, waiting: Waiting
    ) -> None:
        self._build = BuildRef(build_id=build_id)
        self._state = state
        self._projection = projection
        self._workspace = workspace
        self._waiting = waiting
        self._is_asleep = False
        self._repeats_turn = False
        """What follows an answered turn is repeated first, and may end in a wait that the row shows already."""
        self._loads = (0, 0)
        """A turn, and how often the state was read in it."""

    async def load(self, *, is_behind: bool = False) -> None:
        """Take the build's state from its rows.

        Args:
            is_behind: rows that this run has seen are gone.

        Raises:
            BuildHasEnded: there is nothing left to do.
        """
        state = self._state
        loaded = await shielded(self._read())
        if loaded.ended is not None:
            raise BuildHasEnded(loaded)
        context = state.context
        if context is not None and loaded.gates > state.gates:
            state.finish = False  # a gate that this run does not know of has answered it
        state.adopt(loaded.state)
        if context is not None and state.context is not None:
            state.context = context  # a build keeps the settings that it has started with
        if loaded.shown is None:
            return  # the build has not begun
        self._is_asleep, self._repeats_turn = loaded.asleep, loaded.answered
        lost_minutes = loaded.lost_minutes if loaded.lost_minutes is not None or not is_behind else 0
        self._workspace.expect(
            loaded.sandbox_id, has_turns=state.turn > 0, is_asleep=loaded.asleep, lost_minutes=lost_minutes
        )
        self._projection.follow(Status(loaded.shown) if loaded.shown in set(Status) else state.status)

    async def over_rows(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step. If the build's rows turn out to have moved, take the state from them and do it again.

        This needs no patch: no history that was recorded before has such an error.
        """
        while True:
            try:
                return await step()
            except ActivityError as error:
                moved = rows_moved(error)
                if moved is None:
                    raise
            await self._ask_if_in_vain()
            await self.load(is_behind=moved == ROWS_ARE_BEHIND)

    async def sleep_on(self) -> None:
        """If the build was asleep, let it sleep until there is budget, with its sandbox paused as it is."""
        waiting, is_asleep, self._is_asleep = self._waiting, self._is_asleep, False
        if not is_asleep:
            return
        stop = await waiting.retry_with_help(waiting.check_budget)
        if stop.exhausted:
            await waiting.wait_for_budget(stop, asleep=True)

    async def verify_workspace(self) -> None:
        """Verify the workspace that an earlier run has opened."""
        if self._workspace.is_unverified:
            await self._waiting.retry_with_help(self._workspace.recover)
        if not self._repeats_turn:
            await self._projection.catch_up()

    async def _read(self) -> LoadedState:
        return await workflow.execute_activity_method(
            RecoveryActivities.load_state, self._build, **policies.DATABASE, summary="state from the rows"
        )

    async def _ask_if_in_vain(self) -> None:
        """Ask an operator if the state was read several times, and the rows still do not fit."""
        turn, loads = self._loads
        loads = loads + 1 if turn == self._state.turn else 1
        self._loads = self._state.turn, loads
        if loads <= _LOADS_PER_TURN:
            return
        end_if_cancelled()
        self._loads = self._state.turn, 0
        reason = "The build's rows do not fit together. Read the worker's log, then wake the build to try again."
        await self._waiting.wait_for_person(WaitingFor.OPERATOR, reason, verified=False)
