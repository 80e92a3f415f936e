"""Whether the key or sign-in of an identity still works, for what lasts longer than a request."""

import uuid

from db.api_keys import key_works
from db.sign_ins import find_sign_in_by_id
from db.transaction import Transaction
from domain.identity import How, Identity


async def still_works(tx: Transaction, identity: Identity) -> bool:
    """Whether the identity's key or sign-in has been neither revoked nor ended. Other credentials can't be.

    Args:
        tx: with access to every row: an operator's key belongs to another user than the identity does.
    """
    if identity.credential_id is None:
        return True
    if identity.how is How.API_KEY:
        return await key_works(tx, identity.credential_id)
    if identity.how is How.SIGN_IN:
        found = await find_sign_in_by_id(tx, uuid.UUID(identity.credential_id))
        return (
            found is not None and found.key_works and found.row.revoked_at is None and found.row.expires_at > found.now
        )
    return True
