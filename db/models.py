"""The tables. Constraints enforce what must always hold, so that it does not depend on code alone.

Money is in microdollars (BIGINT), times are UTC, ids are UUIDs. Text that goes to the model is TEXT: JSONB would
reorder its keys, and the sent bytes must never change.
"""

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from domain.bulk import BulkAct, BulkState, ItemState
from domain.erasure import ErasureKind
from domain.identity import How, Role
from domain.status import CLOSED, MAX_NIGHTS, Dependency, SleepPolicy, Status, WaitingFor
from domain.switches import SwitchScope

RETIRED_COLUMNS = frozenset({("restores", "claim")})
"""Table and name of columns that are no longer mapped. The previous version's programs select them while a deployment
rolls, so a migration of the next version drops them and empties this set. They must be nullable or have a default."""


def _one_of(column: str, values: Any) -> str:
    return f"{column} in ({', '.join(repr(str(value)) for value in sorted(values))})"


REQUEST_SETTINGS_BEFORE_0008 = '"thinking":{"type":"adaptive","display":"summarized"},'
"""What versions before migration 0008 sent in every request. Workers of such a version insert rows without it."""


class Base(DeclarativeBase):
    """All tables, with predictable constraint names for migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as a plain class attribute
        str: Text(),
        int: BigInteger(),
        datetime: DateTime(timezone=True),
        date: Date(),
        uuid.UUID: UUID(as_uuid=True),
        dict[str, Any]: JSONB(),
        list[Any]: JSONB(),
    }


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


class PlanTier(Base):
    """What a plan includes. `db/seed.py` inserts the plans."""

    __tablename__ = "plan_tiers"

    name: Mapped[str] = mapped_column(primary_key=True)
    default_models: Mapped[dict[str, Any]] = mapped_column(comment="model by role")
    cycle_budget: Mapped[int | None] = mapped_column(comment="microdollars a billing cycle; null is unlimited")
    concurrent_builds: Mapped[int] = mapped_column(Integer())
    tool_call_cap: Mapped[int] = mapped_column(Integer(), comment="tool calls a build")

    __table_args__ = (
        CheckConstraint("cycle_budget is null or cycle_budget >= 0", name="budget"),
        CheckConstraint("concurrent_builds > 0", name="concurrent"),
        CheckConstraint("tool_call_cap > 0", name="cap"),
    )


class User(Base):
    """A founder's plan, models and standing. A trigger makes each user's personal organisation."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(comment="as their identity provider or they themselves say")
    email: Mapped[str | None] = mapped_column(comment="as their identity provider says; identifies no one")
    plan: Mapped[str] = mapped_column(ForeignKey("plan_tiers.name"), server_default="bootstrapper")
    model_overrides: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"), comment="model by role")
    suspended: Mapped[bool] = mapped_column(server_default=text("false"))
    renewal_day: Mapped[int] = mapped_column(SmallInteger(), server_default="1", comment="day of the month")
    money_changed_at: Mapped[datetime | None] = mapped_column(
        comment="top-up, change of plan or of standing; builds that wait and were not told of it are told"
    )
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        CheckConstraint("renewal_day between 1 and 31", name="renewal_day"),
        CheckConstraint("length(id) between 1 and 200", name="id_length"),
    )


class UserDay(Base):
    """A user's allowance of one UTC day, fixed at its first use. Reserving or settling money locks this row."""

    __tablename__ = "user_days"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    day: Mapped[date]
    from_plan: Mapped[int | None] = mapped_column(comment="the day's share of the cycle; null is unlimited")
    spent: Mapped[int | None] = mapped_column(server_default="0")
    """What the ledger's closed calls of the day cost. A trigger on the ledger keeps it and `reserved` for every writer.

    Null on days before migration 0011, except the last two: their sums are read from the ledger.
    """
    reserved: Mapped[int | None] = mapped_column(server_default="0")
    """What is reserved for the day's open calls."""
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        PrimaryKeyConstraint("user_id", "day"),
        Index("ix_user_days_day", "day"),
        CheckConstraint("from_plan is null or from_plan >= 0", name="from_plan"),
    )


class FleetDay(Base):
    """A part of what all users together have spent and reserved on a UTC day.

    A user counts in the shard `fleet_shard(user_id)`, so that users rarely wait for each other. A deferred trigger on
    `user_days` keeps the totals for every writer.
    """

    __tablename__ = "fleet_days"

    day: Mapped[date]
    shard: Mapped[int] = mapped_column(Integer())
    spent: Mapped[int] = mapped_column(server_default="0")
    reserved: Mapped[int] = mapped_column(server_default="0")
    granted: Mapped[int] = mapped_column(server_default="0")
    """The part of the fleet's daily limit that this shard may use up; see `db/fleet.py`."""

    __table_args__ = (PrimaryKeyConstraint("day", "shard"),)


class SandboxRun(Base):
    """A stretch of time in which a build's workspace or gate had a sandbox; it runs on while `ended_at` is null."""

    __tablename__ = "sandbox_runs"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "started_at"),
        Index("uq_sandbox_runs_open", "build_id", unique=True, postgresql_where=text("ended_at is null")),
        CheckConstraint("ended_at >= started_at", name="order"),
    )


class Limit(Base):
    """A limit of the whole service, see `domain/limits.py`. It holds at once."""

    __tablename__ = "limits"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int | None] = mapped_column(comment="in the limit's unit; null is no limit")
    set_at: Mapped[datetime] = _now()
    set_by: Mapped[str]
    reached_on: Mapped[date | None] = mapped_column(comment="the day on which operators were last alerted")

    __table_args__ = (
        CheckConstraint("value is null or value >= 0", name="not_negative"),
        CheckConstraint("name in ('fleet_day')", name="name"),
    )


class Switch(Base):
    """Builds that an operator has switched off: all of them, or those of a plan, a user or a model."""

    __tablename__ = "switches"

    scope: Mapped[str]
    key: Mapped[str] = mapped_column(server_default="", comment="name of the plan or model, or the user's id")
    off_since: Mapped[datetime] = _now()
    reason: Mapped[str] = mapped_column(comment="for operators")
    by: Mapped[str]

    __table_args__ = (
        PrimaryKeyConstraint("scope", "key"),
        CheckConstraint(_one_of("scope", SwitchScope), name="scope"),
        CheckConstraint("(scope = 'fleet') = (key = '')", name="key"),
    )


