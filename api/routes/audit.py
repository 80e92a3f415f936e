"""The audit, for operators."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import TransactionDep, needs
from api.operators_route import OperatorsRoute
from api.paging import PAGE_MAX
from api.responses import problems
from api.schemas import AuditEntryOut, AuditList
from db.audit import AuditFilter, list_entries
from domain import user_id
from domain.audit import Action
from domain.identity import Scope
from services.audit import record

router = APIRouter(prefix="/ops", tags=["operators"], route_class=OperatorsRoute)


@router.get("/audit", dependencies=[needs(Scope.OPS_READ)], summary="Read the audit", responses=problems(403, 422))
async def read(
    tx: TransactionDep,
    since: Annotated[datetime | None, Query(description="Only entries since then; UTC unless it says else.")] = None,
    user: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=user_id.MAX_CHARACTERS,
            pattern=user_id.PATTERN,
            description="Only entries that concern this user or that this user made.",
        ),
    ] = None,
    action: Annotated[Action | None, Query(description="Only entries of this act.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="The number of entries at most.")] = 20,
    cursor: Annotated[
        int | None,
        Query(ge=1, le=2**63 - 1, description="`next_cursor` of the previous page; left out for the first."),
    ] = None,
) -> AuditList:
    """For operators: what operators did, and what destroyed something or gave someone a right, newest first. Entries
    are never changed or deleted. They hold ids and names of fields, and none of what founders write. Reading the audit
    adds an entry."""
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    rows = await list_entries(tx, AuditFilter(since, user, action, cursor), limit + 1)
    listed = rows[:limit]
    await record(tx, Action.AUDIT_READ)
    return AuditList(
        entries=[AuditEntryOut.of(each) for each in listed], next_cursor=listed[-1].id if len(rows) > limit else None
    )
