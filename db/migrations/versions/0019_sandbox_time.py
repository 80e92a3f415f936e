"""Builds have a record of when a sandbox ran for them: a trigger on the permits keeps it"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
kind = "expand"

COUNT_RUN = """
create function count_sandbox_run() returns trigger language plpgsql as $$
declare
    ran boolean := false; runs boolean := false;
begin
    if tg_op <> 'INSERT' then ran := old.held_since is not null and old.role <> 'preview'; end if;
    if tg_op <> 'DELETE' then runs := new.held_since is not null and new.role <> 'preview'; end if;
    if ran and not runs then
        update sandbox_runs set ended_at = clock_timestamp() where build_id = old.build_id and ended_at is null;
    elsif runs and not ran then
        insert into sandbox_runs (build_id, started_at) values (new.build_id, clock_timestamp())
            on conflict (build_id) where ended_at is null do nothing;
    end if;
    return null;
end $$
"""
"""A preview's time is not the build's. One that is open counts until its end is seen, also after a crash."""

SECONDS = """
create function sandbox_seconds(of_build uuid, of_day date) returns bigint language sql volatile
begin atomic
    select coalesce(sum(greatest(0, extract(epoch from
            least(coalesce(ended_at, clock_timestamp()), (of_day + 1)::timestamp at time zone 'UTC')
            - greatest(started_at, of_day::timestamp at time zone 'UTC')))), 0)::bigint
    from sandbox_runs
    where build_id = of_build and started_at < (of_day + 1)::timestamp at time zone 'UTC'
        and (ended_at is null or ended_at > of_day::timestamp at time zone 'UTC');
end
"""


def upgrade() -> None:
    op.create_table(
        "sandbox_runs",
        sa.Column("build_id", sa.UUID(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("build_id", "started_at", name=op.f("pk_sandbox_runs")),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name=op.f("fk_sandbox_runs_build_id_builds"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("ended_at >= started_at", name=op.f("ck_sandbox_runs_order")),
    )
    op.create_index(
        "uq_sandbox_runs_open", "sandbox_runs", ["build_id"], unique=True, postgresql_where=sa.text("ended_at is null")
    )
    op.execute(COUNT_RUN)
    op.execute(SECONDS)
    op.execute(
        "create trigger permits_runs after insert or update or delete on permits "
        "for each row execute function count_sandbox_run()"
    )
    op.execute(
        "insert into sandbox_runs (build_id, started_at) select build_id, held_since from permits "
        "where held_since is not null and role <> 'preview'"
    )


def downgrade() -> None:
    op.execute("drop trigger permits_runs on permits")
    op.execute("drop function sandbox_seconds(uuid, date)")
    op.execute("drop function count_sandbox_run()")
    op.drop_table("sandbox_runs")