class TopUp(Base):
    """Money that an operator adds in full to a user's day. Any of it left spreads over the rest of the cycle."""

    __tablename__ = "top_ups"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    day: Mapped[date]
    amount: Mapped[int] = mapped_column(comment="microdollars")
    note: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        Index("ix_top_ups_user_day", "user_id", "day"),
        CheckConstraint("amount > 0", name="amount"),
    )


class Organisation(Base):
    """Members who share projects. Each user has one of their own, which a trigger makes."""

    __tablename__ = "organisations"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    name: Mapped[str]
    personal_of: Mapped[str | None] = mapped_column(
        ForeignKey("users.id"), unique=True, comment="the user whose own it is; null for one that was created"
    )
    created_at: Mapped[datetime] = _now()

    __table_args__ = (CheckConstraint("length(name) between 1 and 200", name="name_length"),)


class Membership(Base):
    """A user's role in an organisation."""

    __tablename__ = "memberships"

    org_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organisations.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    role: Mapped[str]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        PrimaryKeyConstraint("org_id", "user_id"),
        Index("ix_memberships_user", "user_id"),
        CheckConstraint(_one_of("role", Role), name="role"),
    )


class UserIdentity(Base):
    """A user as an identity provider knows them."""

    __tablename__ = "user_identities"

    issuer: Mapped[str]
    subject: Mapped[str]
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = _now()

    __table_args__ = (PrimaryKeyConstraint("issuer", "subject"),)


class SignInAttempt(Base):
    """A browser that was sent to an identity provider, until it comes back. Only the hash of its state is stored."""

    __tablename__ = "sign_in_attempts"

    state_hash: Mapped[bytes] = mapped_column(LargeBinary(), primary_key=True, comment="SHA-256")
    issuer: Mapped[str] = mapped_column(comment="its name in OIDC_ISSUERS")
    return_to: Mapped[str] = mapped_column(comment="a path of ours")
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_sign_in_attempts_expires_at", "expires_at"),)


class ApiKey(Base):
    """A key with which a program acts for a user. Only the hash of its secret is stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True, comment="the public part of the key")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str]
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(), comment="SHA-256")
    scopes: Mapped[list[Any]] = mapped_column(comment="names of scopes")
    created_at: Mapped[datetime] = _now()
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None] = mapped_column(comment="the key that a rotation made; this one expires soon")


class SignInCode(Base):
    """The code of a sign-in link, which works once. Only its hash is stored."""

    __tablename__ = "sign_in_codes"

    code_hash: Mapped[bytes] = mapped_column(LargeBinary(), primary_key=True, comment="SHA-256")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = _now()
    created_by: Mapped[str]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    scopes: Mapped[list[Any]] = mapped_column(
        server_default=text("'[]'::jsonb"), comment="names of scopes of the sign-in"
    )
    api_key_id: Mapped[str | None] = mapped_column(
        ForeignKey("api_keys.id"), comment="the key that made the link; the sign-in ends with it"
    )


class SignIn(Base):
    """A browser that is signed in. Only the hash of its cookie is stored."""

    __tablename__ = "sign_ins"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(), unique=True, comment="SHA-256")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    method: Mapped[str] = mapped_column(comment="`link`, or the issuer that identified the user")
    scopes: Mapped[list[Any]] = mapped_column(comment="names of scopes")
    created_at: Mapped[datetime] = _now()
    last_used_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    api_key_id: Mapped[str | None] = mapped_column(
        ForeignKey("api_keys.id"), index=True, comment="the key that made the link; the sign-in ends with it"
    )


class AuditEntry(Base):
    """An act of an operator, or one that destroys something. Holds ids and names of fields, never their contents.

    Only ever inserted: a trigger refuses everything else, from any role.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str] = mapped_column(comment="a user's id, or `operator`")
    how: Mapped[str]
    credential_id: Mapped[str | None]
    action: Mapped[str]
    user_id: Mapped[str | None] = mapped_column(comment="whom it concerns; no reference: the entry outlives them")
    org_id: Mapped[uuid.UUID | None]
    project_id: Mapped[uuid.UUID | None]
    build_id: Mapped[uuid.UUID | None]
    fields: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    request_id: Mapped[str | None]
    ip: Mapped[str | None]

    __table_args__ = (
        Index("ix_audit_at", "at"),
        Index("ix_audit_user", "user_id", "id"),
        CheckConstraint(_one_of("how", How), name="how"),
    )


class RequestBucket(Base):
    """What is left of an identity's requests of a class. Unlogged: a crash of the database fills all buckets."""

    __tablename__ = "request_buckets"

    identity: Mapped[str] = mapped_column(comment="a user, a credential or an address, with a prefix")
    kind: Mapped[str]
    tokens: Mapped[float] = mapped_column(Double())
    at: Mapped[datetime]

    __table_args__ = (PrimaryKeyConstraint("identity", "kind"), {"prefixes": ["UNLOGGED"]})


class Erasure(Base):
    """A founder's project, or all that a founder had, to be erased; once finished, the certificate of that.

    Holds ids and counts only. `set local cofounder.erasure` to its id lets a transaction delete rows that are never
    changed otherwise, until it is finished.
    """

    __tablename__ = "erasures"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    user_id: Mapped[str] = mapped_column(comment="whose data; no reference: it outlives them")
    project_id: Mapped[uuid.UUID | None] = mapped_column(comment="the project that is erased; null: all of the user's")
    requested_by: Mapped[str] = mapped_column(comment="a user's id, or `operator`")
    requested_at: Mapped[datetime] = _now()
    started_at: Mapped[datetime | None] = mapped_column(comment="its workflow is known to have been started")
    finished_at: Mapped[datetime | None]
    counts: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'::jsonb"), comment="what was erased, by kind"
    )
    sha256: Mapped[str | None] = mapped_column(comment="of the certificate, once it is finished")

    __table_args__ = (
        CheckConstraint(_one_of("kind", ErasureKind), name="kind"),
        CheckConstraint("(kind = 'project') = (project_id is not null)", name="project"),
        CheckConstraint("(finished_at is null) = (sha256 is null)", name="finished"),
        Index("ix_erasures_user", "user_id", "requested_at"),
        Index("uq_erasures_project", "project_id", unique=True),
        Index(
            "uq_erasures_open_user",
            "user_id",
            unique=True,
            postgresql_where=text("kind = 'user' and finished_at is null"),
        ),
    )


