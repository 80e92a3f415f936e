"""Liveness and readiness of the process. Neither needs a token."""

import asyncio

from fastapi import APIRouter, Response

from api.deps import ProcessResourcesDep, Resources
from api.schemas import Live, Readiness, ServerState
from db.builds import check_builds_table
from db.transaction import request_transaction
from domain.errors import DatabaseUnavailable, Misconfigured
from services.row_security import check_row_security

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process lives")
async def live() -> Live:
    """Always `ok`: a restart would not fix a server that this one depends on."""
    return Live()


async def _database(resources: Resources) -> ServerState:
    try:
        async with asyncio.timeout(5):
            async with request_transaction(resources.sessions) as tx:
                await check_builds_table(tx)
            settings = resources.settings
            await check_row_security(resources.sessions, settings.api_user, has_issuers=bool(settings.issuers))
    except (DatabaseUnavailable, Misconfigured) as error:
        return ServerState(ok=False, detail=str(error))
    except TimeoutError:
        return ServerState(ok=False, detail="The database did not answer in 5 seconds.")
    return ServerState(ok=True, detail="The database answers.")


async def _temporal(resources: Resources) -> ServerState:
    if await resources.workflows.is_reachable():
        return ServerState(ok=True, detail="Temporal answers.")
    return ServerState(ok=False, detail="Temporal does not answer. Check TEMPORAL_ADDRESS and that it runs.")


@router.get("/readyz", summary="Whether the API can serve requests", responses={503: {"model": Readiness}})
async def ready(resources: ProcessResourcesDep, response: Response) -> Readiness:
    """Each server by name; 503 when the database does not answer.

    Without Temporal, the API still serves feeds and all else that it reads, so it is `degraded` and not unready.
    """
    database, temporal = await asyncio.gather(_database(resources), _temporal(resources))
    dependencies = {"database": database, "temporal": temporal}
    readiness = Readiness(ready=database.ok, degraded=not temporal.ok, dependencies=dependencies)
    if not readiness.ready:
        response.status_code = 503
    return readiness
