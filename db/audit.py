"""The audit: entries are only ever added, which a trigger enforces."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import UUID, Text, bindparam, select, text

from db.models import AuditEntry
from db.transaction import Transaction
from domain.audit import Action, Author


@dataclass(frozen=True)
class Subject:
    """What an act concerns. `fields`: further ids and numbers, and under `changed` names of fields."""

    user_id: str | None = None
    org_id: uuid.UUID | None = None
    project_id: uuid.UUID | None = None
    build_id: uuid.UUID | None = None
    fields: Mapping[str, str | int | Sequence[str]] | None = None


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are listed."""

    since: datetime | None = None
    user_id: str | None = None
    """Entries that concern the user, or that the user made."""
    action: Action | None = None
    before: int | None = None
    """Only entries with a lower id."""


_INSERT = text(
    """
    insert into audit (actor, how, credential_id, action, user_id, org_id, project_id, build_id, fields, request_id, ip)
    values (:actor, :how, :credential, :action, :user, :org, :project, :build, cast(:fields as jsonb), :request, :ip)
    """
).bindparams(
    *[bindparam(name, type_=Text()) for name in ("actor", "how", "credential", "action", "user", "request", "ip")],
    *[bindparam(name, type_=UUID(as_uuid=True)) for name in ("org", "project", "build")],
    bindparam("fields", type_=Text()),
)


async def add_entry(tx: Transaction, author: Author, action: Action, subject: Subject) -> None:
    """Add an entry. Nothing is read back, which not everyone who may add an entry may do."""
    await tx.execute(
        _INSERT,
        {
            "actor": author.actor,
            "how": author.how,
            "credential": author.credential_id,
            "action": action,
            "user": subject.user_id,
            "org": subject.org_id,
            "project": subject.project_id,
            "build": subject.build_id,
            "fields": json.dumps(dict(subject.fields or {})),
            "request": author.request_id,
            "ip": author.ip,
        },
    )


_DONE_LATELY = text(
    """
    select exists (
        select from audit where at > clock_timestamp() - interval '1 hour' and action = :action and actor = :actor
            and credential_id is not distinct from :credential and (:user is null or user_id = :user)
    )
    """
).bindparams(*[bindparam(name, type_=Text()) for name in ("action", "actor", "credential", "user")])


async def has_done_lately(tx: Transaction, author: Author, action: Action, user_id: str | None = None) -> bool:
    """Whether the last hour has an entry of this act of the author, with the same credential, and concerning the user
    if there is one."""
    values = {"action": action, "actor": author.actor, "credential": author.credential_id, "user": user_id}
    return bool((await tx.execute(_DONE_LATELY, values)).scalar())


async def list_entries(tx: Transaction, only: AuditFilter, limit: int) -> list[AuditEntry]:
    """List entries, newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if only.since is not None:
        query = query.where(AuditEntry.at >= only.since)
    if only.user_id is not None:
        query = query.where((AuditEntry.user_id == only.user_id) | (AuditEntry.actor == only.user_id))
    if only.action is not None:
        query = query.where(AuditEntry.action == only.action)
    if only.before is not None:
        query = query.where(AuditEntry.id < only.before)
    return list(await tx.session.scalars(query))