class Certificate(Base):
    """What was done with a founder's data: archived or exported. Holds ids, counts and hashes; only ever inserted."""

    __tablename__ = "certificates"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    user_id: Mapped[str] = mapped_column(comment="whose data; no reference: it outlives them")
    project_id: Mapped[uuid.UUID | None] = mapped_column(comment="no reference: it outlives the project")
    build_id: Mapped[uuid.UUID | None] = mapped_column(comment="no reference: it outlives the build")
    rule: Mapped[str] = mapped_column(comment="the setting with its value, or who asked for it")
    counts: Mapped[dict[str, Any]] = mapped_column(comment="what there was, by kind; bytes")
    file_sha256: Mapped[str]
    manifest_sha256: Mapped[str]
    issued_at: Mapped[datetime]
    sha256: Mapped[str] = mapped_column(comment="of the certificate")

    __table_args__ = (
        Index("ix_certificates_user", "user_id", "issued_at"),
        Index("ix_certificates_project", "project_id", "issued_at"),
    )


class StoredExport(Base):
    """An export that a workflow writes into the object store. Its certificate has the same id and outlives it."""

    __tablename__ = "exports"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), comment="who may download it")
    project_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), index=True, comment="null: the user's account"
    )
    requested_by: Mapped[str] = mapped_column(comment="a user's id, or `operator`")
    requested_at: Mapped[datetime] = _now()
    idempotency_key: Mapped[str | None]
    started_at: Mapped[datetime | None] = mapped_column(comment="its workflow is known to have been started")
    claim: Mapped[uuid.UUID | None] = mapped_column(comment="of the attempt that writes the file")
    stored_at: Mapped[datetime | None]
    object_key: Mapped[str | None]
    bytes: Mapped[int | None]
    sha256: Mapped[str | None] = mapped_column(comment="of the file")
    expires_at: Mapped[datetime | None] = mapped_column(comment="when the file is to be deleted")
    deleted_at: Mapped[datetime | None] = mapped_column(comment="when the file was deleted")
    failed_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(comment="why it failed, for the user")

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        CheckConstraint(
            "(stored_at is null) = (object_key is null or bytes is null or sha256 is null or expires_at is null)",
            name="stored",
        ),
        CheckConstraint("stored_at is null or failed_at is null", name="ended"),
        CheckConstraint("(failed_at is null) = (problem is null)", name="failed"),
        Index(
            "uq_exports_open_project",
            "user_id",
            "project_id",
            unique=True,
            postgresql_where=text("stored_at is null and failed_at is null and project_id is not null"),
        ),
        Index(
            "uq_exports_open_account",
            "user_id",
            unique=True,
            postgresql_where=text("stored_at is null and failed_at is null and project_id is null"),
        ),
        Index("ix_exports_expires", "expires_at", postgresql_where=text("deleted_at is null")),
    )


class Project(Base):
    """One product of an organisation. `user_id` created it."""

    __tablename__ = "projects"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    org_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("organisations.id"), index=True, comment="a trigger fills in the user's own if it is left out"
    )
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="draft")
    last_build_version: Mapped[int] = mapped_column(Integer(), server_default="0")
    archived_at: Mapped[datetime | None] = mapped_column(comment="since when it is left out of lists and not built")
    created_at: Mapped[datetime] = _now()
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        CheckConstraint(_one_of("status", ("draft", "mvp_built")), name="status"),
    )


class Artifact(Base):
    """A JSON document of a project, one per type. `body` is JSON, not JSONB: the agent sees the order of its keys."""

    __tablename__ = "artifacts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    type: Mapped[str]
    version: Mapped[int] = mapped_column(Integer(), server_default="1")
    body: Mapped[dict[str, Any]] = mapped_column(JSON())
    updated_at: Mapped[datetime] = _now()

    __table_args__ = (UniqueConstraint("project_id", "type"), CheckConstraint("version > 0", name="version"))


class ProjectSecret(Base):
    """A secret that a founder has set for a product. The value is encrypted with a key of SECRETS_KEY, `key_id`."""

    __tablename__ = "project_secrets"

    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(comment="the environment variable that the product reads it from")
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary())
    key_id: Mapped[str]
    set_at: Mapped[datetime] = _now()
    set_by: Mapped[str] = mapped_column(comment="the user of the request")

    __table_args__ = (PrimaryKeyConstraint("project_id", "name"), Index("ix_project_secrets_key_id", "key_id"))


class UnderstandingSession(Base):
    """The interview. `questions` is a list of `{id, text}`, `answers` maps question id to text. The latest counts."""

    __tablename__ = "understanding_sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer())
    questions: Mapped[list[Any]] = mapped_column(JSON())
    answers: Mapped[dict[str, Any]] = mapped_column(JSON())
    created_at: Mapped[datetime] = _now()

    __table_args__ = (UniqueConstraint("project_id", "number"),)


