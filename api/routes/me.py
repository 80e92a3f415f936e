"""Who makes the request, and what a page needs to know of the server."""

import importlib.metadata

from fastapi import APIRouter

from api.deps import CurrentIdentity, Resources, ResourcesDep, TransactionDep, needs
from api.identity_schemas import MeOut, ServerOut
from api.responses import problems
from db.organisations import list_organisations
from db.transaction import Transaction
from db.users import require_user
from domain.identity import Identity, Scope
from domain.preview_address import preview_source
from domain.switches import notice
from services.builds import find_switched_off

router = APIRouter(tags=["identity"])


@router.get("/me", summary="Read who you are", dependencies=[needs(Scope.ACCOUNT_READ)], responses=problems(404, 422))
async def read(identity: CurrentIdentity, resources: ResourcesDep, tx: TransactionDep) -> MeOut:
    """The user of the request, what it was identified by, what it may do, the user's organisations, and what a page
    needs to know of the server."""
    user = await require_user(tx, identity.user_id)
    server = await _server(resources, tx, identity)
    return MeOut.of(identity, user, await list_organisations(tx, user.id), server)


async def _server(resources: Resources, tx: Transaction, identity: Identity) -> ServerOut:
    settings = resources.settings
    off = await find_switched_off(tx, identity.user_id, autonomous_agent=settings.autonomous_agent)
    ui = settings.temporal_ui_url if identity.is_operator else None
    return ServerOut(
        version=importlib.metadata.version("cofounder"),
        builds_on=off is None,
        builds_off_reason=None if off is None else notice(off),
        rehearsal=settings.rehearsal_model,
        preview_origins=[preview_source(settings.preview_url)],
        temporal_ui_url=None if ui is None else f"{ui.rstrip('/')}/namespaces/{resources.workflows.namespace_name}",
    )
