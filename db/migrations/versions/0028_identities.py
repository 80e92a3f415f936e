"""Identities: organisations own projects; keys, sign-ins, preview links and the audit have tables

Programs of the previous version insert users and projects without organisations: triggers fill them in.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None
kind = "expand"

_PERSONAL = """
create function make_personal_organisation() returns trigger language plpgsql as $$
begin
    insert into organisations (name, personal_of) values (new.id, new.id);
    insert into memberships (org_id, user_id, role)
        select id, new.id, 'owner' from organisations where personal_of = new.id;
    return null;
end $$
"""

_OF_PROJECT = """
create function fill_in_organisation() returns trigger language plpgsql as $$
begin
    if new.org_id is null then
        select id into new.org_id from organisations where personal_of = new.user_id;
    end if;
    return new;
end $$
"""

_APPEND_ONLY = """
create function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is only ever added to' using errcode = 'restrict_violation';
end $$
"""


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def upgrade() -> None:
    op.add_column(
        "users",
        sa.Column("name", sa.Text(), nullable=True, comment="as their identity provider or they themselves say"),
    )
    op.add_column(
        "users",
        sa.Column("email", sa.Text(), nullable=True, comment="as their identity provider says; identifies no one"),
    )
    op.create_table(
        "organisations",
        sa.Column("id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "personal_of",
            sa.Text(),
            nullable=True,
            comment="the user whose own it is; null for one that was created",
        ),
        _time("created_at", now=True),
        sa.CheckConstraint("length(name) between 1 and 200", name=op.f("ck_organisations_name_length")),
        sa.ForeignKeyConstraint(["personal_of"], ["users.id"], name=op.f("fk_organisations_personal_of")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
        sa.UniqueConstraint("personal_of", name=op.f("uq_organisations_personal_of")),
    )
    op.create_table(
        "memberships",
        sa.Column("org_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        _time("created_at", now=True),
        sa.CheckConstraint("role in ('member', 'owner', 'viewer')", name=op.f("ck_memberships_role")),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organisations.id"], name=op.f("fk_memberships_org_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id")),
        sa.PrimaryKeyConstraint("org_id", "user_id", name=op.f("pk_memberships")),
    )
    op.create_index("ix_memberships_user", "memberships", ["user_id"])
    op.execute("lock table users, projects in share row exclusive mode")
    op.execute(_PERSONAL)
    op.execute(
        "create trigger users_personal_organisation after insert on users "
        "for each row execute function make_personal_organisation()"
    )
    op.execute("insert into organisations (name, personal_of) select id, id from users")
    op.execute(
        "insert into memberships (org_id, user_id, role) select id, personal_of, 'owner' from organisations "
        "where personal_of is not null"
    )
    op.add_column(
        "projects",
        sa.Column("org_id", sa.UUID(), nullable=True, comment="a trigger fills in the user's own if it is left out"),
    )
    op.execute(
        "update projects set org_id = organisations.id from organisations "
        "where organisations.personal_of = projects.user_id"
    )
    op.execute(_OF_PROJECT)
    op.execute(
        "create trigger projects_organisation before insert on projects "
        "for each row execute function fill_in_organisation()"
    )
    op.alter_column("projects", "org_id", nullable=False)
    op.create_foreign_key(op.f("fk_projects_org_id"), "projects", "organisations", ["org_id"], ["id"])
    op.create_index(op.f("ix_projects_org_id"), "projects", ["org_id"])
    _create_credentials()
    _create_previews()
    _create_audit()
    op.create_table(
        "request_buckets",
        sa.Column("identity", sa.Text(), nullable=False, comment="a user, a credential or an address, with a prefix"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        _time("at"),
        sa.PrimaryKeyConstraint("identity", "kind", name=op.f("pk_request_buckets")),
        prefixes=["UNLOGGED"],
    )


def _create_credentials() -> None:
    op.create_table(
        "user_identities",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        _time("created_at", now=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_identities_user_id")),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_user_identities")),
    )
    op.create_index(op.f("ix_user_identities_user_id"), "user_identities", ["user_id"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False, comment="the public part of the key"),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("scopes", postgresql.JSONB(), nullable=False, comment="names of scopes"),
        _time("created_at", now=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        _time("expires_at", nullable=True),
        _time("last_used_at", nullable=True),
        _time("revoked_at", nullable=True),
        sa.Column(
            "replaced_by", sa.Text(), nullable=True, comment="the key that a rotation made; this one expires soon"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_user_id"), "api_keys", ["user_id"])
    op.create_table(
        "sign_in_codes",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("user_id", sa.Text(), nullable=False),
        _time("created_at", now=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        _time("expires_at"),
        _time("used_at", nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_in_codes_user_id")),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_sign_in_codes")),
    )
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False, comment="`link`, or the issuer that identified the user"),
        sa.Column("scopes", postgresql.JSONB(), nullable=False, comment="names of scopes"),
        _time("created_at", now=True),
        _time("last_used_at", now=True),
        _time("expires_at"),
        _time("revoked_at", nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_ins_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sign_ins_token_hash")),
    )
    op.create_index(op.f("ix_sign_ins_user_id"), "sign_ins", ["user_id"])


def _create_previews() -> None:
    op.add_column(
        "previews",
        sa.Column(
            "upstream_url",
            sa.Text(),
            nullable=True,
            comment="the product's address in its sandbox; null in rows of earlier versions, whose `url` it is",
        ),
    )
    op.add_column(
        "previews",
        sa.Column(
            "traffic_token",
            sa.Text(),
            nullable=True,
            comment="what the sandbox service wants to see before it lets a request through; secret",
        ),
    )
    op.create_table(
        "preview_links",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("created_by", sa.Text(), nullable=False),
        _time("created_at", now=True),
        _time("expires_at"),
        _time("revoked_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_preview_links_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preview_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_preview_links_token_hash")),
    )
    op.create_index(op.f("ix_preview_links_build_id"), "preview_links", ["build_id"])
    op.create_table(
        "preview_visits",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=True, comment="null once it is used"),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True, comment="of the cookie"),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("sign_in_id", sa.UUID(), nullable=True),
        sa.Column("link_id", sa.UUID(), nullable=True),
        _time("created_at", now=True),
        _time("expires_at"),
        sa.CheckConstraint("(user_id is null) <> (link_id is null)", name=op.f("ck_preview_visits_by_user_or_link")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_preview_visits_build_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_preview_visits_user_id")),
        sa.ForeignKeyConstraint(
            ["sign_in_id"], ["sign_ins.id"], name=op.f("fk_preview_visits_sign_in_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["link_id"], ["preview_links.id"], name=op.f("fk_preview_visits_link_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preview_visits")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_preview_visits_code_hash")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_preview_visits_token_hash")),
    )
    op.create_index(op.f("ix_preview_visits_build_id"), "preview_visits", ["build_id"])
    op.create_index("ix_preview_visits_expires_at", "preview_visits", ["expires_at"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="a user's id, or `operator`"),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("credential_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "user_id",
            sa.Text(),
            nullable=True,
            comment="whom it concerns; no reference: the entry outlives them",
        ),
        sa.Column("org_id", sa.UUID(), nullable=True),
        sa.Column("project_id", sa.UUID(), nullable=True),
        sa.Column("build_id", sa.UUID(), nullable=True),
        sa.Column("fields", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("ip", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "how in ('api_key', 'api_token', 'cli', 'jwt', 'operator_token', 'sign_in')", name=op.f("ck_audit_how")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_user", "audit", ["user_id", "id"])
    op.execute(_APPEND_ONLY)
    op.execute(
        "create trigger audit_rows before update or delete on audit "
        "for each row execute function refuse_change_of_audit()"
    )
    op.execute(
        "create trigger audit_truncate before truncate on audit "
        "for each statement execute function refuse_change_of_audit()"
    )


def downgrade() -> None:
    op.drop_table("request_buckets")
    op.drop_table("audit")
    op.execute("drop function refuse_change_of_audit()")
    op.drop_table("preview_visits")
    op.drop_table("preview_links")
    op.drop_column("previews", "traffic_token")
    op.drop_column("previews", "upstream_url")
    for table in ("sign_ins", "sign_in_codes", "api_keys", "user_identities"):
        op.drop_table(table)
    op.execute("drop trigger projects_organisation on projects")
    op.execute("drop function fill_in_organisation()")
    op.drop_column("projects", "org_id")
    op.execute("drop trigger users_personal_organisation on users")
    op.execute("drop function make_personal_organisation()")
    op.drop_table("memberships")
    op.drop_table("organisations")
    op.drop_column("users", "email")
    op.drop_column("users", "name")
