"""A user's account. Founders read shares of the budget; operators read money and change the account."""

from datetime import UTC, datetime

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from temporalio.service import RPCError

from api.deps import (
    CurrentIdentity,
    CurrentUserId,
    IdempotencyKey,
    IsOperator,
    Resources,
    ResourcesDep,
    TransactionDep,
    expensive,
    needs,
)
from api.erasure_schemas import AccountErasure, ErasureOut
from api.file_response import bytes_of, stream_file
from api.responses import TAKES_BODY, problems
from api.schemas import AccountChange, AccountOut, NewTopUp
from db.session import Access
from db.transaction import request_transaction
from db.users import UserChange
from domain.identity import Scope
from services.accounts import Account, change_account, check_models, read_account, top_up_account
from services.erasure import erase_user
from services.export import export_account
from services.notifications import notify_budget_changed

log = structlog.get_logger(__name__)

router = APIRouter(tags=["account"])


@router.get(
    "/account", dependencies=[needs(Scope.ACCOUNT_READ)], summary="Read the account", responses=problems(404, 422)
)
async def read(user_id: CurrentUserId, tx: TransactionDep, operator: IsOperator) -> AccountOut:
    """The user's plan, and how much of today's allowance is used."""
    now = datetime.now(UTC)
    return AccountOut.of(await read_account(tx, user_id, now.date()), now, operator=operator)


@router.get(
    "/account/export",
    dependencies=[needs(Scope.ACCOUNT_READ), expensive],
    summary="Export the account",
    response_class=StreamingResponse,
    responses=problems(404, 422) | bytes_of("application/zip"),
)
async def export(user_id: CurrentUserId, resources: ResourcesDep) -> StreamingResponse:
    """What is known of you, as a zip: account, identities, organisations, keys and sign-ins without what is secret in
    them, projects by name, the tokens of the model calls that you paid for, and erasures. What a project has is
    exported by `GET /v1/projects/{id}/export`."""
    made = await export_account(resources.sessions, user_id)
    headers = {"Content-Disposition": f'attachment; filename="{made.file_name}"'}
    return await stream_file(made.content, "application/zip", headers)


@router.delete(
    "/account",
    status_code=202,
    summary="Delete the account for good",
    dependencies=[needs(Scope.ACCOUNT_WRITE), needs(Scope.BUILDS_WRITE), expensive],
    responses=problems(*TAKES_BODY, 404, 409),
)
async def erase(
    body: AccountErasure, identity: CurrentIdentity, resources: ResourcesDep, response: Response
) -> ErasureOut:
    """Delete what is known of you, and all projects that no one else is a member of. Open builds are cancelled, and the
    account can start none from now on. Projects of organisations with other members stay there. If you are the only
    owner of one of them, make someone else an owner first. Nothing can be brought back.

    Your keys and sign-ins stop working soon. If the operator's identity provider makes users automatically, its access
    token makes a new, empty account while it is valid. `GET /v1/certificates/{id}` needs no credentials: keep
    the id."""
    erasure = await erase_user(
        resources.sessions.acting(Access.everything()),
        resources.workflows,
        identity.user_id,
        identity.actor,
        confirmed=body.user_id,
    )
    response.headers["Location"] = f"/v1/certificates/{erasure.id}"
    return ErasureOut.of(erasure)


@router.patch(
    "/account",
    summary="Change an account",
    dependencies=[needs(Scope.OPS_WRITE)],
    responses=problems(*TAKES_BODY, 403, 409),
)
async def change(new: AccountChange, user_id: CurrentUserId, resources: ResourcesDep) -> AccountOut:
    """For operators. Makes a user that is new. Open builds are notified and check their budget again."""
    models = check_models(new.model_choices(), resources.settings.model_prices)
    now = datetime.now(UTC)
    changes = UserChange(new.plan, models, new.suspended, new.renewal_day)
    async with request_transaction(resources.sessions) as tx:
        account = await change_account(tx, user_id, changes, now.date())
    return await _notify(resources, account, now)


@router.post(
    "/account/top-ups",
    summary="Top up an account",
    dependencies=[needs(Scope.OPS_WRITE)],
    responses=problems(*TAKES_BODY, 403, 404, 409),
)
async def top_up(
    new: NewTopUp, user_id: CurrentUserId, resources: ResourcesDep, idempotency_key: IdempotencyKey = None
) -> AccountOut:
    """For operators. Adds in full to what the user may spend today; open builds are notified. A repeat with the same
    `Idempotency-Key` adds nothing."""
    now = datetime.now(UTC)
    async with request_transaction(resources.sessions) as tx:
        account = await top_up_account(tx, user_id, new.amount, now.date(), note=new.note, key=idempotency_key)
    return await _notify(resources, account, now)


async def _notify(resources: Resources, account: Account, now: datetime) -> AccountOut:
    """Notify the open builds of a change that is committed, and show the account."""
    try:
        await notify_budget_changed(resources.sessions, resources.workflows, account.user.id)
    except (RPCError, RuntimeError) as error:
        log.warning("the reaper will notify the builds of the change", user_id=account.user.id, error=error)
    return AccountOut.of(account, now, operator=True)
