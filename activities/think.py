"""One turn's model call: made once, stored whole and paid for, with its text in the feed as it arrives.

`activities/turn/` has the parts: the user message, the budget, the conversation and the narrator.
"""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from time import monotonic

import structlog
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError
from temporalio import activity

from activities.runtime.attempt import attempt_day
from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.runtime.outlive import LOOK_SECONDS, LOST_AFTER_SECONDS, keep_call, outlive_run
from activities.turn.budget import CallBlocked, CallBudget, LookAhead, budget_fields
from activities.turn.conversation import ConversationLoader, ImageSource
from activities.turn.floor import DECLINED, NOT_ACCEPTED, TOO_DEAR, TOO_LONG, open_floor
from activities.turn.narrator import Narrator
from activities.turn.rates import Admission, CallRates
from activities.turn.user_message import compose_user_message, note_events, store_user_message
from clients.cancellation import run_to_completion
from clients.model.protocol import BrokenStream, LostCall, ModelProvider, ModelRequest, Providers, RequestSettings
from db import limits, money, prompts, steering, turns
from db.buckets import Caller, load_caller
from db.feed import append_events
from db.session import Sessions
from db.transaction import Transaction, autocommit, transaction
from domain.answer import (
    REFUSAL,
    WINDOW_EXCEEDED,
    Answer,
    Reading,
    is_silent,
    read_answer,
    read_refusal,
    unstorable,
)
from domain.bill import Bill, bill_of
from domain.budget import BudgetState, Permission
from domain.compaction import LEAST_TOKENS, MOST_BYTES
from domain.errors import (
    CallInFlight,
    CofounderError,
    ConversationRefused,
    ConversationTooLong,
    ModelCallFailed,
    RateLimited,
    StaleClaim,
)
from domain.events import (
    BudgetEvent,
    BudgetFields,
    BuildEvent,
    GuardEvent,
    MessagesReadEvent,
    TurnAnsweredEvent,
    TurnFailedEvent,
    TurnStartedEvent,
    TurnWithdrawnEvent,
)
from domain.limits import FLEET_LIMIT_REACHED, LimitName
from domain.notes import TurnNote
from domain.payloads import BudgetCheck, CheckBudget, ThinkInput, ThinkOutcome, ThinkResult
from domain.pricing import Iteration, PriceTable, Tokens
from domain.refusals import REFUSALS_IN_A_ROW, refusal_notice
from domain.sent_tools import SentTools, tools_of
from domain.text import storable
from domain.tool_output import parse_stored_blocks
from domain.tools import tool_of

_ERROR_CHARACTERS = 500
"""The feed shows at most this much of an error."""

_CALLERS_KEPT = 10_000
"""Builds of which a worker knows who made the last turn."""

_AT_THE_CEILING = "The next model call could have passed 110 % of today's budget, so the agent did not make it."

_UNREADABLE_CALL = (
    "The model's answer had a tool call that is not readable, so nothing of it was run. The answer is paid for; "
    "Cofounder asks the model once more."
)

_NOT_STORED = (
    "The model's last answer could not be stored, so nothing of it was run. It is paid for; Cofounder asked the agent "
    "to look at the workspace and go on."
)

_CANNOT_BE_STORED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    DataError,
    IntegrityError,
    ProgrammingError,
)
"""Errors that an answer of an unknown shape raises when it is read or stored. They would come again."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ReservedTurn:
    """A turn whose call may be made."""

    call: money.Call
    """With the prefix that it was given last."""
    max_tokens: int
    """The most output that its money pays for."""
    message_read: int
    """The number of the founder's last message in its user message; 0 if there is none."""


@dataclass
class _Attempt:
    """An attempt at a turn. `began`: on the monotonic clock. `unused`: its paid answers that could not be used."""

    began: float
    unused: int = 0


