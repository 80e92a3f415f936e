"""Record acts in the audit, in the transaction of the act: both are committed, or neither is."""

import uuid
from collections.abc import Sequence

from db.audit import Subject, add_entry, has_done_lately
from db.transaction import Transaction
from domain.audit import HARMLESS, Action


async def record(
    tx: Transaction,
    action: Action,
    *,
    user_id: str | None = None,
    org_id: uuid.UUID | None = None,
    project_id: uuid.UUID | None = None,
    build_id: uuid.UUID | None = None,
    changed: Sequence[str] = (),
    **ids: str | int | uuid.UUID | None,
) -> None:
    """Record that the transaction's author does this. Call it once the act can't be refused any more.

    Programs that act by themselves, such as the reaper, have no author, and are not recorded. Neither are harmless acts
    of a user.

    Args:
        user_id: whom it concerns; by default the user for whom the author acts.
        changed: names of fields, never what is in them.
        ids: further ids and numbers. None of them may be text that someone has written.
    """
    author = tx.author
    if author is None or (action in HARMLESS and not author.acts_for_another):
        return
    fields: dict[str, str | int | Sequence[str]] = {
        name: str(value) if isinstance(value, uuid.UUID) else value for name, value in ids.items() if value is not None
    }
    if changed:
        fields["changed"] = sorted(changed)
    subject = Subject(user_id or author.user_id, org_id, project_id, build_id, fields)
    await add_entry(tx, author, action, subject)


async def record_once_an_hour(tx: Transaction, action: Action, user_id: str | None = None) -> None:
    """Record that the transaction's author does this, unless they did it within the last hour. For what pages repeat by
    themselves.

    Args:
        user_id: whom it concerns; with it, each user counts for themselves.
    """
    if tx.author is not None and not await has_done_lately(tx, tx.author, action, user_id):
        await record(tx, action, user_id=user_id)
