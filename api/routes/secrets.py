"""Secrets that a founder sets for their product. Only names are read back."""

import uuid

from fastapi import APIRouter, Response

from api.deps import CurrentUserId, ResourcesDep, TransactionDep, needs
from api.responses import TAKES_BODY, problems
from api.schemas import NewSecret, SecretList, SecretOut
from clients.cipher import cipher_of
from db.project_secrets import list_secrets
from db.projects import find_project
from domain.errors import NotFound
from domain.identity import Scope
from services import product_secrets

router = APIRouter(prefix="/projects/{project_id}/secrets", tags=["secrets"])


@router.get("", dependencies=[needs(Scope.BUILDS_READ)], summary="List secrets", responses=problems(404, 422))
async def read_names(project_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> SecretList:
    """The names of the project's secrets. Values are never read back."""
    if await find_project(tx, user_id, project_id) is None:
        raise NotFound(f"There is no project {project_id}.")
    return SecretList(secrets=[SecretOut.of(secret) for secret in await list_secrets(tx, project_id)])


@router.put(
    "/{name}",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    summary="Set a secret",
    responses=problems(*TAKES_BODY, 403, 404, 409),
)
async def set_value(
    project_id: uuid.UUID,
    name: str,
    new: NewSecret,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    tx: TransactionDep,
) -> SecretOut:
    """Set a secret, or replace its value, encrypted. The product reads it from the environment variable of this name,
    when its preview starts the next time. The agent sees only the name: its commands and the checks have a stand-in,
    `stand-in-` and the name."""
    cipher = cipher_of(resources.settings)
    value = new.value.get_secret_value()
    return SecretOut.of(await product_secrets.set_secret(tx, cipher, user_id, project_id, name, value))


@router.delete(
    "/{name}",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=204,
    summary="Remove a secret",
    responses=problems(404, 422),
)
async def remove(project_id: uuid.UUID, name: str, user_id: CurrentUserId, tx: TransactionDep) -> Response:
    """Remove a secret. A preview that is open keeps it until it closes."""
    await product_secrets.remove_secret(tx, user_id, project_id, name)
    return Response(status_code=204)
