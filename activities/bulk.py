"""Carries out an act on many builds."""

import uuid

from temporalio import activity

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from clients.build_workflows import BuildWorkflows
from db.session import Sessions
from domain.payloads import BulkBatch, BulkRef
from services.bulk import BulkRuns


class BulkActivities:
    """`carry_out_batch`. The rows say which builds were reached, so another attempt goes on where one has died."""

    def __init__(self, sessions: Sessions, workflows: BuildWorkflows) -> None:
        self._runs = BulkRuns(sessions, workflows)

    @activity.defn
    @application_errors
    async def carry_out_batch(self, request: BulkRef) -> BulkBatch:
        """Do the act to the next builds of the run, at its rate, for some seconds."""
        async with heartbeating():
            return await self._runs.carry_out(uuid.UUID(request.run_id))
