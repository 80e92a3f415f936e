"""API keys of a user: programs send them as `Authorization: Bearer …`."""

from datetime import timedelta

from fastapi import APIRouter, Path, Response

from api.deps import CurrentIdentity, CurrentUserId, TransactionDep, needs
from api.identity_schemas import KeyList, KeyOut, KeyRotation, MadeKeyOut, NewKey
from api.responses import TAKES_BODY, problems
from domain.identity import FOUNDER_SCOPES, Scope
from services import api_keys

router = APIRouter(prefix="/keys", tags=["identity"])

KeyId = Path(description="The key's id: its part between the underscores.", max_length=200)


@router.get("", summary="List API keys", dependencies=[needs(Scope.ACCOUNT_READ)], responses=problems(422))
async def read_all(user_id: CurrentUserId, tx: TransactionDep) -> KeyList:
    """The user's keys that work, without their secrets. The newest comes first."""
    return KeyList(keys=[KeyOut.of(key) for key in await api_keys.list_keys(tx, user_id)])


@router.post(
    "",
    status_code=201,
    summary="Make an API key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(*TAKES_BODY, 404, 409),
)
async def create(new: NewKey, identity: CurrentIdentity, tx: TransactionDep) -> MadeKeyOut:
    """Make a key that acts for the user. The response has its secret, which is shown only this once.

    A key has no scope that its maker does not have. A key that is made with another key expires with that one at the
    latest, and is revoked with it."""
    scopes = identity.scopes & FOUNDER_SCOPES if new.scopes is None else frozenset(new.scopes)
    lifetime = None if new.days is None else timedelta(days=new.days)
    made = await api_keys.create_key(tx, identity, new.name, scopes, lifetime)
    return MadeKeyOut(key=KeyOut.of(made.key), secret=made.text)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    summary="Rotate an API key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(*TAKES_BODY, 404, 409),
)
async def rotate(
    identity: CurrentIdentity, tx: TransactionDep, rotation: KeyRotation, key_id: str = KeyId
) -> MadeKeyOut:
    """Make a new key with the same name, scopes and lifetime. The old one works until the overlap has passed, so that
    the program that uses it can be given the new one without a break."""
    made = await api_keys.rotate_key(tx, identity, key_id, timedelta(seconds=rotation.overlap_seconds))
    return MadeKeyOut(key=KeyOut.of(made.key), secret=made.text)


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(404, 422),
)
async def revoke(user_id: CurrentUserId, tx: TransactionDep, key_id: str = KeyId) -> Response:
    """End a key at once, with the keys and sign-ins that were made with it, and with the keys that it has replaced."""
    await api_keys.revoke_key(tx, user_id, key_id)
    return Response(status_code=204)
