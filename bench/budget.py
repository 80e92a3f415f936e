"""Simulate what builds cost and how many days they take, with the project's own arithmetic and prices.

    python -m bench.budget

No server, no call. One build runs alone on its plan, from the first day of a billing cycle on. Each morning's cache is
cold; within a day it holds. Three policies stand side by side:

    before      the look-ahead of the wind-down takes four worst cases; conversations are never summed up
    look-ahead  it takes what the server reported as cached
    now         also, long conversations are summed up, and before the build sleeps
"""

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from db.seed import PLAN_TIERS
from domain.budget import (
    EXPECTED_OUTPUT_TOKENS,
    WIND_DOWN_PERCENT,
    WIND_DOWN_TURNS,
    BudgetState,
    Verdict,
    cycle_of,
    daily_allowance,
)
from domain.compaction import SUMMARY_OUTPUT_TOKENS, TAIL_TURNS, compaction_threshold, is_compaction_due
from domain.models import default_prices
from domain.pricing import ModelPrice, Tokens, WorstCase, cost_microdollars

TOKENS_IN = 2500
"""Mean tokens that a turn's tool results add to the prompt."""

TOKENS_OUT = 1500
"""Mean tokens of a turn's answer."""

SPREAD = (0.25, 1.75)
"""A turn's tokens are uniform between these multiples of their mean."""

OPENING_TOKENS = 4000
"""System prompt, tools and first message."""

SUMMARY_TOKENS = 3000
"""Tokens of a summary."""

FLOOR_TOKENS = 6000
"""Tokens with which a prefix begins that opens without a summary, as for a model whose API writes none."""

BYTES_PER_TOKEN = 3
"""What is new in a prompt counts as a token a byte in its worst case."""

MAX_OUTPUT_TOKENS = {"before": 16_000, "look-ahead": 64_000, "now": 64_000}

POLICIES = ("before", "look-ahead", "now")
SEEDS = (1, 2, 3)
START = date(2026, 12, 1)
PROMPTS = (20_000, 60_000, 100_000, 150_000, 200_000, 300_000, 500_000)
MOST_DAYS = 200
BEFORE_USEFUL_OUTPUT = 1000


@dataclass(frozen=True)
class Plan:
    """What a plan allows."""

    name: str
    cycle_budget: int | None
    model: str


@dataclass
class Build:
    """The outcome of a simulated build."""

    turns: int = 0
    days: int = 1
    cost: int = 0
    cold: int = 0
    """What reading the conversation without a cache cost, in µ$."""
    compactions: int = 0
    stuck: bool = False
    unused: list[float] | None = None
    """The share of the allowance that was left at each sleep, in percent."""