class ThinkActivities:
    """`think` and `check_budget`, with their clients. `secrets` are values that no prompt may hold."""

    def __init__(
        self,
        sessions: Sessions,
        providers: Providers,
        images: ImageSource,
        prices: PriceTable,
        max_output_tokens: int,
        *,
        autonomous_agent: bool = True,
        sandbox_hours_per_day: float = 24,
        secrets: Sequence[str] = (),
        rates: CallRates | None = None,
    ) -> None:
        self._sessions = sessions
        self._rates = rates or CallRates(sessions)
        self._providers = providers
        self._budget = CallBudget(prices, max_output_tokens, autonomous_agent, sandbox_hours_per_day)
        self._conversations = ConversationLoader(sessions, images)
        self._secrets = secrets
        self._callers: OrderedDict[uuid.UUID, Caller] = OrderedDict()
        """Who made the last turn of each build, the latest last. The next one waits for the limits of this model; its
        call is made as the rows say."""

    @activity.defn
    @application_errors
    async def think(self, request: ThinkInput) -> ThinkResult:
        """Ask the model for a turn, unless it has answered before.

        Returns:
            How the turn ended. With BUDGET, BUSY, TOO_SMALL and ON_HOLD no call was made and nothing is stored. BUSY
            with `wait_seconds`: the model's API took no call for a minute.

        Raises:
            RowsMoved: the turn does not follow the build's last one.
            ModelCallFailed, NeedsPerson: see `clients/model/protocol.py`.
        """
        result: ThinkResult | None = None
        attempt = _Attempt(monotonic())
        async with heartbeating():
            while result is None:
                result = await self._ask_when_admitted(request, attempt)
        return result.model_copy(update={"unused": attempt.unused}) if attempt.unused else result

    async def _ask_when_admitted(self, request: ThinkInput, attempt: "_Attempt") -> ThinkResult | None:
        """Make one call for the turn as soon as the model's API takes it. None if the turn has to be tried again."""
        deadline = attempt.began + self._rates.patience
        admission, model = await self._admit(request, deadline)
        if admission is None:
            return ThinkResult.sparse(outcome=ThinkOutcome.BUSY, wait_seconds=self._rates.seconds_to_wait(model))
        try:
            return await self._ask(request, admission, attempt)
        except RateLimited as error:
            await self._rates.note_refusal(model, error)
            return None
        except CallInFlight:
            await asyncio.sleep(LOOK_SECONDS)
            return None
        except LostCall:
            admission.count()
            raise
        finally:
            admission.close()

    async def _admit(self, request: ThinkInput, deadline: float) -> tuple[Admission | None, str]:
        """Wait until the model's API takes the turn's call; returns the model, too."""
        build_id, turn = uuid.UUID(request.build_id), request.turn
        # A later attempt may find that an earlier one has stored the answer, which it need not wait for.
        caller, tokens = self._callers.get(build_id) if activity.info().attempt == 1 else None, 0
        if caller is None or self._rates.is_limited(caller.model):
            async with autocommit(self._sessions) as tx:
                caller = await load_caller(tx, build_id, turn)
                if caller.is_answered:
                    return Admission.of_no_call(), caller.model
                if self._rates.is_limited(caller.model):
                    size = await money.prompt_size(tx, build_id, turn)
                    tokens = max(1, size.likely - size.cached)
        patience = deadline - monotonic()
        return await self._rates.admit(caller.model, caller.user_id, tokens, patience), caller.model

    def _note_caller(self, build_id: uuid.UUID, caller: Caller) -> None:
        self._callers[build_id] = caller
        self._callers.move_to_end(build_id)
        if len(self._callers) > _CALLERS_KEPT:
            self._callers.popitem(last=False)

    async def _ask(self, request: ThinkInput, admission: Admission, attempt: "_Attempt") -> ThinkResult | None:
        """Make one call for the turn. None if the conversation can't be sent: the turn begins with a floor now.

        Raises:
            CallInFlight: an attempt whose run is gone may still be making the call. One that does not say so may not
                have learned yet that its run is gone, so this is waited for, but not for ever.
        """
        build_id, claim, info = uuid.UUID(request.build_id), uuid.uuid4(), activity.info()
        try:
            async with transaction(self._sessions) as tx:
                start, turn = await turns.claim_turn(
                    tx,
                    build_id,
                    request.turn,
                    attempt_day(),
                    run_id=info.workflow_run_id or "",
                    claim=claim,
                    counters=request.counters.model_dump(mode="json", by_alias=True, exclude_unset=True) or None,
                    waits=monotonic() - attempt.began < LOST_AFTER_SECONDS,
                    lost_after=LOST_AFTER_SECONDS,
                )
                self._note_caller(build_id, Caller(start.user_id, start.model, is_answered=False))
                if turn.is_held:
                    raise CallInFlight(f"an attempt of another run is making the call of turn {request.turn}")
                day, prefix = attempt_day(), turn.prefix
                call = money.Call(claim, build_id, start.user_id, request.turn, day, start.model, prefix)
                if turn.outcome is not None:
                    return _with_settings(await self._stored_result(tx, call, turn.outcome), start)
                reserved = await self._reserve_turn(tx, request, call, start, turn, info.attempt)
        except CallBlocked as blocked:
            if blocked.result.reason == FLEET_LIMIT_REACHED:
                await self._alert_operators(build_id)
            elif blocked.state is None:
                return blocked.result
            elif blocked.result.outcome is ThinkOutcome.BUDGET:
                await self._alert(build_id, request.turn, blocked.state)
            return blocked.result
        result = await outlive_run(
            self._call_and_store(reserved, admission, attempt), lambda: keep_call(self._sessions, call.claim)
        )
        return result and _with_settings(result, start)

    async def _call_and_store(
        self, reserved: ReservedTurn, admission: Admission, attempt: "_Attempt"
    ) -> ThinkResult | None:
        call = reserved.call
        try:
            answer, narrator, tools = await self._call(call, reserved.max_tokens, admission)
        except ConversationRefused as error:
            reason = TOO_LONG if isinstance(error, ConversationTooLong) else NOT_ACCEPTED
            if await self._begin_again(call, reason):
                return None
            await self._report(call, error)
            raise
        if answer.stop_reason == WINDOW_EXCEEDED and await self._begin_again(call, TOO_LONG, answer):
            attempt.unused += 1
            return None
        return await self._store(call, answer, tools, narrator, reserved.message_read)

    @activity.defn
    @application_errors
    async def check_budget(self, request: CheckBudget) -> BudgetCheck:
        """Whether the build may continue. Checked first, to avoid opening or waking a sandbox in vain."""
        day = attempt_day()
        async with transaction(self._sessions) as tx:
            return await self._budget.check(tx, request, day)

    # ---- before the call

    async def _stored_result(self, tx: Transaction, call: money.Call, outcome: str) -> ThinkResult:
        """The result of a turn that an earlier attempt has stored the answer of."""
        if outcome == REFUSAL:
            reading, blocks = read_refusal(await turns.stored_refusal(tx, call.build_id, call.turn)), []
        else:
            blocks = parse_stored_blocks(await turns.stored_answer(tx, call.build_id, call.turn))
            tools = tools_of(await prompts.changed_tools(tx, call.build_id, call.prefix))
            reading = read_answer(Answer(blocks, outcome, Tokens(), None), tools=tools)
        state = await money.budget_of(tx, call.user_id, call.day)
        ahead = await self._budget.look_ahead(tx, call, state, reading.names)
        message_read = await steering.last_message_read(tx, call.build_id, call.turn)
        silent = is_silent(blocks, updates=self._budget.price(call.model).progress_updates)
        return _result(reading, call.day, state, ahead, message_read=message_read, silent=silent)

    async def _reserve_turn(
        self,
        tx: Transaction,
        request: ThinkInput,
        call: money.Call,
        start: turns.TurnStart,
        turn: turns.ClaimedTurn,
        attempt: int,
    ) -> ReservedTurn:
        """Store the turn's user message, reserve its money and tell the feed that it starts.

        Raises:
            CallBlocked: no call may be made; the transaction has to be rolled back.
        """
        self._budget.require_no_hold(start.standing)
        self._budget.require_sandbox_time(start.sandbox_seconds, call.day)
        lost = turn.lost
        message = await compose_user_message(tx, request, start, self._secrets, system_notices=turn.system_notices)
        if lost is None:
            numbers = message.message_numbers
            message_read = await store_user_message(tx, call.build_id, call.turn, message)
        else:
            # An earlier attempt has stored the message of this turn. What is unread now waits for the next turn.
            numbers = []
            message_read = await steering.last_message_read(tx, call.build_id, call.turn)
        # The build was told of messages that were taken back: it need not wait for a turn that reads them.
        message_read = max(message_read, start.last_withdrawn)
        call, permission, state = await self._reserve_money(tx, request, call, start, turn)
        events: list[BuildEvent] = [] if lost is None else [TurnWithdrawnEvent(claim=str(lost))]
        events.append(TurnStartedEvent(attempt=attempt))
        events += note_events(request.notes, budget_fields(state))
        if numbers:
            events.append(MessagesReadEvent(numbers=numbers))
        await append_events(tx, call.build_id, events, turn=call.turn)
        return ReservedTurn(call, permission.max_tokens, message_read)

    async def _reserve_money(
        self,
        tx: Transaction,
        request: ThinkInput,
        call: money.Call,
        start: turns.TurnStart,
        turn: turns.ClaimedTurn,
    ) -> tuple[money.Call, Permission, BudgetState]:
        """Reserve the turn's money. If its conversation is too long, or too dear, let it begin with a floor.

        Returns:
            The call with the turn's prefix, how much it may say, and the budget before it.
        """
        limited = start.fleet_is_limited
        size = await money.prompt_size(tx, call.build_id, call.turn)
        reason = await self._budget.floor_reason(tx, call, size, asleep=TurnNote.HANDOFF in request.notes)
        if request.refusals == REFUSALS_IN_A_ROW - 1:
            reason = DECLINED  # the last turn before the founder is asked: without what was declined
        if reason is not None:
            call, size = await self._on_floor(tx, call, size, reason)
        try:
            return call, *await self._budget.reserve(
                tx, call, size, turn.lost, turn.fallbacks, fleet_is_limited=limited
            )
        except CallBlocked as blocked:
            if blocked.result.outcome is not ThinkOutcome.TOO_SMALL or size.likely < LEAST_TOKENS:
                raise
            call, size = await self._on_floor(tx, call, size, TOO_DEAR)
            return call, *await self._budget.reserve(
                tx, call, size, turn.lost, turn.fallbacks, fleet_is_limited=limited
            )

    async def _on_floor(
        self, tx: Transaction, call: money.Call, size: money.PromptSize, reason: str
    ) -> tuple[money.Call, money.PromptSize]:
        prefix = await open_floor(tx, call, reason, size.counted, self._secrets)
        if prefix is None:
            return call, size
        return replace(call, prefix=prefix), await money.prompt_size(tx, call.build_id, call.turn)

    async def _begin_again(self, call: money.Call, reason: str, answer: Answer | None = None) -> bool:
        """Let the turn begin with a floor, and settle the answer that could not be used, if there was one.

        Returns:
            False if it began with one already.
        """
        try:
            async with transaction(self._sessions) as tx:
                size = await money.prompt_size(tx, call.build_id, call.turn)
                prefix = await open_floor(tx, call, reason, size.counted, self._secrets)
                if prefix is not None and answer is not None:
                    await self._budget.settle(tx, call, answer, bill_of(answer))
                return prefix is not None
        except StaleClaim:
            if answer is not None:
                async with transaction(self._sessions) as tx:
                    await self._budget.settle(tx, call, answer, bill_of(answer))
            raise

    async def _alert_operators(self, build_id: uuid.UUID) -> None:
        """Tell operators, once a day, that all builds together have used up their limit."""
        async with transaction(self._sessions) as tx:
            is_first = await limits.note_reached(tx, LimitName.FLEET_DAY, attempt_day())
        if is_first:
            _log.error("the fleet's daily limit is reached: builds sleep until tomorrow", build_id=str(build_id))

    async def _alert(self, build_id: uuid.UUID, turn: int, state: BudgetState | None) -> None:
        """Tell founder and operators that a call was not made because it could have passed the ceiling."""
        budget: BudgetFields = {} if state is None else budget_fields(state)
        _log.warning("a model call could have passed the day's ceiling", build_id=str(build_id), turn=turn, **budget)
        event = BudgetEvent(text=_AT_THE_CEILING, alert=True, **budget)
        async with transaction(self._sessions) as tx:
            await append_events(tx, build_id, [event], turn=turn)

    # ---- the call

    async def _call(
        self, call: money.Call, max_tokens: int, admission: Admission
    ) -> tuple[Answer, Narrator, SentTools]:
        """Make the call whose money is reserved. If it fails, settle what it cost as far as that is known.

        Returns:
            The answer, what has told of it, and the tools that the request named.
        """
        try:
            provider, rendered, tools = await self._render(call, max_tokens)
        except BaseException:
            await run_to_completion(self._release(call))
            raise
        narrator = Narrator(self._sessions, call)
        try:
            await crash_point("think.before_call")
            note_usage = admission.noting(narrator.note_usage)
            answer = await provider.stream(rendered, narrator.add_text, note_usage, admission.note_limits)
            await crash_point("think.after_call")
            return answer, narrator, tools
        except BrokenStream as error:
            # The server accepted the call. Without an event of its stream, its cost is unknown.
            has_usage = error.tokens != Tokens()
            seen = (error.tokens, error.request_id, error.iterations)
            await (self._settle(call, *seen) if has_usage else self._estimate(call))
            await self._report_failure(call, error, narrator)
            raise
        except LostCall as error:
            await self._estimate(call)
            await self._report_failure(call, error, narrator)
            raise
        except asyncio.CancelledError:
            # The server may bill the call even if it has not begun to answer: it does not stop because we hang up.
            await run_to_completion(self._settle_usage(call, narrator) if narrator.has_usage else self._estimate(call))
            raise
        except CofounderError as error:
            await (self._settle_usage(call, narrator) if narrator.has_usage else self._release(call))
            if not isinstance(error, ConversationRefused):  # the turn may begin again without the conversation
                await self._report_failure(call, error, narrator)
            raise

    async def _render(self, call: money.Call, max_tokens: int) -> tuple[ModelProvider, ModelRequest, SentTools]:
        """The provider of the call's model, the request, and the tools in it."""
        settings = RequestSettings(call.model, max_tokens, prompt_cache=True)
        provider = self._providers[self._budget.price(call.model).provider]
        conversation = await self._conversations.load(call)
        rendered = provider.render(settings, conversation)
        if len(rendered.body) > MOST_BYTES:
            raise ConversationTooLong(f"The request has {len(rendered.body)} bytes, of at most {MOST_BYTES}.")
        return provider, rendered, tools_of(conversation.tools.decode())

    async def _report_failure(self, call: money.Call, error: CofounderError, narrator: Narrator) -> None:
        """Say in the feed why a call failed, unless another attempt has taken the turn and speaks now."""
        if not narrator.is_stale:
            await self._report(call, error)

    async def _report(self, call: money.Call, error: CofounderError) -> None:
        event = TurnFailedEvent(error=storable(str(error), _ERROR_CHARACTERS))
        async with transaction(self._sessions) as tx:
            await append_events(tx, call.build_id, [event], turn=call.turn)

    # ---- its cost

    async def _settle_usage(self, call: money.Call, narrator: Narrator) -> None:
        await self._settle(call, narrator.tokens, narrator.request_id, narrator.iterations)

    async def _settle(
        self, call: money.Call, tokens: Tokens, request_id: str | None, iterations: tuple[Iteration, ...]
    ) -> None:
        if tokens == Tokens():
            return await self._estimate(call)  # the server accepted the call, and has not said what it bills
        async with transaction(self._sessions) as tx:
            await self._budget.settle_partly(tx, call, tokens, request_id, iterations)

    async def _estimate(self, call: money.Call) -> None:
        async with transaction(self._sessions) as tx:
            await money.estimate(tx, call.claim)

    async def _release(self, call: money.Call) -> None:
        async with transaction(self._sessions) as tx:
            await money.release(tx, call)

    # ---- its answer

    async def _store(
        self, call: money.Call, answer: Answer, tools: SentTools, narrator: Narrator, message_read: int
    ) -> ThinkResult:
        """Store the answer, its cost and its events in one transaction, if this attempt still holds the turn.

        It is paid for, so it is not asked for again: if it can't be stored, a turn without it is.

        Raises:
            ModelCallFailed: the input of a tool call can't be read. That alone is asked for again, once a turn.
        """
        if answer.unreadable and await self._ask_again(call, answer):
            raise ModelCallFailed(_UNREADABLE_CALL)
        try:
            try:
                return await self._store_reading(call, answer, tools, None, narrator, message_read)
            except _CANNOT_BE_STORED:
                _log.exception("an answer could not be stored", build_id=str(call.build_id), turn=call.turn)
            return await self._store_reading(call, answer, tools, unstorable(), narrator, message_read)
        except StaleClaim:
            # Another attempt has the turn, but the server has served this call and bills it.
            async with transaction(self._sessions) as tx:
                await self._budget.settle(tx, call, answer, bill_of(answer))
            raise

    async def _store_reading(
        self,
        call: money.Call,
        answer: Answer,
        tools: SentTools,
        instead: Reading | None,
        narrator: Narrator,
        message_read: int,
    ) -> ThinkResult:
        """Store the answer, or another reading in its place."""
        bill, used_ids = bill_of(answer), set[str]()
        reading = instead or read_answer(answer, call.turn, tools=tools)
        async with transaction(self._sessions) as tx:
            while used := await turns.store_answer(
                tx,
                build_id=call.build_id,
                number=call.turn,
                claim=call.claim,
                stop_reason=reading.stored_as,
                reading=reading,
            ):
                used_ids |= used
                reading = read_answer(answer, call.turn, used_ids, tools)
            state = await self._budget.settle(tx, call, answer, bill)
            ahead = await self._budget.look_ahead(tx, call, state, reading.names)
            events: list[BuildEvent] = [*narrator.last_events(), _answered_event(bill, reading, state)]
            if instead is not None:
                events.append(GuardEvent(text=_NOT_STORED))
            if reading.refusal is not None:
                events.append(GuardEvent(text=refusal_notice(reading.refusal)))
            await append_events(tx, call.build_id, events, turn=call.turn)
        await crash_point("think.committed")
        silent = not narrator.has_spoken
        return _result(reading, call.day, state, ahead, message_read=message_read, silent=silent)

    async def _ask_again(self, call: money.Call, answer: Answer) -> bool:
        """Settle an answer that can't be read, so that it is asked for again; False if that was done before."""
        async with transaction(self._sessions) as tx:
            if not await turns.count_unreadable(tx, call.build_id, call.turn, call.claim, limit=1):
                return False
            await self._budget.settle(tx, call, answer, bill_of(answer))
            await append_events(tx, call.build_id, [TurnFailedEvent(error=_UNREADABLE_CALL)], turn=call.turn)
        return True


