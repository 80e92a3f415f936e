"""Previews of ready builds: the projection of their workflows' state."""

import uuid
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from db.builds import is_gone
from db.models import Preview
from db.transaction import Transaction
from domain.errors import NotFound
from domain.payloads import PreviewChange
from domain.traffic import Upstream

_NO_UPSTREAM: dict[str, Any] = {"upstream_url": None, "traffic_token": None}


async def find_preview(tx: Transaction, build_id: uuid.UUID) -> Preview | None:
    """Return the build's preview, if it ever had one."""
    return (await tx.session.scalars(select(Preview).where(Preview.build_id == build_id))).one_or_none()


def upstream_of(preview: Preview) -> Upstream | None:
    """Return where the product of a preview is reached; None if it is not open.

    A worker of the previous version keeps the address in `url` and knows no token. It leaves alone what an earlier
    worker has recorded, which is then that of another sandbox.
    """
    if preview.state != "open" or not preview.sandbox_id:
        return None
    for url, token in ((preview.upstream_url, preview.traffic_token), (preview.url, None)):
        if url is not None and preview.sandbox_id in url:
            return Upstream(url, token)
    return None


async def record_upstream(tx: Transaction, build_id: uuid.UUID, upstream: Upstream) -> None:
    """Write to the preview's row where its product is reached.

    The token is kept as it is, unlike the secrets of products: each request to the preview needs it, SECRETS_KEY may be
    unset, only our own programs read the row, and with its sandbox, after an hour, the token is void.
    """
    values = {"upstream_url": upstream.url, "traffic_token": upstream.token}
    await tx.session.execute(update(Preview).where(Preview.build_id == build_id).values(**values))


async def record_preview(tx: Transaction, change: PreviewChange, reason: str | None) -> bool:
    """Write a preview's state to its row, unless the row has a newer one. Return whether it was written.

    `reason`: the change's, in characters that can be stored.

    Raises:
        NotFound: its build was erased.
    """
    build_id = uuid.UUID(change.build_id)
    if await is_gone(tx, build_id):
        raise NotFound(f"There is no build {build_id}.")
    values = {
        "state": change.state,
        "seq": change.seq,
        "sandbox_id": change.sandbox_id,
        "url": change.url,
        "reason": reason,
        "expires_at": change.expires_at,
    }
    if change.state != "open":
        values |= _NO_UPSTREAM
    written = await tx.session.scalar(
        insert(Preview)
        .values(build_id=build_id, **values)
        .on_conflict_do_update(index_elements=["build_id"], set_=values, where=Preview.seq < change.seq)
        .returning(Preview.seq)
    )
    return written is not None


async def record_log(tx: Transaction, build_id: uuid.UUID, log: str) -> None:
    """Write what the product's last start has printed to its preview's row, for the founder. Secrets are blanked."""
    await tx.session.execute(update(Preview).where(Preview.build_id == build_id).values(log=log))


async def close_preview(tx: Transaction, preview: Preview) -> bool:
    """Close a preview whose workflow has ended. Return False if its row has changed since `preview` was read."""
    values = {"state": "closed", "seq": preview.seq + 1, "sandbox_id": None, "url": None, "expires_at": None}
    values |= _NO_UPSTREAM
    closed = await tx.session.scalar(
        update(Preview)
        .where(Preview.build_id == preview.build_id, Preview.seq == preview.seq)
        .values(**values)
        .returning(Preview.seq)
    )
    return closed is not None