class Build(Base):
    """One workflow execution chain. Status columns are a projection of the workflow; `status_seq` orders its writes."""

    __tablename__ = "builds"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    goal: Mapped[str]
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[str]
    sleep_policy: Mapped[str] = mapped_column(server_default=SleepPolicy.SLEEP, comment="when the budget is used up")
    max_nights: Mapped[int] = mapped_column(
        Integer(), server_default=str(MAX_NIGHTS), comment="nights asleep, then its founder is asked"
    )

    status: Mapped[str] = mapped_column(server_default=Status.QUEUED)
    status_seq: Mapped[int] = mapped_column(Integer(), server_default="0")
    status_at: Mapped[datetime] = mapped_column(server_default=func.now(), comment="when the status was written")
    waiting_for: Mapped[str | None]
    dependency: Mapped[str | None] = mapped_column(comment="what a `waiting` build waits for")
    reason: Mapped[str | None] = mapped_column(comment="why it sleeps, waits or failed; for the founder")
    wakes_at: Mapped[datetime | None]
    nudged_at: Mapped[datetime | None] = mapped_column(
        comment="the last change of money that it was told of, as in users.money_changed_at"
    )
    cancel_requested_at: Mapped[datetime | None]

    brief_version: Mapped[int | None] = mapped_column(Integer())
    session_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("understanding_sessions.id", ondelete="SET NULL"))
    model: Mapped[str | None]
    model_label: Mapped[str | None] = mapped_column(comment="what people are told that the model is")
    sandbox_id: Mapped[str | None]
    preview_url: Mapped[str | None]
    build_version: Mapped[int | None] = mapped_column(Integer())
    workspace_path: Mapped[str | None]
    phases_completed: Mapped[int] = mapped_column(Integer(), server_default="0")
    known_secrets: Mapped[list[Any] | None] = mapped_column(
        comment="names of the project's secrets that the agent was told last"
    )
    gate_passed_at: Mapped[datetime | None] = mapped_column(
        comment="the evidence gate is passed, and from then on nothing that is said can reach the agent"
    )
    last_event_id: Mapped[int] = mapped_column(server_default="0")
    lost_minutes: Mapped[int | None] = mapped_column(
        Integer(), comment="of its record, with a restore of the database, until its agent is told"
    )
    settings: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'::jsonb"), comment="what an operator has changed for it since it began, by name"
    )
    settings_version: Mapped[int] = mapped_column(
        Integer(), server_default="0", comment="counts changes of `settings`; the workflow takes over the last"
    )
    start_build_id: Mapped[uuid.UUID | None] = mapped_column(
        comment="the build with whose snapshot it begins; null: an empty workspace, or a row of an earlier version"
    )
    start_snapshot: Mapped[int | None] = mapped_column(Integer(), comment="the number of that snapshot")

    created_at: Mapped[datetime] = _now()
    started_at: Mapped[datetime | None] = mapped_column(comment="the workflow is known to have been started")
    admitted_at: Mapped[datetime | None] = mapped_column(comment="holds one of its user's places, until it is closed")
    closed_at: Mapped[datetime | None]
    lost_at: Mapped[datetime | None] = mapped_column(
        comment="since when the reaper does not find its workflow in the namespace; nothing follows from it"
    )

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key"),
        UniqueConstraint("project_id", "build_version"),
        ForeignKeyConstraint(
            ["start_build_id", "start_snapshot"],
            ["snapshots.build_id", "snapshots.number"],
            name="fk_builds_start",
            use_alter=True,  # snapshots refer to builds, too
        ),
        CheckConstraint("(start_build_id is null) = (start_snapshot is null)", name="start"),
        Index(
            "uq_builds_open_project",
            "project_id",
            unique=True,
            postgresql_where=text("closed_at is null"),
        ),
        Index("ix_builds_open_user", "user_id", "created_at", postgresql_where=text("closed_at is null")),
        Index("ix_builds_created_at", "created_at", "id"),
        Index("ix_builds_unstarted", "created_at", postgresql_where=text("started_at is null and closed_at is null")),
        Index("ix_builds_closed", "closed_at", postgresql_where=text("closed_at is not null")),
        Index(
            "ix_builds_to_cancel",
            "created_at",
            postgresql_where=text("cancel_requested_at is not null and closed_at is null"),
        ),
        CheckConstraint(_one_of("status", Status), name="status"),
        CheckConstraint(_one_of("sleep_policy", SleepPolicy), name="sleep_policy"),
        CheckConstraint("max_nights between 0 and 1000", name="max_nights"),
        CheckConstraint("jsonb_typeof(settings) = 'object'", name="settings"),
        CheckConstraint("waiting_for is null or " + _one_of("waiting_for", WaitingFor), name="waiting_for"),
        CheckConstraint(f"({_one_of('status', CLOSED)}) = (closed_at is not null)", name="closed"),
        CheckConstraint(f"(status = '{Status.NEEDS_INPUT}') = (waiting_for is not null)", name="waits"),
        CheckConstraint("dependency is null or " + _one_of("dependency", Dependency), name="dependency"),
        CheckConstraint(f"(status = '{Status.WAITING}') = (dependency is not null)", name="waits_for_dependency"),
        CheckConstraint("length(goal) between 1 and 20000", name="goal_length"),
    )


class DependencyState(Base):
    """Whether a dependency answers, as far as the workers know. One without a row has never been down."""

    __tablename__ = "dependencies"

    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default="up")
    """`half_open`: it answers again, and the builds that wait for it are started a few at a time."""
    since: Mapped[datetime] = _now()
    failures: Mapped[int] = mapped_column(Integer(), server_default="0", comment="probes in a row without an answer")
    next_probe_at: Mapped[datetime | None]
    detail: Mapped[str | None] = mapped_column(comment="the last error, for operators")

    __table_args__ = (
        CheckConstraint(_one_of("name", Dependency), name="name"),
        CheckConstraint(_one_of("state", ("up", "down", "half_open")), name="state"),
        CheckConstraint("failures >= 0", name="failures"),
    )


class Prompt(Base):
    """A prefix: what all requests of a part of the conversation begin with, as the exact JSON text. Written once.

    A build begins with prefix 0; each compaction opens the next one.
    """

    __tablename__ = "prompts"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    prefix: Mapped[int] = mapped_column(Integer(), server_default="0")
    system: Mapped[str]
    tools: Mapped[str]
    covers: Mapped[int] = mapped_column(Integer(), server_default="0")
    """`opening` stands for all messages up to the user message of this turn; 0 for a conversation from its start."""
    opening: Mapped[str | None]
    """The first message of the prefix as the JSON text that is sent; null if the first message is turn 1's."""
    settings: Mapped[str] = mapped_column(server_default=REQUEST_SETTINGS_BEFORE_0008)
    """The part of every request that says how the model answers, as its provider renders it."""
    betas: Mapped[str] = mapped_column(server_default="")
    """Names of the vendor's betas that every request of this prefix needs, separated by commas."""
    fallbacks: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    """Models that `settings` names, and that the provider may ask and bill in the build's model's place."""
    system_notices: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether Cofounder's notes to the agent are messages of the role `system`, or part of the user messages."""
    wants_plan: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the system prompt asks for a plan, so that the plan may be asked about."""
    created_at: Mapped[datetime] = _now()

    __table_args__ = (PrimaryKeyConstraint("build_id", "prefix"),)


class Turn(Base):
    """One TAOR iteration. `claim` is the token of the attempt that holds it, `run_id` that attempt's run."""

    __tablename__ = "turns"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer())
    run_id: Mapped[str]
    claim: Mapped[uuid.UUID]
    outcome: Mapped[str | None] = mapped_column(comment="stop reason of the stored answer; null while unanswered")
    prefix: Mapped[int] = mapped_column(Integer(), server_default="0")
    """The prefix that its request begins with, so that a repeated request has the same bytes."""
    unreadable: Mapped[int] = mapped_column(Integer(), server_default="0")
    """Answers that were paid for and not stored because a tool call in them could not be read."""
    details: Mapped[dict[str, Any] | None]
    """Why the model declined, as the vendor says it."""
    counters: Mapped[dict[str, Any] | None] = mapped_column(comment="what the workflow had counted before it")
    claimed_at: Mapped[datetime] = _now()
    answered_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "number"),
        CheckConstraint("(outcome is null) = (answered_at is null)", name="answered"),
    )


