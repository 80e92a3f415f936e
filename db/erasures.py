"""Erasures: their rows, what each has to erase, and the statements that delete a founder's rows.

The ledger's entries stay, without their build, so that money adds up. If a founder is erased, they and the days' totals
belong to a user whose random id no one else has.
"""

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from db import access
from db.build_archives import ARCHIVES_PREFIX
from db.images import images_noted, noted_by_others
from db.models import (
    Build,
    BuildArchive,
    Erasure,
    GateRun,
    Membership,
    Organisation,
    Preview,
    Project,
    ToolCall,
    User,
    WebhookDelivery,
)
from db.organisations import lock_members
from db.phase_diffs import DIFFS_PREFIX
from db.snapshots import SNAPSHOTS_PREFIX
from db.stored_exports import EXPORTS_PREFIX, exports_with
from db.tombstones import doom_prefixes
from db.transaction import Transaction
from domain.conversation import IMAGE_MARK
from domain.erasure import ErasureCertificate, ErasureKind, new_stand_in
from domain.identity import Role

_SHA256 = re.compile(r"[0-9a-f]{64}")


async def insert_erasure(
    tx: Transaction, kind: ErasureKind, user_id: str, project_id: uuid.UUID | None, requested_by: str
) -> Erasure | None:
    """Insert the erasure of a project, or of a user; None if there is one already."""
    return await tx.session.scalar(
        insert(Erasure)
        .values(id=uuid.uuid4(), kind=kind, user_id=user_id, project_id=project_id, requested_by=requested_by)
        .on_conflict_do_nothing()
        .returning(Erasure)
    )


async def find_erasure_of(tx: Transaction, user_id: str, project_id: uuid.UUID | None) -> Erasure | None:
    """Return the erasure of a project; without a project, the one of the user that is under way."""
    query = select(Erasure)
    if project_id is not None:
        query = query.where(Erasure.project_id == project_id)
    else:
        query = query.where(Erasure.user_id == user_id, Erasure.project_id.is_(None), Erasure.finished_at.is_(None))
    return (await tx.session.scalars(query)).one_or_none()


async def is_being_erased(tx: Transaction, project_id: uuid.UUID) -> bool:
    """Whether the erasure of the project was requested."""
    return await tx.session.scalar(select(Erasure.id).where(Erasure.project_id == project_id)) is not None


async def find_erasure(tx: Transaction, erasure_id: uuid.UUID, user_id: str | None) -> Erasure | None:
    """Return an erasure of the user's data, or of anyone's if `user_id` is None."""
    query = select(Erasure).where(Erasure.id == erasure_id)
    if user_id is not None:
        query = query.where(access.owned(Erasure, user_id))
    return (await tx.session.scalars(query)).one_or_none()


async def list_erasures(
    tx: Transaction, user_id: str | None, limit: int, after: tuple[datetime, uuid.UUID] | None = None
) -> list[Erasure]:
    """Return erasures of a user's data, or of everyone's, the newest first; those after the given one."""
    query = select(Erasure).order_by(Erasure.requested_at.desc(), Erasure.id.desc()).limit(limit)
    if user_id is not None:
        query = query.where(access.owned(Erasure, user_id))
    if after is not None:
        query = query.where(tuple_(Erasure.requested_at, Erasure.id) < after)
    return list(await tx.session.scalars(query))


async def erasures_to_start(tx: Transaction, requested_before: datetime, started_before: datetime) -> list[uuid.UUID]:
    """Return unfinished erasures whose workflow is not known to have been started since they were requested; and those
    whose workflow was started so long ago that it may be gone."""
    is_new = Erasure.started_at.is_(None) & (Erasure.requested_at < requested_before)
    query = select(Erasure.id).where(Erasure.finished_at.is_(None), is_new | (Erasure.started_at < started_before))
    return list(await tx.session.scalars(query))


async def mark_started(tx: Transaction, erasure_id: uuid.UUID) -> None:
    """Note that the erasure's workflow was started, or runs."""
    await tx.session.execute(update(Erasure).where(Erasure.id == erasure_id).values(started_at=func.now()))


async def archive_all(tx: Transaction, projects: Sequence[uuid.UUID]) -> None:
    """Archive the projects, so that no build of them is started. Waits for builds that are being inserted."""
    await tx.session.execute(select(Project.id).where(Project.id.in_(projects)).order_by(Project.id).with_for_update())
    await tx.session.execute(
        update(Project)
        .where(Project.id.in_(projects))
        .values(archived_at=func.coalesce(Project.archived_at, func.now()))
    )