def _with_settings(result: ThinkResult, start: turns.TurnStart) -> ThinkResult:
    """Let the build know of changed settings, in case their signal was lost."""
    return result.model_copy(update={"settings": start.settings}) if start.settings else result


def _answered_event(bill: Bill, reading: Reading, state: BudgetState) -> TurnAnsweredEvent:
    event = TurnAnsweredEvent(
        tokens=bill.tokens.model_dump(exclude_defaults=True),
        tool_calls=len(reading.calls),
        stop_reason=storable(reading.stored_as, _ERROR_CHARACTERS),
        **budget_fields(state),
    )
    return event.model_copy(update={"estimated": True}) if bill.estimated else event


def _result(
    reading: Reading, day: date, state: BudgetState, ahead: LookAhead, *, message_read: int, silent: bool
) -> ThinkResult:
    """The turn's result. Sparse: every turn's result is part of the history."""
    return ThinkResult.sparse(
        outcome=reading.outcome,
        calls=[call.model_copy(update={"summary": tool_of(call.summary)}) for call in reading.calls],
        reason=reading.reason,
        wind_down=ahead.winds_down,
        day=day if ahead.winds_down else None,
        allowance=state.allowance if ahead.winds_down else None,
        message_read=message_read,
        compact=ahead.compact and reading.outcome is not ThinkOutcome.REFUSED,
        declined=reading.refusal is not None,
        silent=silent and reading.outcome is ThinkOutcome.TOOL_USE,
    )