class Compaction(Base):
    """An attempt to sum up the conversation, so that `prefix` opens with a summary. Never changed once answered."""

    __tablename__ = "compactions"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    prefix: Mapped[int] = mapped_column(Integer())
    covers: Mapped[int] = mapped_column(Integer())
    run_id: Mapped[str]
    claim: Mapped[uuid.UUID]
    outcome: Mapped[str | None]
    tokens_before: Mapped[int] = mapped_column(server_default="0")
    claimed_at: Mapped[datetime] = _now()
    answered_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "prefix"),
        CheckConstraint("(outcome is null) = (answered_at is null)", name="answered"),
    )


class Message(Base):
    """One message of the conversation, append-only (a trigger refuses changes).

    `content` is the JSON text of an array of content blocks. A user message does not contain its `tool_result` blocks:
    they are stored in `tool_calls.result`, and precede these blocks, in order, when the message is sent. A message of
    the role `system` follows the user message of its turn.
    """

    __tablename__ = "messages"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    turn: Mapped[int] = mapped_column(Integer())
    role: Mapped[str]
    content: Mapped[str]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "turn", "role"),
        CheckConstraint(_one_of("role", ("user", "system", "assistant")), name="role"),
    )


class ToolCall(Base):
    """One `tool_use` block. Its input is in the turn's assistant message; its one result is here.

    requested: the model asked for it. intended: an attempt is about to run it, in the sandbox and boot named here.
    done: `result` holds the exact text of the `tool_result` block.
    """

    __tablename__ = "tool_calls"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    tool_use_id: Mapped[str]
    turn: Mapped[int] = mapped_column(Integer())
    position: Mapped[int] = mapped_column(Integer())
    name: Mapped[str]
    summary: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="requested")
    claim: Mapped[uuid.UUID | None]
    sandbox_id: Mapped[str | None]
    boot: Mapped[str | None]
    is_error: Mapped[bool | None]
    result: Mapped[str | None]
    lost: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="the sandbox was lost before or during it; its outcome is unknown"
    )
    commit: Mapped[str | None] = mapped_column(comment="the workspace's HEAD when this call changed it")
    intended_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "tool_use_id"),
        UniqueConstraint("build_id", "turn", "position"),
        CheckConstraint(_one_of("state", ("requested", "intended", "done")), name="state"),
        CheckConstraint("(state = 'done') = (result is not null and is_error is not null)", name="result"),
        CheckConstraint("state <> 'intended' or (claim is not null and sandbox_id is not null)", name="intent"),
    )


class LedgerEntry(Base):
    """What one model call cost. open: in flight; settled: as served; estimated: lost in a crash; released: not made."""

    __tablename__ = "ledger"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, comment="the claim of the attempt that made the call")
    build_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("builds.id"))
    """Null once the build is erased: what its calls cost stays."""
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    turn: Mapped[int] = mapped_column(Integer())
    day: Mapped[date] = mapped_column(comment="UTC day of the attempt's start")
    model: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="open")
    request_id: Mapped[str | None] = mapped_column(comment="the model server's")
    input_tokens: Mapped[int] = mapped_column(server_default="0")
    cache_write_5m_tokens: Mapped[int] = mapped_column(server_default="0")
    cache_write_1h_tokens: Mapped[int] = mapped_column(server_default="0")
    cache_read_tokens: Mapped[int] = mapped_column(server_default="0")
    output_tokens: Mapped[int] = mapped_column(server_default="0")
    cost: Mapped[int] = mapped_column(server_default="0", comment="microdollars")
    kind: Mapped[str] = mapped_column(server_default="turn")
    prefix: Mapped[int] = mapped_column(Integer(), server_default="0")
    iterations: Mapped[list[Any] | None]
    """The model and tokens of each part of a call that several models, or a model several times, took part in."""
    opened_at: Mapped[datetime] = _now()
    kept_at: Mapped[datetime | None]
    """When its attempt, whose run of the workflow is gone, has last said that it still makes the call."""
    closed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_ledger_user_day", "user_id", "day"),
        Index("ix_ledger_build", "build_id", "turn"),
        CheckConstraint(_one_of("state", ("open", "settled", "estimated", "released")), name="state"),
        CheckConstraint("(state = 'open') = (closed_at is null)", name="closed"),
        CheckConstraint(_one_of("kind", ("turn", "compaction", "judge")), name="kind"),
        CheckConstraint(
            "least(cost, input_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cache_read_tokens, output_tokens)"
            " >= 0",
            name="not_negative",
        ),
    )


class ModelBucket(Base):
    """What is left of one of a model's limits, for all workers together; see `domain/rates.py`."""

    __tablename__ = "model_buckets"

    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    per_minute: Mapped[int | None] = mapped_column(comment="null: no limit")
    level: Mapped[float] = mapped_column(Double(), server_default="0")
    refilled_at: Mapped[datetime] = _now()
    learned: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="the API has named its limits, or has answered without naming any"
    )
    blocked_until: Mapped[datetime | None] = mapped_column(comment="the API has refused a call until then")

    __table_args__ = (
        CheckConstraint(_one_of("kind", ("requests", "input", "output")), name="kind"),
        CheckConstraint("per_minute > 0", name="per_minute"),
    )


class Snapshot(Base):
    """An archive of the workspace. taking: number assigned, not yet verified; stored: uploaded and verified."""

    __tablename__ = "snapshots"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id"))
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"), index=True)
    number: Mapped[int] = mapped_column(Integer())
    state: Mapped[str] = mapped_column(server_default="taking")
    claim: Mapped[uuid.UUID]
    reason: Mapped[str] = mapped_column(comment="a SnapshotReason")
    final: Mapped[bool] = mapped_column(server_default=text("false"), comment="a ready build's last one, kept")
    kept: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="the last one of a history that the agent has overwritten since"
    )
    replaces: Mapped[int | None] = mapped_column(
        Integer(), comment="number of the last snapshot of the history that this one's does not descend from"
    )
    archive_key: Mapped[str]
    manifest_key: Mapped[str]
    archive_bytes: Mapped[int | None]
    archive_sha256: Mapped[str | None]
    manifest_sha256: Mapped[str | None]
    files: Mapped[int | None] = mapped_column(Integer())
    commit: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    stored_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("build_id", "number"),
        CheckConstraint(_one_of("state", ("taking", "stored", "failed", "deleted")), name="state"),
        CheckConstraint(
            "state <> 'stored' or "
            "(archive_sha256 is not null and manifest_sha256 is not null and stored_at is not null)",
            name="stored",
        ),
    )


