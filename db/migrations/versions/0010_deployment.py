"""The database is bound to a Temporal namespace, objects go by tombstone, and the reaper has steps and indexes"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
kind = "expand"

_INDEXES = (
    ("ix_builds_closed", "builds", ["closed_at"], "closed_at is not null"),
    ("ix_builds_to_cancel", "builds", ["created_at"], "cancel_requested_at is not null and closed_at is null"),
    ("ix_previews_open", "previews", ["build_id"], "state = 'open' or state = 'opening'"),
)


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column(
            "lost_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="since when the reaper does not find its workflow in the namespace; nothing follows from it",
        ),
    )
    op.create_table(
        "deployment",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "id", sa.UUID(), nullable=False, comment="names the deployment in the object store, which it may share"
        ),
        sa.Column("namespace", sa.Text(), nullable=False, comment="Temporal's, by name"),
        sa.Column(
            "temporal_address",
            sa.Text(),
            nullable=False,
            comment="where it was when the database was bound; for people",
        ),
        sa.Column("namespace_id", sa.Text(), nullable=True, comment="null if Temporal does not let us read it"),
        sa.Column(
            "generation",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="counted up; a higher one in the object store: the database was put back",
        ),
        sa.Column("bound_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_deployment")),
        sa.CheckConstraint("singleton", name=op.f("ck_deployment_singleton")),
    )
    op.create_table(
        "reaper_steps",
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True, comment="how far it has come"),
        sa.Column("alert", sa.Text(), nullable=True, comment="what an operator must look at"),
        sa.Column("alert_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("step", name=op.f("pk_reaper_steps")),
    )
    op.create_table(
        "doomed_objects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("build_id", sa.UUID(), nullable=False, comment="may be a build that this database does not have"),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_doomed_objects")),
    )
    op.create_index(op.f("ix_doomed_objects_build_id"), "doomed_objects", ["build_id"])
    op.create_index(op.f("ix_doomed_objects_due_at"), "doomed_objects", ["due_at"])
    for name, table, columns, condition in _INDEXES:
        op.create_index(name, table, columns, postgresql_where=sa.text(condition))
    op.execute(
        """
        create function spare_named_objects() returns trigger language plpgsql as $$
        begin
            delete from doomed_objects where key in (new.archive_key, new.manifest_key);
            return null;
        end $$
        """
    )
    op.execute(
        "create trigger snapshots_spare_objects after insert or update on snapshots for each row "
        "when (new.state in ('stored', 'taking')) execute function spare_named_objects()"
    )


def downgrade() -> None:
    op.execute("drop trigger snapshots_spare_objects on snapshots")
    op.execute("drop function spare_named_objects()")
    for name, table, _, _ in _INDEXES:
        op.drop_index(name, table_name=table)
    for table in ("doomed_objects", "reaper_steps", "deployment"):
        op.drop_table(table)
    op.drop_column("builds", "lost_at")
