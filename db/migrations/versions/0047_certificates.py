"""Certificates of archives, which outlive what they are about"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None
kind = "expand"

_REFUSE = """
create function refuse_change_of_certificate() returns trigger language plpgsql as $$
begin
    raise exception 'a certificate is never changed' using errcode = 'restrict_violation';
end $$
"""


def upgrade() -> None:
    op.create_table(
        "certificates",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False, comment="whose data; no reference: it outlives them"),
        sa.Column("project_id", sa.UUID(), nullable=True, comment="no reference: it outlives the project"),
        sa.Column("build_id", sa.UUID(), nullable=True, comment="no reference: it outlives the build"),
        sa.Column("rule", sa.Text(), nullable=False, comment="the setting with its value, or who asked for it"),
        sa.Column(
            "counts",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="what there was, by kind; bytes",
        ),
        sa.Column("file_sha256", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the certificate"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificates")),
    )
    op.create_index("ix_certificates_user", "certificates", ["user_id", "issued_at"])
    op.create_index("ix_certificates_project", "certificates", ["project_id", "issued_at"])
    of_user = "app_every_row() or user_id = app_user_id()"
    of_project = "(select true from projects where projects.id = certificates.project_id)"
    op.execute(f"create policy certificates_select on certificates for select using ({of_user} or {of_project})")
    op.execute("create policy certificates_insert on certificates for insert with check (app_every_row())")
    op.execute("alter table certificates enable row level security, force row level security")
    op.execute(_REFUSE)
    op.execute(
        "create trigger certificates_are_never_changed before update or delete on certificates "
        "for each row execute function refuse_change_of_certificate()"
    )


def downgrade() -> None:
    op.drop_table("certificates")
    op.execute("drop function refuse_change_of_certificate()")