async def organisations_left_ownerless(tx: Transaction, user_id: str) -> list[str]:
    """Return the names of organisations that have other members, and no owner but this user and suspended ones. Their
    members stay as they are until the transaction ends."""
    await _lock_members(tx, user_id)
    others = (Membership.role == Role.OWNER, Membership.user_id != user_id, User.suspended.is_(False))
    query = (
        select(Organisation.name)
        .join(Membership, Membership.org_id == Organisation.id)
        .join(User, User.id == Membership.user_id)
        .group_by(Organisation.id, Organisation.name)
        .having(func.bool_or(Membership.user_id == user_id), func.count() > 1, func.count().filter(*others) == 0)
        .order_by(Organisation.name)
    )
    return list(await tx.session.scalars(query))


async def _lock_members(tx: Transaction, user_id: str) -> None:
    query = select(Membership.org_id).where(Membership.user_id == user_id).order_by(Membership.org_id)
    for org_id in (await tx.session.scalars(query)).all():
        await lock_members(tx, org_id)


# ---- what there is to erase


_OF_BUILDS = (SNAPSHOTS_PREFIX, DIFFS_PREFIX, ARCHIVES_PREFIX)


@dataclass(frozen=True)
class Scope:
    """The projects, builds and exports that an erasure is about."""

    projects: Sequence[uuid.UUID]
    builds: Sequence[uuid.UUID]
    exports: Sequence[uuid.UUID] = ()

    @property
    def prefixes(self) -> dict[str, uuid.UUID]:
        """What the keys of their objects begin with, images aside, each with its build or export."""
        of_builds = {f"{prefix}{each}/": each for each in self.builds for prefix in _OF_BUILDS}
        return of_builds | {f"{EXPORTS_PREFIX}{each}/": each for each in self.exports}

    def beyond(self, earlier: "Scope") -> int:
        """How many things there are that an earlier look has not found."""
        pairs = ((self.projects, earlier.projects), (self.builds, earlier.builds), (self.exports, earlier.exports))
        return sum(len({*now} - {*before}) for now, before in pairs)


async def read_scope(tx: Transaction, erasure: Erasure) -> Scope:
    """Return what the erasure still finds in the database."""
    of_user = erasure.user_id if erasure.kind == ErasureKind.USER else None
    projects = await _projects_of(tx, erasure)
    builds = await tx.session.scalars(select(Build.id).where(Build.project_id.in_(projects)).order_by(Build.id))
    exports = await exports_with(tx, projects, of_user, erasure.requested_at)
    return Scope(projects, builds.all(), [each.id for each in exports])


async def lock_scope(tx: Transaction, erasure: Erasure) -> Scope:
    """Return what the erasure still finds, which stays all of it until the transaction ends."""
    if erasure.kind == ErasureKind.USER:
        await _lock_members(tx, erasure.user_id)
    await archive_all(tx, await _projects_of(tx, erasure))  # and lock them
    return await read_scope(tx, erasure)


async def _projects_of(tx: Transaction, erasure: Erasure) -> list[uuid.UUID]:
    if erasure.project_id is not None:
        return [erasure.project_id]
    alone = (
        select(Membership.org_id)
        .group_by(Membership.org_id)
        .having(func.count() == func.count().filter(Membership.user_id == erasure.user_id))
    )
    own = select(Organisation.id).where(Organisation.personal_of == erasure.user_id)
    query = select(Project.id).where(Project.org_id.in_(alone) | Project.org_id.in_(own)).order_by(Project.id)
    return list(await tx.session.scalars(query))


async def open_builds(tx: Transaction, erasure: Erasure, scope: Scope) -> list[Build]:
    """Return the open builds of the projects, and all that the user pays for if the user is erased."""
    of_user = erasure.user_id if erasure.kind == ErasureKind.USER else None
    condition = or_(Build.project_id.in_(scope.projects), Build.user_id == of_user)
    return list(await tx.session.scalars(select(Build).where(Build.closed_at.is_(None), condition)))


