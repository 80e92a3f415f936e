"""Archives of closed builds' conversations, whose rows may then be deleted"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None
kind = "expand"

_REFUSE = """
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and (erasing() or (
        old.build_id::text = current_setting('cofounder.archive', true)
        and exists (select from build_archives where build_id = old.build_id)
    )) then
        return old;
    end if;
    raise exception 'rows of % are never changed: what was sent to the model must stay as it was', tg_table_name;
end $$
"""

_REFUSE_BEFORE = """
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and erasing() then
        return old;
    end if;
    raise exception 'rows of % are never changed: what was sent to the model must stay as it was', tg_table_name;
end $$
"""


def upgrade() -> None:
    jsonb = postgresql.JSONB(astext_type=sa.Text())
    op.create_table(
        "build_archives",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the object"),
        sa.Column("rows", jsonb, nullable=False, comment="how many rows of each table are in it"),
        sa.Column("images", jsonb, nullable=False, comment="hashes of the images that the conversation has"),
        sa.Column("archived_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_build_archives_build_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("build_id", name=op.f("pk_build_archives")),
    )
    seen = "app_every_row() or (select true from builds where builds.id = build_archives.build_id)"
    op.execute(f"create policy build_archives_select on build_archives for select using ({seen})")
    op.execute("create policy build_archives_insert on build_archives for insert with check (app_every_row())")
    op.execute("alter table build_archives enable row level security, force row level security")
    op.execute(_REFUSE)


def downgrade() -> None:
    op.execute(_REFUSE_BEFORE)
    op.drop_table("build_archives")
