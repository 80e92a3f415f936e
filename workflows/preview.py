"""A ready build's preview: keeps the product running for a while, longer on request, then releases the sandbox."""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.preview import PreviewActivities
    from domain.names import EXTEND, PREVIEW_WORKFLOW
    from domain.payloads import PreviewChange, PreviewInput, SandboxInput

from workflows import patches, policies
from workflows.failures import reason_of, shielded

_KEEP_EVERY = timedelta(minutes=10)
"""How often the sandbox's time to live is extended; well below it, so that it never expires by surprise."""


@workflow.defn(name=PREVIEW_WORKFLOW)
class PreviewWorkflow:
    """One preview, from its start to its end."""

    @workflow.init
    def __init__(self, request: PreviewInput) -> None:
        self._request = request
        self._seq = request.seq
        self._sandbox_id = request.sandbox_id
        self._url = request.url
        self._expires_at = workflow.now() + timedelta(seconds=request.seconds)
        self._announced_until: datetime | None = None

    @workflow.signal(name=EXTEND)
    def extend(self, seconds: int) -> None:
        """Stay open for at least this many seconds from now."""
        self._expires_at = max(self._expires_at, workflow.now() + timedelta(seconds=seconds))

    @workflow.run
    async def run(self, request: PreviewInput) -> None:
        """Open the product, keep it open, close it."""
        while True:
            try:
                await self._open()
                await self._stay_open()
            except (asyncio.CancelledError, FailureError) as error:
                await shielded(self._close(error))
                raise
            await shielded(self._close(None))
            if workflow.now() >= self._expires_at:
                return
            # Extended while it closed: the founder has been promised that it stays open.
            self._request = request.model_copy(update={"sandbox_id": None, "url": None})
            self._sandbox_id, self._announced_until = None, None

    async def _open(self) -> None:
        """Take over the gate's sandbox, or start the product again from the ready build's snapshot."""
        await self._record("opening")
        opened = await workflow.execute_activity_method(
            PreviewActivities.open_preview, self._request, **policies.GATE, summary="open the product"
        )
        self._sandbox_id, self._url = opened.sandbox_id, opened.url

    async def _stay_open(self) -> None:
        """Keep the preview open until its time is over; an extension moves the end and the sandbox's time to live."""
        while workflow.now() < self._expires_at:
            if not self._is_announced():
                self._announced_until = self._expires_at
                await self._record("open")
            if workflow.cancellation_reason() is not None and workflow.patched(patches.CHECKS_FOR_CANCEL.id):
                raise asyncio.CancelledError  # the last step ended as if there were no cancel
            wait = min(self._expires_at - workflow.now(), _KEEP_EVERY)
            try:
                await workflow.wait_condition(
                    lambda: not self._is_announced(), timeout=wait, timeout_summary="the preview stays open"
                )
            except TimeoutError:
                if workflow.now() < self._expires_at:
                    await workflow.execute_activity_method(
                        PreviewActivities.keep_preview, self._sandbox(), **policies.SANDBOX, summary="keep it running"
                    )

    async def _close(self, error: BaseException | None) -> None:
        await workflow.execute_activity_method(
            PreviewActivities.close_preview, self._sandbox(), **policies.RELEASE, summary="release the sandbox"
        )
        if error is None or is_cancelled_exception(error):
            await self._record("closed")
        else:
            await self._record("failed", reason=reason_of(error))

    def _is_announced(self) -> bool:
        return self._announced_until == self._expires_at

    def _sandbox(self) -> SandboxInput:
        return SandboxInput(build_id=self._request.build_id, sandbox_id=self._sandbox_id or "")

    async def _record(self, state: str, reason: str | None = None) -> None:
        """Project the state to the previews row and the UI."""
        self._seq += 1
        is_open = state == "open"
        change = PreviewChange.sparse(
            build_id=self._request.build_id,
            seq=self._seq,
            state=state,
            sandbox_id=self._sandbox_id if is_open else None,
            url=self._url if is_open else None,
            expires_at=self._expires_at if is_open else None,
            reason=reason or None,
        )
        if is_open:
            workflow.set_current_details(f"{self._url}\n\nCloses at {self._expires_at:%Y-%m-%d %H:%M} UTC.")
        else:
            workflow.set_current_details(f"**{state}** {reason or ''}")
        await workflow.execute_activity_method(
            PreviewActivities.record_preview, change, **policies.DATABASE, summary=state
        )
