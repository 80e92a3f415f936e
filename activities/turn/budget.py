"""Whether a turn's call may be made: what holds its build, and what the call may cost of today's allowance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from db import money
from db.builds import load_build
from db.models import Build
from db.prompts import fallbacks_of
from db.transaction import Transaction
from db.users import find_renewal_day, is_suspended
from domain.bill import Bill
from domain.budget import EXPECTED_OUTPUT_TOKENS, BudgetState, Permission, Verdict, cycle_of, may_continue, too_small
from domain.errors import UnknownModel
from domain.events import BudgetFields
from domain.payloads import BudgetCheck, CheckBudget, ThinkOutcome, ThinkResult
from domain.pricing import (
    ModelPrice,
    PriceTable,
    Tokens,
    WorstCase,
    bill_microdollars,
    cost_microdollars,
    price_of,
    worst_case,
)
from domain.status import WaitingFor

_SUSPENDED = (
    "Your account is suspended, so this build has stopped. Its work is kept. Write to support to have the account "
    "reopened; the build then continues by itself."
)
_SWITCHED_OFF = (
    "Builds are switched off here for now. This build's work is kept, and it continues by "
    "itself when builds are switched on again."
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
class CallBudget:
    """What calls cost and whether they may be made, by this worker's settings."""

    prices: PriceTable
    max_output_tokens: int
    """The longest output of a call, if the model and the budget allow as much."""
    autonomous_agent: bool
    """False is the kill switch: no build makes a call."""

    def require_no_hold(self, *, suspended: bool) -> None:
        """Let the turn go on unless the kill switch or a suspended account holds its build.

        Raises:
            CallBlocked: one of them does.
        """
        if (hold := self._hold(suspended=suspended)) is not None:
            waiting_for, reason = hold
            raise CallBlocked(ThinkResult(outcome=ThinkOutcome.ON_HOLD, reason=reason, waiting_for=waiting_for))

    async def reserve(
        self, tx: Transaction, call: money.Call, lost: UUID | None, fallbacks: Sequence[str] = ()
    ) -> tuple[Permission, BudgetState]:
        """Reserve the call's worst case.

        Args:
            lost: the claim of an earlier attempt at it, whose cost becomes an estimate.
            fallbacks: models that may answer in the model's place, each of which is billed.

        Raises:
            CallBlocked: it does not fit, now or at all.
        """
        size = await money.prompt_size(tx, call.build_id, call.turn)
        worst = self._worst_case(call.model, size, fallbacks)
        permission, state = await money.reserve(tx, call, worst, self._max_tokens(call.model), lost)
        if permission.verdict is not Verdict.GO:
            build = await load_build(tx, call.build_id)
            raise CallBlocked(await self._why_blocked(tx, build, call.day, state, permission.verdict, worst), state)
        return permission, state

    async def check(self, tx: Transaction, request: CheckBudget, day: date) -> BudgetCheck:
        """Whether the build's next call could be made. Reserves nothing."""
        build = await load_build(tx, UUID(request.build_id))
        suspended = await is_suspended(tx, build.user_id)
        if (hold := self._hold(suspended=suspended)) is not None:
            waiting_for, reason = hold
            return BudgetCheck(
                exhausted=True, outcome=ThinkOutcome.ON_HOLD, reason=reason, waiting_for=waiting_for, day=day
            )
        model = build.model or ""
        state = await money.lock_day(tx, build.user_id, day)
        size = await money.prompt_size(tx, build.id, request.turn)
        worst = self._worst_case(model, size, await fallbacks_of(tx, build.id))
        verdict = may_continue(state, day, worst, self._max_tokens(model), request.last_wind_down)
        if verdict not in (Verdict.TOO_SMALL, Verdict.EXHAUSTED):
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
        )

    async def winds_down_after(self, tx: Transaction, call: money.Call, state: BudgetState) -> bool:
        """Whether the turn after this call's is to be the first of a wind-down."""
        size = await money.prompt_size(tx, call.build_id, call.turn + 1)
        worst = self._worst_case(call.model, size)
        output = max(EXPECTED_OUTPUT_TOKENS, size.usual_output)
        expected = worst.expected(size.cached, output) if size.cached else None
        return state.winds_down(worst, self._max_tokens(call.model), expected)

    def cost(self, model: str, tokens: Tokens) -> int:
        """What the tokens cost, in µ$."""
        return cost_microdollars(self.prices, model, tokens)

    def bill_cost(self, model: str, bill: Bill) -> int | None:
        """What a complete answer costs, in µ$: each part at its own model's price. None if one of them has no price."""
        try:
            return bill_microdollars(self.prices, model, bill.billed)
        except UnknownModel:
            return None

    def price(self, model: str) -> ModelPrice:
        """The model's row of the price table."""
        return price_of(self.prices, model)

    def _hold(self, *, suspended: bool) -> tuple[WaitingFor, str] | None:
        """Why the build is on hold regardless of its budget: who can end the hold, and the reason that people read."""
        if not self.autonomous_agent:
            return WaitingFor.KILL_SWITCH, _SWITCHED_OFF
        return (WaitingFor.OPERATOR, _SUSPENDED) if suspended else None

    async def _why_blocked(
        self, tx: Transaction, build: Build, day: date, state: BudgetState, verdict: Verdict, worst: WorstCase
    ) -> ThinkResult:
        """Why no call may be made, for the workflow and for people."""
        if verdict is Verdict.BUSY:
            return ThinkResult(outcome=ThinkOutcome.BUSY)
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
        return min(self.max_output_tokens, price_of(self.prices, model).max_output_tokens)


def budget_fields(state: BudgetState) -> BudgetFields:
    """What an event says of the day's budget; nothing for an unlimited plan."""
    return {} if state.percent is None else {"budget_percent": state.percent, "budget_level": state.level}
