"""The plans, with budgets in microdollars per billing cycle. Each migration run inserts those that are missing."""

from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import PlanTier

PLAN_TIERS: list[dict[str, Any]] = [
    {
        "name": "bootstrapper",
        "default_models": {"coder": "claude-sonnet-5-5", "judge": "claude-haiku-5-5"},
        "cycle_budget": 50_000_000,
        "concurrent_builds": 1,
        "tool_call_cap": 1500,
    },
    {
        "name": "partner",
        "default_models": {"coder": "claude-opus-5-5", "judge": "claude-sonnet-5-5"},
        "cycle_budget": 250_000_000,
        "concurrent_builds": 3,
        "tool_call_cap": 3000,
    },
    {
        "name": "cto_scale",
        "default_models": {"coder": "claude-opus-5-5", "judge": "claude-sonnet-5-5"},
        "cycle_budget": None,
        "concurrent_builds": 10,
        "tool_call_cap": 6000,
    },
]


async def seed(connection: AsyncConnection) -> None:
    """Insert missing plans. Plans that an operator has changed stay as they are."""
    await connection.execute(insert(PlanTier).values(PLAN_TIERS).on_conflict_do_nothing())
