"""What operators see of all builds: counts, money, permits, rates, and what is away or switched off.

What the database knows is read in the caller's transaction, which sees every row. Temporal is asked beside it, for a
short time: the operators' pages have to work while Temporal does not.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeVar

import structlog
from temporalio.service import RPCError

from clients.fleet_workflows import FleetWorkflows, ReaperSchedule
from db import fleet_builds, operator_figures
from db.dependencies import count_waiting_builds, dependencies_not_up
from db.fleet_builds import BuildGroup
from db.limits import FleetSpending, find_limit, fleet_spending
from db.models import DependencyState, ReaperStep, Switch
from db.operator_figures import ModelRates, PermitUse, RunningProcess, Spent
from db.switches import list_switches
from db.transaction import Transaction
from domain.errors import TemporalUnavailable
from domain.fleet_filter import FleetFilter
from domain.formats import ALIVE_SECONDS
from domain.limits import LimitName

TEMPORAL_SECONDS = 3.0
"""Give up asking Temporal after this many seconds, and show what the database knows."""

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class SpentToday:
    """What all users together have spent today, in µ$."""

    fleet: FleetSpending
    limit: int | None
    by_plan: Sequence[Spent]
    by_model: Sequence[Spent]


@dataclass(frozen=True)
class Fleet:
    """The fleet at one moment."""

    at: datetime
    groups: Sequence[BuildGroup]
    """Of the open builds, and of those that ended today."""
    turns_last_minute: int
    spent_today: SpentToday
    permits: Sequence[PermitUse]
    rates: Sequence[ModelRates]
    away: Sequence[DependencyState]
    waiting: Mapping[str, int]
    """Builds that wait, by dependency."""
    switches: Sequence[Switch]
    reaper_steps: Sequence[ReaperStep]
    processes: Sequence[RunningProcess]


async def read_fleet(tx: Transaction, now: datetime, versions: Mapping[uuid.UUID, str]) -> Fleet:
    """Read what the database knows of the fleet. `versions`: by which version open builds are run."""
    today = now.astimezone(UTC).date()
    return Fleet(
        at=now,
        groups=await fleet_builds.count_groups(tx, datetime(today.year, today.month, today.day, tzinfo=UTC), versions),
        turns_last_minute=await operator_figures.turns_of_last_minute(tx),
        spent_today=await _spent_today(tx, today),
        permits=await operator_figures.permit_uses(tx),
        rates=await operator_figures.model_rates(tx),
        away=await dependencies_not_up(tx),
        waiting={each.dependency: each.builds for each in await count_waiting_builds(tx)},
        switches=await list_switches(tx),
        reaper_steps=await operator_figures.reaper_steps(tx),
        processes=await operator_figures.running_processes(tx, ALIVE_SECONDS),
    )


async def _spent_today(tx: Transaction, today: date) -> SpentToday:
    limit = await find_limit(tx, LimitName.FLEET_DAY)
    return SpentToday(
        fleet=await fleet_spending(tx, today),
        limit=None if limit is None else limit.value,
        by_plan=await operator_figures.spent_by_plan(tx, today),
        by_model=await operator_figures.spent_by_model(tx, today),
    )


async def ask_temporal(question: Awaitable[T]) -> T | None:
    """Wait a short time for an answer of Temporal; None if it does not answer."""
    try:
        async with asyncio.timeout(TEMPORAL_SECONDS):
            return await question
    except (RPCError, RuntimeError, TimeoutError) as error:  # a lazy client raises RuntimeError if it can't connect
        log.warning("Temporal does not answer operators", error=error)
        return None


async def read_reaper(workflows: FleetWorkflows) -> ReaperSchedule | None:
    """The reaper's schedule; None if there is none, or Temporal does not answer."""
    return await ask_temporal(workflows.reaper())


async def open_versions(workflows: FleetWorkflows) -> Mapping[uuid.UUID, str]:
    """By which version each open build is run; empty if workers have none, or Temporal does not answer."""
    return await ask_temporal(workflows.open_versions()) or {}


async def versions_of(workflows: FleetWorkflows, build_ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, str]:
    """By which version these builds are or were run last; as `open_versions`."""
    return await ask_temporal(workflows.versions_of(build_ids)) or {}


async def builds_of_versions(workflows: FleetWorkflows, only: FleetFilter) -> Collection[uuid.UUID] | None:
    """The builds that the filter's versions run; None if it names none. Ask before a transaction begins.

    Raises:
        TemporalUnavailable: Temporal, which alone knows the versions, does not answer.
    """
    if not only.version:
        return None
    found = await ask_temporal(workflows.builds_of_versions(only.version))
    if found is None:
        raise TemporalUnavailable
    return found
