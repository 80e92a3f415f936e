"""Certificates, for those who may see them."""

import uuid

from db.certificates import find_certificate
from db.erasures import find_erasure
from db.models import Certificate, Erasure
from db.transaction import Transaction
from domain.errors import NotFound


async def require_certificate(
    tx: Transaction, user_id: str, certificate_id: uuid.UUID, *, of_anyone: bool
) -> Certificate | Erasure:
    """The certificate with this id, of whatever kind.

    Raises:
        NotFound: there is none, or the user may not see it.
    """
    whose = None if of_anyone else user_id
    certificate = await find_certificate(tx, certificate_id, whose) or await find_erasure(tx, certificate_id, whose)
    if certificate is None:
        raise NotFound(f"There is no certificate {certificate_id}.")
    return certificate
