"""Let people see private previews: members of the project, and those who have a link to it.

A browser gets a code from an address of the API, where its sign-in is, and takes it to the preview's own host. There it
becomes a cookie. The code works once, for half a minute, and only in the browser that asked: it is bound to `state`,
the hash of a cookie that the preview's host has set before.
"""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from db import preview_access
from db.models import PreviewLink, PreviewVisit
from db.transaction import Transaction
from domain.audit import Action
from domain.errors import NotFound, Refused
from domain.identity import How, Identity, Right, Scope
from services.audit import record
from services.builds import require_build

LINK_HOURS = 7 * 24
"""A link works this many hours, unless its maker says otherwise."""

LONGEST_LINK_HOURS = 90 * 24

_CODE_LIFETIME = timedelta(seconds=30)

VISIT_LIFETIME = timedelta(hours=12)
"""A browser is sent to the API once more after this long. It notices nothing while its sign-in or its link works."""

_LINK_REFUSED = (
    "This link does not show the preview: it has expired, was revoked, or is not complete. Ask the person who sent it "
    "for another."
)


@dataclass(frozen=True)
class NewLink:
    """A link that was just made. `secret` is stored nowhere else."""

    link: PreviewLink
    secret: str


async def make_link(tx: Transaction, identity: Identity, build_id: uuid.UUID, hours: int = LINK_HOURS) -> NewLink:
    """Make a link with which anyone can see the build's preview.

    Raises:
        NotFound: the user can't see the build.
        Refused: the user may only look at the project.
    """
    build = await require_build(tx, identity.user_id, build_id, Right.CHANGE)
    secret = secrets.token_urlsafe(32)
    link = PreviewLink(id=uuid.uuid4(), build_id=build_id, token_hash=_hash(secret), created_by=identity.actor)
    added = await preview_access.add_link(tx, link, timedelta(hours=hours))
    await record(
        tx, Action.PREVIEW_LINK_CREATE, project_id=build.project_id, build_id=build_id, link_id=link.id, hours=hours
    )
    return NewLink(added, secret)


async def list_links(tx: Transaction, identity: Identity, build_id: uuid.UUID) -> Sequence[PreviewLink]:
    """The links to the build's preview that work, the newest first.

    Raises:
        NotFound: the user can't see the build.
    """
    await require_build(tx, identity.user_id, build_id)
    return await preview_access.list_links(tx, build_id)


async def revoke_link(tx: Transaction, identity: Identity, build_id: uuid.UUID, link_id: uuid.UUID) -> None:
    """End a link, and the visits of everyone who has used it.

    Raises:
        NotFound: the user can't see the build, or it has no such link that works.
        Refused: the user may only look at the project.
    """
    build = await require_build(tx, identity.user_id, build_id, Right.CHANGE)
    if not await preview_access.revoke_link(tx, build_id, link_id):
        raise NotFound(f"The preview of build {build_id} has no link {link_id} that works.")
    await record(tx, Action.PREVIEW_LINK_REVOKE, project_id=build.project_id, build_id=build_id, link_id=link_id)


async def may_see(tx: Transaction, identity: Identity, build_id: uuid.UUID) -> bool:
    """Whether the identity may see the build's preview."""
    return identity.may(Scope.BUILDS_READ) and await preview_access.may_see(tx, identity.user_id, build_id)


async def code_for(tx: Transaction, identity: Identity, build_id: uuid.UUID, state: str) -> str | None:
    """A code for the browser of a signed-in user; None if the user may not see the build."""
    if not await may_see(tx, identity, build_id):
        return None
    sign_in_id = uuid.UUID(identity.credential_id) if identity.how is How.SIGN_IN and identity.credential_id else None
    return await _add_visit(tx, build_id, state, user_id=identity.user_id, sign_in_id=sign_in_id)


async def code_for_link(tx: Transaction, build_id: uuid.UUID, secret: str, state: str) -> str:
    """A code for the browser of someone who has a link.

    Raises:
        Refused: the link does not work.
    """
    link = await preview_access.find_link(tx, build_id, _hash(secret))
    if link is None:
        raise Refused(_LINK_REFUSED)
    return await _add_visit(tx, build_id, state, link_id=link.id)


async def begin_visit(tx: Transaction, build_id: uuid.UUID, code: str, state: str) -> str | None:
    """Use up a code, and return the token for the browser's cookie; None if the code does not work."""
    token = secrets.token_urlsafe(32)
    begun = await preview_access.begin_visit(tx, build_id, _bound(code, state), _hash(token), VISIT_LIFETIME)
    return token if begun else None


async def may_visit(tx: Transaction, build_id: uuid.UUID, token: str) -> bool:
    """Whether a browser with this token in its cookie may see the build's preview now."""
    return await preview_access.may_visit(tx, build_id, _hash(token))


def state_of(nonce: str) -> str:
    """What binds a code to the browser that has this random text in a cookie."""
    return hashlib.sha256(nonce.encode()).hexdigest()


async def _add_visit(
    tx: Transaction,
    build_id: uuid.UUID,
    state: str,
    *,
    user_id: str | None = None,
    sign_in_id: uuid.UUID | None = None,
    link_id: uuid.UUID | None = None,
) -> str:
    code = secrets.token_urlsafe(32)
    visit = PreviewVisit(
        id=uuid.uuid4(),
        build_id=build_id,
        code_hash=_bound(code, state),
        user_id=user_id,
        sign_in_id=sign_in_id,
        link_id=link_id,
    )
    await preview_access.add_visit(tx, visit, _CODE_LIFETIME)
    return code


def _bound(code: str, state: str) -> bytes:
    return _hash(f"{code} {state}")


def _hash(secret: str) -> bytes:
    """SHA-256 suffices: the secrets are random, so no one can try a dictionary on them."""
    return hashlib.sha256(secret.encode()).digest()
