"""Whether a turn's call may be made: what holds its build, and what the call may cost of today's allowance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID

from activities.turn.floor import TOO_LONG, TOO_MANY_IMAGES, floor_tokens
from db import compactions, fleet, money
from db.builds import load_build
from db.models import Build
from db.prompts import fallbacks_of
from db.sandbox_time import sandbox_seconds
from db.switches import Standing, standing_of
from db.transaction import Transaction
from db.users import find_renewal_day
from domain.answer import Answer
from domain.bill import Bill
from domain.budget import (
    EXPECTED_OUTPUT_TOKENS,
    USEFUL_OUTPUT_TOKENS,
    BudgetState,
    Permission,
    Verdict,
    cycle_of,
    may_continue,
    too_small,
)
from domain.compaction import (
    FLOOR_PERCENT,
    LEAST_TOKENS,
    MOST_IMAGES,
    SUMMARY_OUTPUT_TOKENS,
    TURNS_BETWEEN,
    compaction_threshold,
    is_compaction_due,
)
from domain.errors import UnknownModel
from domain.events import BudgetFields
from domain.judge import OUTPUT_TOKENS
from domain.limits import FLEET_LIMIT_REACHED, sandbox_time_used_up
from domain.output_limits import most_output
from domain.payloads import BudgetCheck, CheckBudget, ThinkOutcome, ThinkResult
from domain.pricing import (
    Iteration,
    ModelPrice,
    PriceTable,
    Tokens,
    WorstCase,
    bill_microdollars,
    price_of,
    worst_case,
)
from domain.status import WaitingFor
from domain.switches import SwitchScope, hold_reason
from domain.tools import TOOLS

_SUSPENDED = (
    "Your account is suspended, so this build has stopped. Its work is kept. Write to support to have the account "
    "reopened; the build then continues by itself."
)


class CallBlocked(Exception):
    """No call may be made. The transaction has to be rolled back: a turn without a call leaves no row."""

    def __init__(self, result: ThinkResult, state: BudgetState | None = None) -> None:
        super().__init__(result.outcome)
        self.result = result
        """Why, for the workflow and for people."""
        self.state = state
        """The budget that the call did not fit into, if that is why."""


@dataclass(frozen=True)
class LookAhead:
    """What has to happen before the next turn."""

    winds_down: bool
    """It is to be the first of a wind-down."""
    compact: bool
    """The conversation is to be summed up."""


@dataclass(frozen=True)
class CallBudget:
    """What calls cost and whether they may be made, by this worker's settings."""

    prices: PriceTable
    max_output_tokens: int
    """The longest output of a call, if the model and the budget allow as much."""
    autonomous_agent: bool
    """False is the kill switch: no build makes a call."""
    sandbox_hours_per_day: float = 24
    """How long a build may have a sandbox in a UTC day before it sleeps until the next one."""

    def require_no_hold(self, standing: Standing) -> None:
        """Let the turn go on unless a kill switch or a suspended account holds its build.

        Raises:
            CallBlocked: one of them does.
        """
        if (hold := self._hold(standing)) is not None:
            waiting_for, reason = hold
            raise CallBlocked(ThinkResult(outcome=ThinkOutcome.ON_HOLD, reason=reason, waiting_for=waiting_for))

    def require_sandbox_time(self, seconds: int, day: date) -> None:
        """Let the turn go on unless a sandbox has run for its build for too long today.

        Raises:
            CallBlocked: it has.
        """
        if (reason := self._out_of_sandbox_time(seconds)) is not None:
            raise CallBlocked(ThinkResult(outcome=ThinkOutcome.BUDGET, day=day, reason=reason, service_limit=True))

    def _out_of_sandbox_time(self, seconds: int) -> str | None:
        """Why the build sleeps, for its founder. A day has no more than 24 hours, so that 24 is no limit."""
        hours = self.sandbox_hours_per_day
        return sandbox_time_used_up(hours) if hours < 24 and seconds >= hours * 3600 else None

    def is_on_hold(self, standing: Standing) -> bool:
        """Whether a kill switch or a suspended account holds the build."""
        return self._hold(standing) is not None

    async def reserve(
        self,
        tx: Transaction,
        call: money.Call,
        size: money.PromptSize,
        lost: UUID | None,
        fallbacks: Sequence[str] = (),
        *,
        fleet_is_limited: bool = False,
    ) -> tuple[Permission, BudgetState]:
        """Reserve the call's worst case.

        Args:
            size: of its prompt.
            lost: the claim of an earlier attempt at it, whose cost becomes an estimate.
            fallbacks: models that may answer in the model's place, each of which is billed.
            fleet_is_limited: it has to fit into what all builds together may spend, too.

        Raises:
            CallBlocked: it does not fit, now or at all.
        """
        worst = self._worst_case(call.model, size, fallbacks)
        permission, state = await money.reserve(
            tx, call, worst, self._max_tokens(call.model), lost, fleet_is_limited=fleet_is_limited
        )
        if permission.verdict is not Verdict.GO:
            build = await load_build(tx, call.build_id)
            raise CallBlocked(await self._why_blocked(tx, build, call.day, state, permission.verdict, worst), state)
        return permission, state

    async def reserve_summary(
        self,
        tx: Transaction,
        call: money.Call,
        lost: UUID | None,
        fallbacks: Sequence[str],
        *,
        fleet_is_limited: bool = False,
    ) -> Permission:
        """Reserve the worst case of a call that sums up a conversation; if less output than a summary needs is
        affordable, reserve nothing."""
        size = await money.prompt_size(tx, call.build_id, call.turn)
        worst = self._worst_case(call.model, size, fallbacks)
        return await _reserve_all(tx, call, worst, SUMMARY_OUTPUT_TOKENS, lost, fleet_is_limited=fleet_is_limited)

    async def reserve_judgement(
        self, tx: Transaction, call: money.Call, prompt_tokens: int, lost: UUID | None, *, fleet_is_limited: bool
    ) -> Permission:
        """Reserve the worst case of a call that judges a product; if less output than that needs is affordable, reserve
        nothing. `prompt_tokens`: at most so many are in its prompt."""
        worst = worst_case(self.prices, call.model, prompt_tokens)
        return await _reserve_all(tx, call, worst, OUTPUT_TOKENS, lost, fleet_is_limited=fleet_is_limited)

    async def floor_reason(
        self, tx: Transaction, call: money.Call, size: money.PromptSize, *, asleep: bool
    ) -> str | None:
        """Why the turn has to begin with a floor rather than with the conversation as it is; None if it has not to.

        Args:
            size: of the turn's prompt.
            asleep: the build has slept, so that the cache has nothing of its conversation.
        """
        price = self.price(call.model)
        if size.images > MOST_IMAGES:
            return TOO_MANY_IMAGES
        if size.likely >= price.context_tokens * FLOOR_PERCENT // 100:
            return TOO_LONG
        if price.compacts:
            return None
        ceiling = (await money.budget_of(tx, call.user_id, call.day)).ceiling
        since = await compactions.turns_since(tx, call.build_id, call.turn - 1, call.prefix)
        threshold = compaction_threshold(price, price.context_tokens, ceiling)
        return TOO_LONG if is_compaction_due(size.likely, threshold, winds_down=asleep, turns_since=since) else None

    async def check(self, tx: Transaction, request: CheckBudget, day: date) -> BudgetCheck:
        """Whether the build's next call could be made. Reserves nothing."""
        build = await load_build(tx, UUID(request.build_id))
        if (hold := self._hold(await standing_of(tx, build.id))) is not None:
            waiting_for, reason = hold
            return BudgetCheck(
                exhausted=True, outcome=ThinkOutcome.ON_HOLD, reason=reason, waiting_for=waiting_for, day=day
            )
        if (used_up := self._out_of_sandbox_time(await sandbox_seconds(tx, build.id, day))) is not None:
            return BudgetCheck(exhausted=True, outcome=ThinkOutcome.BUDGET, reason=used_up, day=day, service_limit=True)
        model = build.model or ""
        state = await money.lock_day(tx, build.user_id, day)
        size = await money.prompt_size(tx, build.id, request.turn)
        worst = self._worst_case(model, size, await fallbacks_of(tx, build.id))
        verdict = may_continue(state, day, worst, self._max_tokens(model), request.last_wind_down)
        if verdict is Verdict.TOO_SMALL and size.likely >= LEAST_TOKENS:
            # The turn would begin with a floor instead.
            shorter = replace(size, at_most=await floor_tokens(tx, build.id, request.turn, size.prefix))
            least = self._worst_case(model, shorter, await fallbacks_of(tx, build.id))
            verdict = may_continue(state, day, least, self._max_tokens(model), request.last_wind_down)
        if verdict not in (Verdict.TOO_SMALL, Verdict.EXHAUSTED):
            useful = min(self._max_tokens(model), USEFUL_OUTPUT_TOKENS)
            if not await fleet.has_room(tx, day, worst.cost(useful)):
                verdict = Verdict.FLEET_EXHAUSTED
        if verdict not in (Verdict.TOO_SMALL, Verdict.EXHAUSTED, Verdict.FLEET_EXHAUSTED):
            return BudgetCheck(exhausted=False)
        blocked = await self._why_blocked(tx, build, day, state, verdict, worst)
        return BudgetCheck(
            exhausted=True,
            outcome=blocked.outcome,
            reason=blocked.reason,
            renews_on=blocked.renews_on,
            day=day,
            spent=state.spent,
            allowance=state.allowance,
            service_limit=blocked.service_limit,
        )

    async def look_ahead(
        self, tx: Transaction, call: money.Call, state: BudgetState, tools: Sequence[str] = ()
    ) -> LookAhead:
        """What has to happen before the turn after this call's.

        Args:
            state: the day's budget.
            tools: the tools that the call's answer has called; their results are not there yet.
        """
        size = await money.prompt_size(tx, call.build_id, call.turn + 1)
        worst = self._worst_case(call.model, size)
        output = max(EXPECTED_OUTPUT_TOKENS, size.usual_output)
        expected = worst.expected(size.cached, output) if size.cached else None
        winds_down = state.winds_down(worst, self._max_tokens(call.model), expected)
        images = size.images + sum(TOOLS[tool].images for tool in tools if tool in TOOLS)
        return LookAhead(winds_down, await self._is_long(tx, call, state, size, images, winds_down=winds_down))

    async def _is_long(
        self,
        tx: Transaction,
        call: money.Call,
        state: BudgetState,
        size: money.PromptSize,
        images: int,
        *,
        winds_down: bool,
    ) -> bool:
        price, tokens = self.price(call.model), size.counted or size.likely
        threshold = compaction_threshold(price, price.context_tokens, state.ceiling)

        def is_due(since: int) -> bool:
            return is_compaction_due(tokens, threshold, winds_down=winds_down, turns_since=since, images=images)

        if not price.compacts or not is_due(TURNS_BETWEEN):
            return False
        return is_due(await compactions.turns_since(tx, call.build_id, call.turn, size.prefix))

    async def settle_partly(
        self,
        tx: Transaction,
        call: money.Call,
        tokens: Tokens,
        request_id: str | None,
        iterations: tuple[Iteration, ...],
    ) -> None:
        """Replace a call's reservation by what was served before its stream broke, each part at its own model's price.

        A part that a model declined is counted, too: which parts are free is known only of a complete answer.
        """
        try:
            cost = bill_microdollars(self.prices, call.model, iterations or (Iteration("message", None, tokens),))
        except UnknownModel:
            cost = None
        await money.settle(tx, call, tokens, cost, request_id, iterations=iterations, estimated=cost is None)

    def bill_cost(self, model: str, bill: Bill) -> int | None:
        """What a complete answer costs, in µ$: each part at its own model's price. None if one of them has no price."""
        try:
            return bill_microdollars(self.prices, model, bill.billed)
        except UnknownModel:
            return None

    async def settle(self, tx: Transaction, call: money.Call, answer: Answer, bill: Bill) -> BudgetState:
        """Replace a call's reservation by what its answer is billed as; returns the state afterwards."""
        cost = self.bill_cost(call.model, bill)
        return await money.settle(
            tx,
            call,
            bill.tokens,
            cost,
            answer.request_id,
            iterations=bill.iterations,
            estimated=bill.estimated or cost is None,
        )

    def price(self, model: str) -> ModelPrice:
        """The model's row of the price table."""
        return price_of(self.prices, model)

    def _hold(self, standing: Standing) -> tuple[WaitingFor, str] | None:
        """Why the build is on hold regardless of its budget: who can end the hold, and the reason that people read."""
        off = standing.switched_off if self.autonomous_agent else SwitchScope.FLEET
        if off is not None:
            return WaitingFor.KILL_SWITCH, hold_reason(off)
        return (WaitingFor.OPERATOR, _SUSPENDED) if standing.suspended else None

    async def _why_blocked(
        self, tx: Transaction, build: Build, day: date, state: BudgetState, verdict: Verdict, worst: WorstCase
    ) -> ThinkResult:
        """Why no call may be made, for the workflow and for people."""
        if verdict is Verdict.BUSY:
            return ThinkResult(outcome=ThinkOutcome.BUSY)
        if verdict is Verdict.FLEET_EXHAUSTED:
            return ThinkResult(
                outcome=ThinkOutcome.BUDGET, day=day, reason=FLEET_LIMIT_REACHED, service_limit=True, spent=state.spent
            )
        if verdict is Verdict.EXHAUSTED:
            return ThinkResult(outcome=ThinkOutcome.BUDGET, day=day, spent=state.spent, allowance=state.allowance)
        renewal_day = await find_renewal_day(tx, build.user_id)
        _, renews_on = cycle_of(day, renewal_day or 1)
        reason = too_small(state, worst, self._max_tokens(build.model or ""), renews_on)
        return ThinkResult(
            outcome=ThinkOutcome.TOO_SMALL,
            reason=reason,
            renews_on=renews_on,
            day=day,
            spent=state.spent,
            allowance=state.allowance,
        )

    def _worst_case(self, model: str, size: money.PromptSize, fallbacks: Sequence[str] = ()) -> WorstCase:
        return worst_case(self.prices, model, size.at_most, fallbacks)

    def _max_tokens(self, model: str) -> int:
        return most_output(price_of(self.prices, model), self.max_output_tokens)


async def _reserve_all(
    tx: Transaction, call: money.Call, worst: WorstCase, output: int, lost: UUID | None, *, fleet_is_limited: bool
) -> Permission:
    """Reserve the call's worst case with this much output, or nothing."""
    permission, _ = await money.reserve(tx, call, worst, output, lost, fleet_is_limited=fleet_is_limited)
    if permission.verdict is Verdict.GO and permission.max_tokens < output:
        await money.release(tx, call)
        return Permission(verdict=Verdict.EXHAUSTED)
    return permission


def budget_fields(state: BudgetState) -> BudgetFields:
    """What an event says of the day's budget; nothing for an unlimited plan."""
    return {} if state.percent is None else {"budget_percent": state.percent, "budget_level": state.level}