class BuildArchive(Base):
    """Where the conversation and the feed of a closed build are, once their rows were deleted."""

    __tablename__ = "build_archives"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    object_key: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(comment="of the object")
    rows: Mapped[dict[str, Any]] = mapped_column(comment="how many rows of each table are in it")
    images: Mapped[list[Any]] = mapped_column(comment="hashes of the images that the conversation has")
    archived_at: Mapped[datetime] = _now()


class PhaseDiff(Base):
    """What a phase has changed. The patches are an object in the store; a phase of an earlier version has no row."""

    __tablename__ = "phase_diffs"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    phase: Mapped[int] = mapped_column(Integer(), comment="counts from 1")
    commit: Mapped[str]
    base: Mapped[str | None] = mapped_column(comment="the commit that it is compared with; null: everything is new")
    files: Mapped[int] = mapped_column(Integer())
    additions: Mapped[int] = mapped_column(Integer(), comment="lines")
    deletions: Mapped[int] = mapped_column(Integer(), comment="lines")
    object_key: Mapped[str]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (PrimaryKeyConstraint("build_id", "phase"),)


class SeenImage(Base):
    """A build has seen an image, or is about to. A build of an earlier version says so only in its results."""

    __tablename__ = "seen_images"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    sha256: Mapped[str] = mapped_column(index=True, comment="of the image, in hex")

    __table_args__ = (PrimaryKeyConstraint("build_id", "sha256"),)


class Question(Base):
    """A build's question to its founder, with options. The message with its `question_id` is the answer.

    The agent does not wait for one that it asks by itself, so that is closed from the beginning.
    """

    __tablename__ = "questions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    problem: Mapped[str]
    tried: Mapped[list[Any]] = mapped_column(comment="what was tried, in order")
    options: Mapped[list[Any]]
    asked_at: Mapped[datetime] = _now()
    closed_at: Mapped[datetime | None] = mapped_column(comment="the build no longer waits for it, answered or not")
    tool_use_id: Mapped[str | None] = mapped_column(
        comment="the call by which the agent asked; null: the build waits for it"
    )
    default_option: Mapped[str | None] = mapped_column(comment="what the agent does until it is answered")

    __table_args__ = (
        Index("uq_questions_open_build", "build_id", unique=True, postgresql_where=text("closed_at is null")),
        UniqueConstraint("build_id", "tool_use_id", name="uq_questions_call"),
        CheckConstraint("(tool_use_id is null) = (default_option is null)", name="by_agent"),
    )


WITHDRAWN_TURN = 0
"""In place of a turn, of a message that its founder has taken back. Turns count from 1."""


class FounderMessage(Base):
    """A founder's message to a build, and the turn in which the agent reads it.

    Not a `Message`, which is sent to the model: this text becomes part of exactly one of those.
    """

    __tablename__ = "founder_messages"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer(), comment="the build's own sequence: commit order is number order")
    text: Mapped[str]
    question_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("questions.id", ondelete="CASCADE"), comment="the question that it answers"
    )
    idempotency_key: Mapped[str | None]
    turn: Mapped[int | None] = mapped_column(
        Integer(), comment="the turn in whose user message it stands; null: unread"
    )
    """`WITHDRAWN_TURN` if it was taken back; then `read_at` says when. Earlier versions take it for read."""
    read_at: Mapped[datetime | None]
    nudged_at: Mapped[datetime | None] = mapped_column(comment="when the reaper repeated its announcement")
    created_at: Mapped[datetime] = _now()

    @property
    def withdrawn_at(self) -> datetime | None:
        """When it was taken back; None if it was not."""
        return self.read_at if self.turn == WITHDRAWN_TURN else None

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "number"),
        UniqueConstraint("build_id", "idempotency_key"),
        UniqueConstraint("question_id"),
        Index("ix_founder_messages_unread", "created_at", postgresql_where=literal_column("turn is null")),
        CheckConstraint("(turn is null) = (read_at is null)", name="read"),
        CheckConstraint("length(text) between 1 and 20000", name="text_length"),
    )


class Restore(Base):
    """A founder's request to restore the workspace to a snapshot or a commit; carried out between two turns."""

    __tablename__ = "restores"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer(), comment="the build's own sequence")
    snapshot_number: Mapped[int | None] = mapped_column(Integer())
    commit: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="requested")
    error: Mapped[str | None]
    kept_as: Mapped[int | None] = mapped_column(Integer(), comment="the snapshot of what was there before")
    stored_as: Mapped[int | None] = mapped_column(Integer(), comment="the snapshot of what is there since")
    turn: Mapped[int | None] = mapped_column(Integer(), comment="the turn in whose user message the agent is told")
    nudged_at: Mapped[datetime | None] = mapped_column(comment="when the reaper repeated its announcement")
    created_at: Mapped[datetime] = _now()
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "number"),
        UniqueConstraint("build_id", "idempotency_key"),
        Index("uq_restores_requested_build", "build_id", unique=True, postgresql_where=text("state = 'requested'")),
        CheckConstraint("(snapshot_number is null) <> (commit is null)", name="target"),
        CheckConstraint(_one_of("state", ("requested", "done", "failed")), name="state"),
        CheckConstraint("(state = 'requested') = (ended_at is null)", name="ended"),
    )


