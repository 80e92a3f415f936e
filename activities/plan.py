"""Read the agent's plan when it has ended its turn: an ended turn is a report, and does not prove that all is done."""

import uuid
from collections.abc import Sequence

from temporalio import activity

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.sandbox.product import read_plan_file
from clients.sandbox import Sandboxes
from db.events import event_data_of_turn
from db.feed import append_events
from db.session import Sessions
from db.steering import lock_build
from db.transaction import transaction
from db.turns import final_text
from domain.events import PlanEvent
from domain.payloads import PlanReading, ReadPlan
from domain.plan import STORIES_SHOWN, Plan, named_blocker
from domain.tool_output import displayable


class PlanActivities:
    """The activity `read_plan`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, secrets: Sequence[str]) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._secrets = secrets

    @activity.defn
    @application_errors
    async def read_plan(self, request: ReadPlan) -> PlanReading:
        """Read PLAN.md in the workspace and show in the feed what is done, once for a turn. Read whether the turn's
        message names a blocker.

        If an earlier attempt has shown it, that counts: the agent is told what the feed says.

        Raises:
            SandboxUnavailable: another attempt may succeed.
            SandboxGone: the workspace has to be restored elsewhere first.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating():
            sandbox = await self._sandboxes.connect(request.sandbox_id)
            plan = await read_plan_file(sandbox) or Plan(open=(), done=())
            async with transaction(self._sessions) as tx:
                await lock_build(tx, build_id)
                shown = await event_data_of_turn(tx, build_id, PlanEvent.type, request.turn)
                event = self._event(plan) if shown is None else PlanEvent.model_validate(shown)
                if shown is None:
                    await append_events(tx, build_id, [event], turn=request.turn)
                final = await final_text(tx, build_id, request.turn)
            blocked = named_blocker(final or "") is not None
            return PlanReading.sparse(open=event.open, done=event.done, blocked=blocked)

    def _event(self, plan: Plan) -> PlanEvent:
        stories = [displayable(story, self._secrets) for story in plan.open[:STORIES_SHOWN]]
        return PlanEvent(open=len(plan.open), done=len(plan.done), stories=stories)
