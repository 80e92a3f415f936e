"""A ready build's preview: keeps the product running for a while, longer on request, then lets go of the sandbox."""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.preview import PreviewActivities
    from domain.names import EXTEND, PREVIEW_WORKFLOW
    from domain.payloads import OpenedPreview, PreviewChange, PreviewInput, SandboxInput

from workflows import policies

_KEEP_EVERY = timedelta(minutes=10)
"""How often the sandbox's time to live is extended; well below it, so that it never expires by surprise."""


@workflow.defn(name=PREVIEW_WORKFLOW)
class PreviewWorkflow:
    """One preview, from its start to its end."""

    @workflow.init
    def __init__(self, given: PreviewInput) -> None:
        self._id = given.build_id
        self._seq = given.seq
        self._sandbox_id = given.sandbox_id
        self._url = given.url
        self._expires_at = workflow.now() + timedelta(seconds=given.seconds)

    @workflow.signal(name=EXTEND)
    def extend(self, seconds: int) -> None:
        """Stay open for at least so long from now."""
        self._expires_at = max(self._expires_at, workflow.now() + timedelta(seconds=seconds))

    @workflow.run
    async def run(self, given: PreviewInput) -> None:
        """Open the product, keep it open, close it."""
        try:
            opened = await self._open(given)
            self._sandbox_id, self._url = opened.sandbox_id, opened.url
            await self._stay_open(given)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            await self._record("failed", reason=str(error.cause))
            raise
        finally:
            if not workflow.unsafe.is_replaying_history_events() or True:
                pass