class GateRun(Base):
    """One run of the evidence gate on a snapshot. `findings` are sentences for the agent; without any, it passed."""

    __tablename__ = "gate_runs"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer())
    snapshot_number: Mapped[int] = mapped_column(Integer())
    claim: Mapped[uuid.UUID | None] = mapped_column(comment="of the attempt that may write the outcome")
    sandbox_id: Mapped[str | None]
    findings: Mapped[list[Any] | None] = mapped_column(comment="null while it runs")
    tests_run: Mapped[int | None] = mapped_column(Integer())
    screenshots: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'::jsonb"), comment="S3 key by viewport"
    )
    outputs: Mapped[dict[str, Any] | None] = mapped_column(
        deferred=True, comment="what the findings could quote only in part, by step"
    )
    judge_claim: Mapped[uuid.UUID | None] = mapped_column(comment="of the attempt that calls the judge, in the ledger")
    judge_run_id: Mapped[str | None] = mapped_column(comment="the workflow's run of that attempt")
    judgement: Mapped[dict[str, Any] | None] = mapped_column(comment="how the judge's part ended; null until then")
    started_at: Mapped[datetime] = _now()
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("build_id", "number"),
        CheckConstraint("(findings is null) = (ended_at is null)", name="ended"),
    )


class Preview(Base):
    """A ready build's running product. A projection of the preview workflow; `seq` orders its writes."""

    __tablename__ = "previews"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str]
    seq: Mapped[int] = mapped_column(server_default="0")
    sandbox_id: Mapped[str | None]
    url: Mapped[str | None]
    reason: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    log: Mapped[str | None] = mapped_column(comment="the end of the last start's output, for the founder only")
    upstream_url: Mapped[str | None] = mapped_column(
        comment="the product's address in its sandbox; null in rows of earlier versions, whose `url` it is"
    )
    traffic_token: Mapped[str | None] = mapped_column(
        comment="what the sandbox service wants to see before it lets a request through; secret"
    )

    __table_args__ = (
        CheckConstraint(_one_of("state", ("opening", "open", "closed", "failed")), name="state"),
        Index("ix_previews_open", "build_id", postgresql_where=text("state = 'open' or state = 'opening'")),
    )


class PreviewLink(Base):
    """A link that lets anyone who has it see a build's preview. Only the hash of its secret is stored."""

    __tablename__ = "preview_links"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(), unique=True, comment="SHA-256")
    created_by: Mapped[str]
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class PreviewVisit(Base):
    """A browser that may see a build's preview: by the sign-in of a user, or by a link.

    First it has a code, which works once, then a cookie. Only the hash of either is stored.
    """

    __tablename__ = "preview_visits"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    code_hash: Mapped[bytes | None] = mapped_column(LargeBinary(), unique=True, comment="null once it is used")
    token_hash: Mapped[bytes | None] = mapped_column(LargeBinary(), unique=True, comment="of the cookie")
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    sign_in_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("sign_ins.id", ondelete="CASCADE"))
    link_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("preview_links.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_preview_visits_expires_at", "expires_at"),
        CheckConstraint("(user_id is null) <> (link_id is null)", name="by_user_or_link"),
    )


class Permit(Base):
    """The right to have a sandbox of the build running now, or its place in the queue for one; see `db/permits.py`."""

    __tablename__ = "permits"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(comment="the sandbox that it is for: a build has one running at a time")
    queued_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    checked_at: Mapped[datetime] = mapped_column(
        server_default=func.clock_timestamp(), comment="the last attempt to take it, or to use it again"
    )
    held_since: Mapped[datetime | None] = mapped_column(comment="null while it is queued")
    reclaimed_at: Mapped[datetime | None] = mapped_column(comment="a build waits, so the preview is to close")

    __table_args__ = (
        CheckConstraint(_one_of("role", ("workspace", "gate", "preview")), name="role"),
        CheckConstraint("reclaimed_at is null or role = 'preview'", name="reclaimed"),
    )


class PushPermit(Base):
    """The right to have one more sandbox running for a push of the build; see `db/permits.py`."""

    __tablename__ = "push_permits"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    claim: Mapped[uuid.UUID] = mapped_column(comment="names the request that holds it")
    expires_at: Mapped[datetime] = mapped_column(comment="it no longer counts then, even if its process was killed")


class SandboxFleet(Base):
    """What holds for all sandboxes together. Its one row is the lock under which permits change hands."""

    __tablename__ = "sandbox_fleet"

    id: Mapped[int] = mapped_column(SmallInteger(), primary_key=True, server_default="1")
    next_start_at: Mapped[datetime] = mapped_column(
        server_default=func.clock_timestamp(), comment="when the next sandbox may be started"
    )
    refused_at: Mapped[datetime | None] = mapped_column(comment="when the service last had no room for a sandbox")
    refused_until: Mapped[datetime | None] = mapped_column(comment="no new permit is taken before")
    refusals: Mapped[int] = mapped_column(Integer(), server_default="0", comment="in a row")

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class Event(Base):
    """One line of a build's live feed. `id` is the build's own sequence, so commit order is id order."""

    __tablename__ = "events"

    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    id: Mapped[int]
    type: Mapped[str]
    turn: Mapped[int | None] = mapped_column(Integer())
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (PrimaryKeyConstraint("build_id", "id"),)


class Webhook(Base):
    """An address of an organisation that is told of its builds. The secret that signs what is sent is encrypted.

    After a rotation, the `old_…` columns have the secret before it, which signs too until `old_until`.
    """

    __tablename__ = "webhooks"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    org_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organisations.id", ondelete="CASCADE"), index=True)
    url: Mapped[str]
    topics: Mapped[list[Any]]
    description: Mapped[str]
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary(), comment="the secret that signs")
    key_id: Mapped[str] = mapped_column(index=True)
    created_by: Mapped[str]
    created_at: Mapped[datetime] = _now()
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    old_ciphertext: Mapped[bytes | None] = mapped_column(LargeBinary(), comment="the secret before the last rotation")
    old_key_id: Mapped[str | None]
    old_until: Mapped[datetime | None] = mapped_column(comment="the secret before the last rotation signs until then")


