"""A ready build's preview: keeps the product running for a while, longer on request, then releases the sandbox."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.preview import PreviewActivities
    from domain.names import EXTEND, PERMIT, PREVIEW_WORKFLOW, RECLAIM, UPGRADE
    from domain.outage import PREVIEW_NOT_OPENED_IN_TIME, PREVIEW_WAITS, wait_before_retry
    from domain.payloads import ClaimPermit, OpenedPreview, PermitClaim, PreviewChange, PreviewInput, SandboxInput
    from domain.permits import PREVIEW_CLOSED, PREVIEW_NOT_OPENED, time_to_next_check
    from domain.status import Dependency

from workflows import patches, policies
from workflows.failures import end_if_cancelled, missing_permit, outage_of, reason_of, shielded
from workflows.permits import claim_permit
from workflows.upgrade import continue_as_new, is_upgrade_due

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
        self._expires_at = request.open_until or workflow.now() + timedelta(seconds=request.seconds)
        self._announced_until = request.open_until
        self._permit_free = False
        self._reclaimed = False
        self._extended = False
        """Extended since it was told to close for a build."""
        self._outage_since: datetime | None = None
        self._waits = 0
        """How often it has waited in this outage."""
        self._upgrade = False

    @workflow.signal(name=EXTEND)
    def extend(self, seconds: int) -> None:
        """Stay open for at least this many seconds from now."""
        self._extended = True
        self._expires_at = max(self._expires_at, workflow.now() + timedelta(seconds=seconds))

    @workflow.signal(name=PERMIT)
    def permit(self) -> None:
        """Check whether a permit to have the sandbox running is free."""
        self._permit_free = True

    @workflow.signal(name=RECLAIM)
    def reclaim(self) -> None:
        """Close: a build waits for the permit, or the founder wants the product started again. If the founder extends
        the preview from now on, it opens again."""
        if not self._reclaimed:  # the signal is repeated until it has closed
            self._reclaimed, self._extended = True, False

    @workflow.signal(name=UPGRADE)
    def upgrade(self) -> None:
        """Move to the version that the workers are to have, once it is open. The product runs on meanwhile."""
        self._upgrade = True

    @workflow.run
    async def run(self, request: PreviewInput) -> None:
        """Open the product, keep it open, close it."""
        was_open = request.open_until is not None
        while True:
            try:
                is_open = was_open or await self._open()
                if is_open:
                    await self._stay_open()
            except (asyncio.CancelledError, FailureError) as error:
                await shielded(self._close(error))
                raise
            await shielded(self._close(None, self._why_closed(is_open)))
            if workflow.now() >= self._expires_at or (self._reclaimed and not self._extended):
                return
            self._reclaimed = False
            # Extended while it closed: the founder has been promised that it stays open.
            was_open = False
            self._request = request.model_copy(update={"sandbox_id": None, "url": None, "open_until": None})
            self._sandbox_id, self._announced_until = None, None

    async def _open(self) -> bool:
        """Take over the gate's sandbox, or start the product again from the ready build's snapshot.

        Returns:
            False if no permit became free, or an outage did not end, within the time that it was to be open.
        """
        await self._record("opening")
        refusals = 0
        while not isinstance(opened := await self._open_once(), OpenedPreview):
            if isinstance(opened, Dependency):
                can_open = await self._wait_for_answer(opened)
            else:
                refusals = refusals + 1 if opened.refused else 0
                can_open = await self._wait_for_permit(opened, refusals)
            if not can_open:
                return False
            self._expires_at = max(self._expires_at, workflow.now() + timedelta(seconds=self._request.seconds))
        self._outage_since, self._waits = None, 0
        self._sandbox_id, self._url = opened.sandbox_id, opened.url
        return True

    async def _open_once(self) -> OpenedPreview | PermitClaim | Dependency:
        """Open it; or return why there is no permit for its sandbox, or what does not answer."""
        try:
            return await workflow.execute_activity_method(
                PreviewActivities.open_preview, self._request, **policies.GATE, summary="open the product"
            )
        except ActivityError as error:
            end_if_cancelled()
            if (claim := missing_permit(error)) is not None:
                return claim
            if (dependency := outage_of(error)) is None or not workflow.patched(patches.PREVIEW_WAITS.id):
                raise
            return dependency

    async def _wait_for_answer(self, dependency: Dependency) -> bool:
        """Wait before the next attempt. Returns False if the time that it was to be open is over, or a build comes
        first."""
        now = workflow.now()
        if self._outage_since is None:
            self._outage_since = now
            await self._record("opening", reason=PREVIEW_WAITS)
        moment = wait_before_retry(self._waits, now - self._outage_since, workflow.random().random())
        self._waits += 1
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._reclaimed,
                timeout=min(moment, self._expires_at - now),
                timeout_summary=f"waiting for the {dependency}",
            )
        end_if_cancelled()
        return not self._reclaimed and workflow.now() < self._expires_at

    def _why_closed(self, was_open: bool) -> str | None:
        """What the founder reads; None if its time was over."""
        if self._reclaimed and self._extended:
            return None  # it opens again at once
        if self._reclaimed:
            return PREVIEW_CLOSED if was_open or self._outage_since is not None else PREVIEW_NOT_OPENED
        if was_open:
            return None
        return PREVIEW_NOT_OPENED if self._outage_since is None else PREVIEW_NOT_OPENED_IN_TIME

    async def _wait_for_permit(self, claim: PermitClaim, refusals: int) -> bool:
        """Wait for a permit, while builds come first. Returns False if the time that it was to be open is over."""
        shown = None
        while not claim.held and workflow.now() < self._expires_at:
            if claim.reason != shown:
                shown = claim.reason
                await self._record("opening", reason=shown)
            moment = min(time_to_next_check(refusals, workflow.random().random()), self._expires_at - workflow.now())
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._permit_free, timeout=moment, timeout_summary="waiting for a free sandbox"
                )
            self._permit_free = False
            end_if_cancelled()
            claim = await claim_permit(ClaimPermit(build_id=self._request.build_id, role="preview"))
        return claim.held

    async def _stay_open(self) -> None:
        """Keep the preview open until its time is over; an extension moves the end and the sandbox's time to live."""
        while workflow.now() < self._expires_at and not self._reclaimed:
            if not self._is_announced():
                self._announced_until = self._expires_at
                await self._record("open")
            if workflow.cancellation_reason() is not None and workflow.patched(patches.CHECKS_FOR_CANCEL.id):
                raise asyncio.CancelledError  # the last step ended as if there were no cancel
            if self._moves():
                self._continue_as_new()
            wait = min(self._expires_at - workflow.now(), _KEEP_EVERY)
            try:
                await workflow.wait_condition(
                    lambda: not self._is_announced() or self._reclaimed or self._moves(),
                    timeout=wait,
                    timeout_summary="the preview stays open",
                )
            except TimeoutError:
                if workflow.now() < self._expires_at:
                    await self._keep()

    def _moves(self) -> bool:
        """Whether it was asked to move to another version of the workers, there is one, and nothing else is to be done
        first: a run does not learn what the one before it was told last."""
        return self._upgrade and is_upgrade_due() and self._is_announced() and not self._reclaimed

    def _continue_as_new(self) -> NoReturn:
        """Stay open in a new run, until the same time."""
        end_if_cancelled()
        changes = {"seq": self._seq, "sandbox_id": self._sandbox_id, "url": self._url, "open_until": self._expires_at}
        continue_as_new(self._request.model_copy(update=changes))

    async def _keep(self) -> None:
        """Extend the sandbox's time to live. While the sandbox service is away, the next time has to do."""
        try:
            await workflow.execute_activity_method(
                PreviewActivities.keep_preview, self._sandbox(), **policies.SANDBOX, summary="keep it running"
            )
        except ActivityError as error:
            if outage_of(error) is None or not workflow.patched(patches.OUTAGES.id):
                raise
            workflow.logger.warning("the preview was not extended", extra={"error": error})

    async def _close(self, error: BaseException | None, reason: str | None = None) -> None:
        await workflow.execute_activity_method(
            PreviewActivities.close_preview, self._sandbox(), **policies.RELEASE, summary="release the sandbox"
        )
        if error is None or is_cancelled_exception(error):
            await self._record("closed", reason=reason)
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