async def open_previews(tx: Transaction, builds: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Return those of the builds whose preview is open or opening."""
    query = select(Preview.build_id).where(Preview.build_id.in_(builds), Preview.state.in_(("open", "opening")))
    return list(await tx.session.scalars(query))


async def deliveries_of(tx: Transaction, builds: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Return the deliveries to webhooks that are about the builds."""
    return list(await tx.session.scalars(select(WebhookDelivery.id).where(WebhookDelivery.build_id.in_(builds))))


_SEEN_BY = text(
    """
    select distinct shown.hash from tool_calls, lateral regexp_matches(result, :mark, 'g') as found (hashes),
        lateral unnest(found.hashes) as shown (hash)
    where position(:begin in result) > 0 and build_id = any(:builds)
    union
    select distinct shot.value from gate_runs, lateral jsonb_each_text(screenshots) as shot
    where build_id = any(:builds)
    union
    select distinct shown.value from build_archives, lateral jsonb_array_elements_text(images) as shown
    where build_id = any(:builds)
    """
)
"""The images that builds have seen. An image is stored once, however many builds have seen it."""

_BUILDS_AT_ONCE = 200
"""Look through the tool calls of this many builds in a statement, which takes a second or so."""

_BUILDS_DELETED_AT_ONCE = 5
"""Delete this many builds in a statement. One may have tens of thousands of rows, and a statement has a minute."""


async def images_of(tx: Transaction, builds: Sequence[uuid.UUID]) -> set[str]:
    """Return the hashes of the images that only these builds have seen."""
    results = await tx.session.scalars(
        select(ToolCall.result).where(ToolCall.build_id.in_(builds), ToolCall.result.contains(IMAGE_MARK))
    )
    mark = re.compile(re.escape(IMAGE_MARK) + r"([0-9a-f]{64})")
    hashes = {found for result in results for found in mark.findall(result or "")}
    for shots in await tx.session.scalars(select(GateRun.screenshots).where(GateRun.build_id.in_(builds))):
        hashes |= _hashes(shots.values())
    for shown in await tx.session.scalars(select(BuildArchive.images).where(BuildArchive.build_id.in_(builds))):
        hashes |= _hashes(shown)
    hashes |= await images_noted(tx, builds)
    hashes -= await noted_by_others(tx, hashes, builds)
    pattern = re.sub(r"([^\w\s])", r"\\\1", IMAGE_MARK) + "([0-9a-f]{64})"
    last: uuid.UUID | None = None
    while hashes:
        query = select(Build.id).where(Build.id.not_in(builds)).order_by(Build.id).limit(_BUILDS_AT_ONCE)
        others = list(await tx.session.scalars(query if last is None else query.where(Build.id > last)))
        if not others:
            break
        last = others[-1]
        rows = await tx.session.execute(_SEEN_BY, {"mark": pattern, "begin": IMAGE_MARK, "builds": others})
        hashes -= _hashes(value for (value,) in rows)
    return hashes


def _hashes(keys: Collection[str] | object) -> set[str]:
    assert hasattr(keys, "__iter__")
    return {found for key in keys for found in _SHA256.findall(str(key))}


async def note_counts(tx: Transaction, erasure_id: uuid.UUID, counts: Mapping[str, int]) -> None:
    """Note how many things there are, before they are erased. A repeated step finds fewer; the first count stays."""
    row = await tx.session.get_one(Erasure, erasure_id, with_for_update=True)
    row.counts = {**row.counts, **{name: max(count, row.counts.get(name, 0)) for name, count in counts.items()}}
    await tx.session.flush()


# ---- deleting the rows

_COUNTED = (
    *("messages", "prompts", "turns", "tool_calls", "compactions", "events", "founder_messages", "questions"),
    *("gate_runs", "restores", "webhook_deliveries", "snapshots", "phase_diffs", "business_events"),
)

_BEFORE_BUILDS = (
    "update builds set start_build_id = null, start_snapshot = null where id = any(:builds)",
    "delete from business_events where project_id = any(:projects)",
    "delete from snapshots where project_id = any(:projects)",
    "delete from exports where project_id = any(:projects)",
    "update exports set deleted_at = now(), expires_at = least(expires_at, now()) "
    "where id = any(:exports) and stored_at is not null and deleted_at is null",
)

_BUILD_ROWS = (
    "update ledger set build_id = null where build_id = any(:builds)",
    "delete from doomed_objects where build_id = any(:builds)",
    "delete from permits where build_id = any(:builds)",
    "delete from builds where id = any(:builds)",  # and with them all that belongs to a build
)

_PROJECT_ROWS = ("delete from projects where id = any(:projects)",)
"""And with them briefs, interviews and secrets."""

_USER_ROWS = (
    "insert into users (id, plan, suspended, renewal_day, created_at) "
    "select :stand_in, plan, true, renewal_day, date_trunc('month', created_at) from users where id = :user",
    "delete from organisations where personal_of = :stand_in",
    "insert into user_days (user_id, day, from_plan, created_at) "
    "select :stand_in, day, from_plan, created_at from user_days where user_id = :user",
    "update ledger set user_id = :stand_in where user_id = :user",
    "delete from user_days where user_id = :user",
    "update top_ups set user_id = :stand_in, note = null, idempotency_key = null where user_id = :user",
    "update projects set user_id = :stand_in, idempotency_key = null where user_id = :user",
    "update builds set user_id = :stand_in, idempotency_key = null where user_id = :user",
    "update project_secrets set set_by = :stand_in where set_by = :user",
    "update webhooks set created_by = :stand_in where created_by = :user",
    "update preview_links set created_by = :stand_in where created_by = :user",
    "delete from exports where user_id = :user",
    "delete from preview_visits where user_id = :user",
    "delete from sign_ins where user_id = :user or api_key_id in (select id from api_keys where user_id = :user)",
    "delete from sign_in_codes where user_id = :user or api_key_id in (select id from api_keys where user_id = :user)",
    "delete from api_keys where user_id = :user",
    "delete from user_identities where user_id = :user",
    "delete from organisations where personal_of = :user",  # and with it its webhooks
    "delete from organisations where id in ("
    "  select org_id from memberships group by org_id having bool_and(user_id = :user))",
    "delete from memberships where user_id = :user",
    "delete from switches where scope = 'user' and key = :user",
    "delete from request_buckets where identity = :user",
    # Not who it was for the identity provider, nor from where; the id stays.
    "update audit set ip = null, "
    "credential_id = case when actor = :user and how = 'jwt' then null else credential_id end, "
    "fields = case when user_id = :user then fields - 'subject' else fields end "
    "where (actor = :user or user_id = :user) "
    "and (ip is not null or (how = 'jwt' and actor = :user and credential_id is not null) or fields ? 'subject')",
    "update bulk_runs set credential_id = null where actor = :user and how = 'jwt'",
    "delete from users where id = :user",
)


async def erase_rows(tx: Transaction, erasure: Erasure, scope: Scope) -> None:
    """Delete the rows of the projects, and of the user if the user is erased, and note how many there were."""
    await tx.session.execute(text("select set_config('cofounder.erasure', :id, true)"), {"id": str(erasure.id)})
    projects = {"projects": list(scope.projects), "builds": list(scope.builds), "exports": list(scope.exports)}
    counts = {"projects": len(scope.projects), "builds": len(scope.builds), "exports": len(scope.exports)}
    for table in _COUNTED:
        found = await tx.session.scalar(
            text(f"select count(*) from {table} where build_id = any(:builds)"),
            {"builds": projects["builds"]},
        )
        counts[table] = int(found or 0)
    kept = text("select count(*) from ledger where build_id = any(:builds)")
    counts["ledger_entries_kept"] = int(await tx.session.scalar(kept, {"builds": projects["builds"]}) or 0)
    await note_counts(tx, erasure.id, counts)
    parts = [
        {"builds": projects["builds"][start : start + _BUILDS_DELETED_AT_ONCE]}
        for start in range(0, len(scope.builds), _BUILDS_DELETED_AT_ONCE)
    ]
    deletions = [(statement, projects) for statement in _BEFORE_BUILDS]
    deletions += [(statement, part) for part in parts for statement in _BUILD_ROWS]
    deletions += [(statement, projects) for statement in _PROJECT_ROWS]
    for statement, values in deletions:
        names = {name: value for name, value in values.items() if f":{name})" in statement}
        await tx.session.execute(text(statement), names)
    await doom_prefixes(tx, scope.prefixes)
    if erasure.kind == ErasureKind.USER:
        users = {"user": erasure.user_id, "stand_in": new_stand_in()}
        for statement in _USER_ROWS:
            named = {name: value for name, value in users.items() if f":{name}" in statement}
            await tx.session.execute(text(statement), named)


async def finish(tx: Transaction, erasure_id: uuid.UUID) -> ErasureCertificate:
    """Close the erasure with its certificate. It is never changed from then on."""
    row = await tx.session.get_one(Erasure, erasure_id, with_for_update=True)
    if row.finished_at is None:
        row.finished_at = (await tx.session.execute(select(func.clock_timestamp()))).scalar_one()
        row.sha256 = certificate_of(row).sha256
        await tx.session.flush()
    return certificate_of(row)


def certificate_of(row: Erasure) -> ErasureCertificate:
    """The certificate of an erasure that has finished."""
    assert row.finished_at is not None
    return ErasureCertificate(
        id=row.id,
        kind=ErasureKind(row.kind),
        user_id=row.user_id,
        project_id=row.project_id,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        finished_at=row.finished_at,
        counts=row.counts,
    )