class Simulation:
    """One build on one plan."""

    def __init__(self, plan: Plan, model: str, policy: str, seed: int) -> None:
        self.table = default_prices()
        self.price: ModelPrice = self.table[model]
        self.model, self.plan, self.policy = model, plan, policy
        self.max_tokens = min(MAX_OUTPUT_TOKENS[policy], self.price.max_output_tokens)
        self.random = random.Random(seed)
        self.prompt = OPENING_TOKENS
        self.added = OPENING_TOKENS * BYTES_PER_TOKEN
        """Bytes that are new in the next prompt, in the worst case."""
        self.cached = 0
        self.tail: list[int] = []
        self.prefix_turns = 0
        self.build = Build(unused=[])

    def run(self, turns: int) -> Build:
        """Simulate a build of this many turns."""
        day, spent_in_cycle = START, 0
        while self.build.turns < turns and self.build.days < MOST_DAYS:
            if day == cycle_of(day, 1)[0]:
                spent_in_cycle = 0
            allowance = daily_allowance(self.plan.cycle_budget, spent_in_cycle, day, 1)
            spent = self._day(BudgetState(allowance=allowance, spent=0), turns)
            spent_in_cycle += spent
            if self.build.stuck or self.build.turns >= turns:
                break
            if allowance and self.build.unused is not None:
                self.build.unused.append(100 - spent * 100 / allowance)
            day += timedelta(days=1)
            self.build.days += 1
        self.build.stuck = self.build.stuck or self.build.turns < turns
        return self.build

    def _day(self, state: BudgetState, turns: int) -> int:
        self.cached, left = 0, None
        while self.build.turns < turns:
            call = self._worst_case()
            verdict = self._verdict(state, call)
            if verdict is not Verdict.GO:
                self.build.stuck = verdict is Verdict.TOO_SMALL
                break
            state = state.model_copy(update={"spent": state.spent + self._turn()})
            winds_down = self._winds_down(state)
            if self.policy == "now" and left is None:
                prefixes = self.build.compactions
                cost = self._compact(state, winds_down=winds_down)
                state = state.model_copy(update={"spent": state.spent + cost})
                if self.build.compactions > prefixes:
                    continue
            if left is not None:
                left -= 1
                if left == 0:
                    break
            elif winds_down:
                left = WIND_DOWN_TURNS
        self.build.cost += state.spent
        return state.spent

    def _verdict(self, state: BudgetState, call: WorstCase) -> Verdict:
        if self.policy != "before":
            return state.permit(call, self.max_tokens).verdict
        if state.ceiling is None:
            return Verdict.GO
        least = call.cost(BEFORE_USEFUL_OUTPUT)
        if least > state.ceiling:
            return Verdict.TOO_SMALL
        return Verdict.EXHAUSTED if state.spent + least > state.ceiling else Verdict.GO

    def _worst_case(self) -> WorstCase:
        tokens = (self.cached or self.prompt) + self.added + 1000
        return WorstCase(tokens, self.price.dearest(tokens))

    def _turn(self) -> int:
        entered, answered = (int(mean * self.random.uniform(*SPREAD)) for mean in (TOKENS_IN, TOKENS_OUT))
        tokens = Tokens(cache_read=self.cached, cache_write_5m=self.prompt - self.cached, output=answered)
        cost = cost_microdollars(self.table, self.model, tokens)
        if not self.cached:
            self.build.cold += cost
        self.cached = self.prompt
        self.prompt += entered + answered
        self.added = entered * BYTES_PER_TOKEN + answered
        self.tail = [*self.tail, entered + answered][-TAIL_TURNS:]
        self.prefix_turns += 1
        self.build.turns += 1
        return cost

    def _winds_down(self, state: BudgetState) -> bool:
        call = self._worst_case()
        if self.policy == "before":
            return before_winds_down(state, call, self.max_tokens)
        return state.winds_down(call, self.max_tokens, call.expected(self.cached, EXPECTED_OUTPUT_TOKENS))

    def _compact(self, state: BudgetState, *, winds_down: bool) -> int:
        threshold = compaction_threshold(self.price, self.price.context_tokens, state.ceiling)
        if not is_compaction_due(self.prompt, threshold, winds_down=winds_down, turns_since=self.prefix_turns):
            return 0
        if not self.price.compacts:
            self._open_prefix(OPENING_TOKENS + FLOOR_TOKENS)
            return 0
        call = WorstCase(self.cached + 1000, self.price.dearest(self.cached + 1000))
        if state.ceiling is not None and state.spent + call.cost(SUMMARY_OUTPUT_TOKENS) > state.ceiling:
            return 0
        cost = cost_microdollars(
            self.table, self.model, Tokens(cache_read=self.cached, input=500, output=SUMMARY_TOKENS)
        )
        self._open_prefix(OPENING_TOKENS + SUMMARY_TOKENS + sum(self.tail))
        return cost

    def _open_prefix(self, tokens: int) -> None:
        self.prompt, self.cached, self.added, self.prefix_turns = tokens, 0, 0, 0
        self.build.compactions += 1


def before_winds_down(state: BudgetState, call: WorstCase, max_tokens: int) -> bool:
    """The look-ahead before: 90 % are used, or four worst cases exceed the ceiling."""
    if state.allowance is None or state.ceiling is None:
        return False
    return (
        state.spent * 100 >= state.allowance * WIND_DOWN_PERCENT
        or state.spent + 4 * call.cost(max_tokens) > state.ceiling
    )


