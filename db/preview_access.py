"""Who may see previews: links that founders make, and the visits of browsers. Only hashes of secrets are stored."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select, update

from db import access
from db.models import ApiKey, Build, PreviewLink, PreviewVisit, SignIn
from db.transaction import Transaction


async def add_link(tx: Transaction, link: PreviewLink, lifetime: timedelta) -> PreviewLink:
    """Insert a link that works that long."""
    link.expires_at = func.now() + lifetime
    tx.session.add(link)
    await tx.session.flush()
    await tx.session.refresh(link)
    return link


async def list_links(tx: Transaction, build_id: uuid.UUID) -> Sequence[PreviewLink]:
    """The build's links that work, the newest first."""
    query = select(PreviewLink).where(PreviewLink.build_id == build_id, _link_works())
    return (await tx.session.scalars(query.order_by(PreviewLink.created_at.desc(), PreviewLink.id))).all()


async def revoke_link(tx: Transaction, build_id: uuid.UUID, link_id: uuid.UUID) -> bool:
    """End a link, and with it the visits that it made. Returns False if the build has no such link that works."""
    revoked = await tx.session.scalar(
        update(PreviewLink)
        .where(PreviewLink.id == link_id, PreviewLink.build_id == build_id, _link_works())
        .values(revoked_at=func.now())
        .returning(PreviewLink.id)
    )
    return revoked is not None


async def find_link(tx: Transaction, build_id: uuid.UUID, token_hash: bytes) -> PreviewLink | None:
    """The build's link with this secret, if it works."""
    query = select(PreviewLink).where(
        PreviewLink.token_hash == token_hash, PreviewLink.build_id == build_id, _link_works()
    )
    return (await tx.session.scalars(query)).one_or_none()


async def add_visit(tx: Transaction, visit: PreviewVisit, lifetime: timedelta) -> None:
    """Insert a visit that has a code, which works that long. Deletes the build's visits that have expired."""
    await tx.session.execute(
        delete(PreviewVisit).where(PreviewVisit.build_id == visit.build_id, PreviewVisit.expires_at < func.now())
    )
    visit.expires_at = func.now() + lifetime
    tx.session.add(visit)
    await tx.session.flush()


async def begin_visit(
    tx: Transaction, build_id: uuid.UUID, code_hash: bytes, token_hash: bytes, lifetime: timedelta
) -> bool:
    """Use up a visit's code and give the visit a token. Returns False if there is no such code that works."""
    begun = await tx.session.scalar(
        update(PreviewVisit)
        .where(
            PreviewVisit.code_hash == code_hash,
            PreviewVisit.build_id == build_id,
            PreviewVisit.expires_at > func.now(),
        )
        .values(code_hash=None, token_hash=token_hash, expires_at=func.now() + lifetime)
        .returning(PreviewVisit.id)
    )
    return begun is not None


async def may_visit(tx: Transaction, build_id: uuid.UUID, token_hash: bytes) -> bool:
    """Whether the browser with this token may see the build's preview now.

    A visit ends with the link or the sign-in that made it, and when its user may no longer see the project.
    """
    visit = (
        await tx.session.scalars(
            select(PreviewVisit)
            .outerjoin(PreviewLink, PreviewLink.id == PreviewVisit.link_id)
            .outerjoin(SignIn, SignIn.id == PreviewVisit.sign_in_id)
            .outerjoin(ApiKey, ApiKey.id == SignIn.api_key_id)
            .where(
                PreviewVisit.token_hash == token_hash,
                PreviewVisit.build_id == build_id,
                PreviewVisit.expires_at > func.now(),
                or_(PreviewVisit.link_id.is_(None), _link_works()),
                or_(
                    PreviewVisit.sign_in_id.is_(None),
                    SignIn.revoked_at.is_(None) & (SignIn.expires_at > func.now()),
                ),
                ApiKey.revoked_at.is_(None),  # the key with which the sign-in was made
                or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
            )
        )
    ).one_or_none()
    if visit is None:
        return False
    return visit.user_id is None or await may_see(tx, visit.user_id, build_id)


async def may_see(tx: Transaction, user_id: str, build_id: uuid.UUID) -> bool:
    """Whether the user may see the build."""
    query = select(Build.id).where(Build.id == build_id, access.owned(Build, user_id))
    return await tx.session.scalar(query) is not None


def _link_works() -> ColumnElement[bool]:
    return PreviewLink.revoked_at.is_(None) & (PreviewLink.expires_at > func.now())