class WebhookDelivery(Base):
    """One message to a webhook, which a trigger queues in the transaction of the build's event.

    `state`: queued, then sending while its workflow delivers it, then delivered, or dead after the last attempt.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    webhook_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    topic: Mapped[str]
    build_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    event_id: Mapped[int | None] = mapped_column(comment="of the build; null for a test")
    created_at: Mapped[datetime] = _now()
    state: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(Integer(), server_default="0")
    due_at: Mapped[datetime] = _now()
    status: Mapped[int | None] = mapped_column(Integer(), comment="HTTP status of the last answer")
    error: Mapped[str | None] = mapped_column(comment="what was wrong with the last attempt")
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("state", ["queued", "sending", "delivered", "dead"]), name="state"),
        UniqueConstraint("webhook_id", "build_id", "event_id"),
        Index("ix_webhook_deliveries_due_at", "due_at", postgresql_where=text("state in ('queued', 'sending')")),
        Index("ix_webhook_deliveries_webhook_id_created_at", "webhook_id", "created_at"),
        Index("ix_webhook_deliveries_ended_at", "ended_at", postgresql_where=text("ended_at is not null")),
    )


class BulkRun(Base):
    """An act on many builds, by an operator. Its builds are rows of `bulk_run_builds`; a workflow carries them out."""

    __tablename__ = "bulk_runs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    act: Mapped[str]
    filter: Mapped[str] = mapped_column(comment="as text; which builds were chosen when the run was made")
    rate: Mapped[int] = mapped_column(Integer(), comment="builds a second")
    reason: Mapped[str] = mapped_column(comment="for operators")
    actor: Mapped[str] = mapped_column(comment="who made it, as in the audit")
    how: Mapped[str]
    credential_id: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=BulkState.RUNNING)
    total: Mapped[int] = mapped_column(Integer())
    created_at: Mapped[datetime] = _now()
    stopped_by: Mapped[str | None]
    ended_at: Mapped[datetime | None] = mapped_column(comment="stopped, or finished")
    done: Mapped[int | None] = mapped_column(Integer(), comment="builds, when it finished; as the next two")
    skipped: Mapped[int | None] = mapped_column(Integer())
    failed: Mapped[int | None] = mapped_column(Integer())
    counted_at: Mapped[datetime | None] = mapped_column(comment="ended_at of the end at which they were counted")

    __table_args__ = (
        CheckConstraint(_one_of("act", BulkAct), name="act"),
        CheckConstraint(_one_of("how", How), name="how"),
        CheckConstraint(_one_of("state", BulkState), name="state"),
        CheckConstraint("rate > 0", name="rate"),
        UniqueConstraint("actor", "idempotency_key"),
        Index("ix_bulk_runs_running", "created_at", postgresql_where=text("state = 'running'")),
        Index("ix_bulk_runs_created_at", "created_at", "id"),
    )


class BulkRunBuild(Base):
    """A build of a bulk run. It stays pending until the act has reached it; a claim comes before the act."""

    __tablename__ = "bulk_run_builds"

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("bulk_runs.id", ondelete="CASCADE"))
    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer())
    state: Mapped[str] = mapped_column(server_default=ItemState.PENDING)
    attempts: Mapped[int] = mapped_column(Integer(), server_default="0")
    decided_at: Mapped[datetime | None] = mapped_column(comment="the act was found to fit, and is in the audit")
    why: Mapped[str | None] = mapped_column(comment="it was skipped or has failed")
    at: Mapped[datetime | None] = mapped_column(comment="of the last attempt")

    __table_args__ = (
        PrimaryKeyConstraint("run_id", "build_id"),
        CheckConstraint(_one_of("state", ItemState), name="state"),
        Index("ix_bulk_run_builds_run_id_position", "run_id", "position", unique=True),
        Index("ix_bulk_run_builds_pending", "run_id", "position", postgresql_where=text("state = 'pending'")),
    )


class BusinessEvent(Base):
    """An event for other parts of the business, such as `artifact_generated`. One per build and type."""

    __tablename__ = "business_events"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"))
    build_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("builds.id"))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (UniqueConstraint("build_id", "type"),)


# ---- the deployment


class Deployment(Base):
    """What this database belongs to. One row, once it is bound."""

    __tablename__ = "deployment"

    singleton: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    id: Mapped[uuid.UUID] = mapped_column(comment="names the deployment in the object store, which it may share")
    namespace: Mapped[str] = mapped_column(comment="Temporal's, by name")
    temporal_address: Mapped[str] = mapped_column(comment="where it was when the database was bound; for people")
    namespace_id: Mapped[str | None] = mapped_column(comment="null if Temporal does not let us read it")
    generation: Mapped[int] = mapped_column(
        server_default="0", comment="counted up; a higher one in the object store: the database was put back"
    )
    bound_at: Mapped[datetime] = _now()

    __table_args__ = (CheckConstraint("singleton", name="singleton"),)


class PayloadKey(Base):
    """A key of PAYLOAD_KEY with which something was written to Temporal, so that its loss is noticed."""

    __tablename__ = "payload_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    check_value: Mapped[str] = mapped_column(comment="tells the key from another of this id; an HMAC under the key")
    used_since: Mapped[datetime] = _now()
    retired_at: Mapped[datetime | None] = mapped_column(comment="since when no history needs it")


class StoredFormat(Base):
    """A format of what is stored, and which programs read it; see `domain/formats.py`."""

    __tablename__ = "formats"

    name: Mapped[str] = mapped_column(primary_key=True)
    written: Mapped[int] = mapped_column(Integer())
    readable_from: Mapped[int] = mapped_column(Integer())

    __table_args__ = (CheckConstraint("readable_from between 0 and written", name="versions"),)


class Process(Base):
    """A worker or an API that runs, or ran. Each announces itself every half minute."""

    __tablename__ = "processes"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    role: Mapped[str]
    version: Mapped[str]
    reads: Mapped[dict[str, Any]] = mapped_column(comment="version by format")
    writes: Mapped[dict[str, Any]] = mapped_column(comment="version by format")
    connections: Mapped[int | None] = mapped_column(
        Integer(), comment="to the database at most; null: of a version that does not say"
    )
    roles: Mapped[str | None] = mapped_column(
        comment="whose task queues a worker polls, with commas; null: the role build"
    )
    seen_at: Mapped[datetime] = _now()

    __table_args__ = (CheckConstraint(_one_of("role", ("api", "worker")), name="role"),)


class ReaperStep(Base):
    """How far a step of the reaper has come, and why it stopped."""

    __tablename__ = "reaper_steps"

    step: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime | None] = mapped_column(comment="how far it has come")
    alert: Mapped[str | None] = mapped_column(comment="what an operator must look at")
    alert_at: Mapped[datetime | None]


class DoomedObject(Base):
    """A tombstone: an object that no row needs, deleted once it is due. A trigger removes it if a row names its key."""

    __tablename__ = "doomed_objects"

    key: Mapped[str] = mapped_column(primary_key=True)
    build_id: Mapped[uuid.UUID] = mapped_column(index=True, comment="may be a build that this database does not have")
    due_at: Mapped[datetime] = mapped_column(index=True)
    why: Mapped[str]
    created_at: Mapped[datetime] = _now()
