"""Sums up a long conversation, so that the next turn begins a new prefix that is short.

The request is that of an earlier turn, byte for byte from its system prompt on, so that the cache has nearly all of it.
The model's signed summary takes the place of what that turn sent; the turns since then follow it as they were.

A step that may fail: without a summary the conversation goes on as it is, and `activities/turn/floor.py` sees to it
that it never stops a build.
"""

import asyncio
import uuid
from dataclasses import dataclass
from time import monotonic

import structlog
from temporalio import activity

from activities.runtime.attempt import attempt_day
from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.runtime.outlive import LOOK_SECONDS, LOST_AFTER_SECONDS, keep_call, outlive_run
from activities.turn.budget import CallBudget
from activities.turn.conversation import ConversationLoader, ImageSource
from activities.turn.rates import Admission, CallRates
from activities.turn.usage import CallUsage
from clients.cancellation import run_to_completion
from clients.model.protocol import BrokenStream, LostCall, ModelProvider, ModelRequest, Providers, RequestSettings
from db import compactions, money, prompts, turns
from db.buckets import load_caller
from db.compactions import OPENED, ClaimedCompaction
from db.feed import append_events
from db.session import Sessions
from db.transaction import Transaction, autocommit, transaction
from domain.answer import Answer, to_stored_text
from domain.answer_blocks import Block
from domain.bill import bill_of
from domain.budget import Verdict
from domain.compaction import SUMMARY_OUTPUT_TOKENS
from domain.errors import CallInFlight, CofounderError, NeedsPerson, RateLimited, StaleClaim
from domain.events import CompactedEvent
from domain.payloads import CompactConversation, CompactResult
from domain.pricing import PriceTable, Tokens
from domain.summary import INSTRUCTIONS
from domain.text import storable

_log = structlog.get_logger(__name__)

_LONG = (
    "The agent's conversation had become long, so the model has summed it up: a shorter one costs less and leaves room "
    "for the rest of the work."
)
_BEFORE_SLEEP = (
    "Today's budget is running low, so the model has summed up the agent's conversation while that is cheap. The work "
    "goes on from the summary."
)

_RATE_PATIENCE_SECONDS = 300.0
"""If the model's API takes no call for this long, the conversation goes on as it is."""

_NO_MONEY = "no_money"
_REFUSED = "request_refused"
_NO_SUMMARY = "no_summary"
_SUPERSEDED = "superseded"
"""Outcomes without a summary, in addition to the stop reasons of the API."""


@dataclass(frozen=True)
class _Reserved:
    """A compaction whose call may be made."""

    call: money.Call
    claimed: ClaimedCompaction
    tokens_before: int


