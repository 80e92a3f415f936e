"""Certificates of archives and exports: rows that are only ever added."""

import uuid

from sqlalchemy import func, select

from db import access, models
from db.transaction import Transaction
from domain.certificates import Certificate, Statement


async def issue(tx: Transaction, certificate_id: uuid.UUID, statement: Statement) -> Certificate:
    """Insert the certificate, in the transaction of what it is about. It is never changed."""
    issued_at = (await tx.session.execute(select(func.clock_timestamp()))).scalar_one()
    certificate = Certificate(**vars(statement), id=certificate_id, issued_at=issued_at)
    row = models.Certificate(**vars(certificate) | {"counts": dict(certificate.counts)}, sha256=certificate.sha256)
    tx.session.add(row)
    await tx.session.flush()
    return certificate


async def find_certificate(
    tx: Transaction, certificate_id: uuid.UUID, user_id: str | None
) -> models.Certificate | None:
    """Return a certificate that the user may see, or anyone's if `user_id` is None."""
    query = select(models.Certificate).where(models.Certificate.id == certificate_id)
    if user_id is not None:
        query = query.where(access.owned(models.Certificate, user_id))
    return (await tx.session.scalars(query)).one_or_none()


async def certificates_of_project(tx: Transaction, project_id: uuid.UUID, limit: int) -> list[models.Certificate]:
    """Return up to `limit` certificates about a project, the newest first."""
    query = (
        select(models.Certificate)
        .where(models.Certificate.project_id == project_id)
        .order_by(models.Certificate.issued_at.desc(), models.Certificate.id)
        .limit(limit)
    )
    return list(await tx.session.scalars(query))
