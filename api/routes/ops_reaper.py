"""The reaper, for operators: how it is, what it would do, and its pause."""

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter

from api.deps import Resources, ResourcesDep, expensive, needs
from api.operators_route import OperatorsRoute
from api.reaper_schemas import ReaperOut, ReaperPause, ReaperPlan
from api.responses import TAKES_BODY, problems
from db.operator_figures import reaper_steps
from db.transaction import request_transaction
from domain.identity import Scope
from services import reaper
from services.fleet import read_reaper
from services.reap.plan import plan_reap

router = APIRouter(prefix="/ops/reaper", tags=["operators"], route_class=OperatorsRoute)


@router.get("", summary="Read the reaper", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def read(resources: ResourcesDep) -> ReaperOut:
    """Whether it is paused and why, when it ran last, and what an operator must look at."""
    return await _read(resources)


@router.get(
    "/plan",
    summary="Read what the reaper would do",
    dependencies=[needs(Scope.OPS_READ), expensive],
    responses=problems(422),
)
async def plan(resources: ResourcesDep) -> ReaperPlan:
    """What a run that compares everything would close, end, delete and repeat now, and why. Nothing is changed."""
    settings = resources.settings
    steps = await plan_reap(
        resources.sessions,
        resources.workflows,
        resources.sandboxes,
        timedelta(seconds=settings.reaper_spares_seconds),
        autonomous_agent=settings.autonomous_agent,
    )
    return ReaperPlan.of(datetime.now(UTC), steps)


@router.post(
    "/pause", summary="Pause the reaper", dependencies=[needs(Scope.OPS_WRITE)], responses=problems(*TAKES_BODY)
)
async def pause(why: ReaperPause, resources: ResourcesDep) -> ReaperOut:
    """Start no more runs until it is resumed; a run in progress ends within a minute. No start of a worker ends the
    pause. Meanwhile nothing is ended or deleted, and nothing that a crash left behind is repaired."""
    await reaper.pause_reaper(resources.sessions, resources.fleet, why.reason)
    return await _read(resources)


@router.post("/resume", summary="Resume the reaper", dependencies=[needs(Scope.OPS_WRITE)], responses=problems(422))
async def resume(resources: ResourcesDep) -> ReaperOut:
    """Let the reaper run again."""
    await reaper.resume_reaper(resources.sessions, resources.fleet)
    return await _read(resources)


async def _read(resources: Resources) -> ReaperOut:
    schedule = await read_reaper(resources.fleet)
    async with request_transaction(resources.sessions) as tx:
        return ReaperOut.of(schedule, await reaper_steps(tx))