class CompactActivities:
    """`compact`, with its clients."""

    def __init__(
        self,
        sessions: Sessions,
        providers: Providers,
        images: ImageSource,
        prices: PriceTable,
        *,
        autonomous_agent: bool = True,
        rates: CallRates | None = None,
    ) -> None:
        self._sessions = sessions
        self._rates = rates or CallRates(sessions)
        self._providers = providers
        self._budget = CallBudget(prices, SUMMARY_OUTPUT_TOKENS, autonomous_agent)
        self._images = images

    @activity.defn
    @application_errors
    async def compact(self, request: CompactConversation) -> CompactResult:
        """Sum up the conversation up to a few turns ago, unless that was done before.

        Returns:
            Whether a prefix was opened. It is not if the money does not suffice, or if the model wrote no summary.

        Raises:
            ModelCallFailed: another attempt may succeed.
        """
        began = monotonic()
        async with heartbeating():
            while True:
                try:
                    return await self._sum_up_when_admitted(request, waits=monotonic() - began < LOST_AFTER_SECONDS)
                except CallInFlight:
                    await asyncio.sleep(LOOK_SECONDS)

    async def _sum_up_when_admitted(self, request: CompactConversation, *, waits: bool) -> CompactResult:
        admission, model = await self._admit(request)
        if admission is None:
            return CompactResult.sparse()
        try:
            return await self._sum_up(request, admission, waits=waits)
        except RateLimited as error:
            await self._rates.note_refusal(model, error)
            raise
        except LostCall:
            admission.count()
            raise
        finally:
            admission.close()

    async def _admit(self, request: CompactConversation) -> tuple[Admission | None, str]:
        """Wait until the model's API takes the call; returns the model, too."""
        build_id = uuid.UUID(request.build_id)
        async with autocommit(self._sessions) as tx:
            caller = await load_caller(tx, build_id, request.turn + 1)
            size = await money.prompt_size(tx, build_id, request.turn)
        tokens = max(1, size.likely - size.cached)
        return await self._rates.admit(caller.model, caller.user_id, tokens, _RATE_PATIENCE_SECONDS), caller.model

    async def _sum_up(self, request: CompactConversation, admission: Admission, *, waits: bool) -> CompactResult:
        async with transaction(self._sessions) as tx:
            reserved = await self._reserve(tx, request, waits=waits)
        if isinstance(reserved, CompactResult):
            return reserved
        claim = reserved.call.claim
        return await outlive_run(
            self._call_and_store(request, reserved, admission), lambda: keep_call(self._sessions, claim)
        )

    async def _call_and_store(
        self, request: CompactConversation, reserved: _Reserved, admission: Admission
    ) -> CompactResult:
        called = await self._call(reserved, admission)
        if called is None:
            return CompactResult.sparse()
        result = await self._store(reserved, *called, _BEFORE_SLEEP if request.winds_down else _LONG)
        await crash_point("compact.stored")
        return result

    async def _reserve(
        self, tx: Transaction, request: CompactConversation, *, waits: bool
    ) -> _Reserved | CompactResult:
        """Take the compaction and reserve its money; or say how it has ended."""
        build_id, claim, info = uuid.UUID(request.build_id), uuid.uuid4(), activity.info()
        start = await turns.load_turn_start(tx, build_id, request.turn + 1, attempt_day())
        if self._budget.is_on_hold(start.standing):
            return CompactResult.sparse()
        run_id = info.workflow_run_id or ""
        claimed = await compactions.claim_compaction(
            tx, build_id, request.turn, run_id, claim, waits=waits, lost_after=LOST_AFTER_SECONDS
        )
        if claimed is None or claimed.outcome is not None:
            return CompactResult.sparse(opened=claimed is not None and claimed.outcome == OPENED)
        day = attempt_day()
        call = money.Call(
            claim, build_id, start.user_id, claimed.covers, day, start.model, prefix=claimed.base, kind="compaction"
        )
        before = await money.prompt_size(tx, build_id, request.turn)
        fallbacks = await prompts.fallbacks_of(tx, build_id)
        permission = await self._budget.reserve_summary(
            tx, call, claimed.lost, fallbacks, fleet_is_limited=start.fleet_is_limited
        )
        if permission.verdict is not Verdict.GO:
            await compactions.store_outcome(tx, build_id, claimed.prefix, claim, _NO_MONEY, before.counted)
            return CompactResult.sparse()
        return _Reserved(call, claimed, before.counted)

    # ---- the call

    async def _call(self, reserved: _Reserved, admission: Admission) -> tuple[Answer, str] | None:
        """Make the call, and settle it if it fails.

        Returns:
            The answer, and the betas of a prefix that begins with it. None if no other attempt would succeed; that is
            the outcome, and it is stored.
        """
        call, usage = reserved.call, CallUsage()
        try:
            provider, rendered = await self._render(call)
        except BaseException:
            await run_to_completion(self._release(call))
            raise
        try:
            await crash_point("compact.before_call")
            note_usage = admission.noting(usage.note)
            answer = await provider.stream(rendered, usage.ignore_text, note_usage, admission.note_limits)
            await crash_point("compact.after_call")
            return answer, rendered.betas
        except (BrokenStream, LostCall):
            await self._settle_usage(call, usage)
            raise
        except asyncio.CancelledError:
            await run_to_completion(self._settle_usage(call, usage))
            raise
        except CofounderError as error:
            await (self._settle_usage(call, usage) if usage.has_begun else self._release(call))
            if not isinstance(error, NeedsPerson):
                raise
            _log.warning("a conversation could not be summed up", build_id=str(call.build_id), error=error)
            # The next turn meets whatever is wrong with the account, too, and asks for help.
            async with transaction(self._sessions) as tx:
                await self._store_outcome(tx, reserved, _REFUSED)
            return None

    async def _render(self, call: money.Call) -> tuple[ModelProvider, ModelRequest]:
        """The request of the turn `covers` with what asks for a summary, and the provider of its model."""
        settings = RequestSettings(call.model, SUMMARY_OUTPUT_TOKENS, prompt_cache=True, summarize=INSTRUCTIONS)
        provider = self._providers[self._budget.price(call.model).provider]
        # Rare, and soon of no more use: what it loads is not kept.
        conversation = await ConversationLoader(self._sessions, self._images).load(call)
        return provider, provider.render(settings, conversation)

    # ---- its answer

    async def _store(self, reserved: _Reserved, answer: Answer, betas: str, reason: str) -> CompactResult:
        """Store the outcome, the new prefix, the cost and the event in one transaction."""
        call, claimed = reserved.call, reserved.claimed
        summary = _summary_of(answer)
        outcome = storable(answer.stop_reason or "none", 100) if summary is not None else _without(answer)
        try:
            async with transaction(self._sessions) as tx:
                if summary is not None and not await prompts.open_prefix(
                    tx,
                    call.build_id,
                    claimed.base,
                    claimed.prefix,
                    covers=claimed.covers,
                    opening=f'{{"role":"assistant","content":{to_stored_text([summary])}}}',
                    betas=betas,
                ):
                    summary, outcome = None, _SUPERSEDED
                await self._store_outcome(tx, reserved, outcome)
                await self._budget.settle(tx, call, answer, bill_of(answer))
                if summary is not None:
                    event = CompactedEvent(
                        reason=reason, tokens_before=reserved.tokens_before, summary=storable(str(summary["content"]))
                    )
                    await append_events(tx, call.build_id, [event])
        except StaleClaim:
            # Another attempt has the compaction, but the server has served this call and bills it.
            async with transaction(self._sessions) as tx:
                await self._budget.settle(tx, call, answer, bill_of(answer))
            raise
        return CompactResult.sparse(opened=summary is not None)

    async def _store_outcome(self, tx: Transaction, reserved: _Reserved, outcome: str) -> None:
        call = reserved.call
        await compactions.store_outcome(
            tx, call.build_id, reserved.claimed.prefix, call.claim, outcome, reserved.tokens_before
        )

    # ---- its cost

    async def _settle_usage(self, call: money.Call, usage: CallUsage) -> None:
        """A compaction reports its usage at its end; before that its cost is unknown."""
        async with transaction(self._sessions) as tx:
            if usage.tokens == Tokens():
                await money.estimate(tx, call.claim)
            else:
                await self._budget.settle_partly(tx, call, usage.tokens, usage.request_id, usage.iterations)

    async def _release(self, call: money.Call) -> None:
        async with transaction(self._sessions) as tx:
            await money.release(tx, call)


def _summary_of(answer: Answer) -> Block | None:
    """The block that stands for what was summed up, if the answer has one."""
    if answer.stop_reason != OPENED or len(answer.blocks) != 1:
        return None
    block = answer.blocks[0]
    return block if block.get("type") == "compaction" and block.get("content") else None


def _without(answer: Answer) -> str:
    """The outcome of an answer without a summary."""
    reason = answer.stop_reason or "none"
    return _NO_SUMMARY if reason == OPENED else storable(reason, 100)