def turns_a_day(plan: Plan, model: str, policy: str, prompt: int) -> str:
    """The turns of a day that begins with a prompt of this length and a cold cache."""
    simulation = Simulation(plan, model, policy, SEEDS[0])
    simulation.prompt, simulation.added = prompt, 0
    allowance = daily_allowance(plan.cycle_budget, 0, START, 1)
    simulation._day(BudgetState(allowance=allowance, spent=0), 1000)
    return "stuck" if simulation.build.stuck and not simulation.build.turns else str(simulation.build.turns)


def plans() -> list[Plan]:
    """The seeded plans."""
    return [Plan(tier["name"], tier["cycle_budget"], tier["default_models"]["coder"]) for tier in PLAN_TIERS]


def outcome(plan: Plan, model: str, policy: str, turns: int) -> str:
    """Days, dollars and compactions of a build: the mean of the seeds."""
    builds = [Simulation(plan, model, policy, seed).run(turns) for seed in SEEDS]
    if any(build.stuck for build in builds):
        return f"STUCK at {min(build.turns for build in builds)}, ${mean_dollars(builds):.2f}"
    cold = statistics.mean(build.cold for build in builds) / 1_000_000
    return f"{mean_days(builds):.0f} d, ${mean_dollars(builds):.2f} (${cold:.2f} cold)"


def mean_dollars(builds: Sequence[Build]) -> float:
    """Mean cost in USD."""
    return statistics.mean(build.cost for build in builds) / 1_000_000


def mean_days(builds: Sequence[Build]) -> float:
    """Mean days, the first included."""
    return statistics.mean(build.days for build in builds)


def unused(plan: Plan, turns: int) -> str:
    """The mean share of the allowance that was left at sleep, with the plan's default model and today's policy."""
    builds = [Simulation(plan, plan.model, "now", seed).run(turns) for seed in SEEDS]
    shares = [share for build in builds for share in build.unused or []]
    return f"{statistics.mean(shares):.0f} %" if shares else "never sleeps"


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    console, models = Console(width=140), list(default_prices())
    console.print(
        f"{TOKENS_IN} tokens in and {TOKENS_OUT} out a turn (uniform between {SPREAD[0]} and {SPREAD[1]} times that), "
        f"{OPENING_TOKENS} to begin with, {SUMMARY_TOKENS} a summary, cold mornings, seeds {SEEDS}, max_tokens "
        f"{MAX_OUTPUT_TOKENS}; cycle of {(cycle_of(START, 1)[1] - START).days} days."
    )
    table = Table("plan, model", *(f"{tokens // 1000}k" for tokens in PROMPTS), box=SIMPLE_HEAD)
    for plan in plans():
        for model in models if plan.cycle_budget is not None else ():
            days = ("|".join(turns_a_day(plan, model, policy, tokens) for policy in POLICIES) for tokens in PROMPTS)
            table.add_row(f"{plan.name} {model}", *days)
    console.print("\nTurns of a day that begins with a prompt of so many tokens: before|look-ahead|now")
    console.print(table)
    table = Table("turns", "plan, model", *POLICIES, "compactions now", box=SIMPLE_HEAD)
    for turns in (150, 600):
        for plan in plans():
            for model in models:
                compactions = Simulation(plan, model, "now", SEEDS[0]).run(turns).compactions
                default = " (default)" if model == plan.model else ""
                columns = (outcome(plan, model, policy, turns) for policy in POLICIES)
                table.add_row(str(turns), f"{plan.name} {model}{default}", *columns, str(compactions))
    console.print(table)
    for plan in plans():
        console.print(f"allowance unused at sleep, {plan.name} {plan.model}, 600 turns: {unused(plan, 600)}")
    plan = plans()[0]
    builds = [Simulation(plan, plan.model, "now", seed).run(150) for seed in SEEDS]
    console.print(f"{plan.name} {plan.model} 150 turns: {mean_days(builds):.0f} days, ${mean_dollars(builds):.2f}")


if __name__ == "__main__":
    main()
