"""Days have totals: what a user, and all users together, have spent and reserved, kept by triggers

The triggers count for workers of the previous version, too, which write the ledger only.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
kind = "expand"

COUNT_ENTRY = """
create function count_ledger_entry() returns trigger language plpgsql as $$
declare
    moved boolean := tg_op = 'UPDATE' and (old.user_id, old.day) <> (new.user_id, new.day);
    spent_before bigint := 0; reserved_before bigint := 0; spent_after bigint := 0; reserved_after bigint := 0;
begin
    if tg_op <> 'INSERT' then
        if old.state = 'open' then reserved_before := old.cost; else spent_before := old.cost; end if;
    end if;
    if tg_op <> 'DELETE' then
        if new.state = 'open' then reserved_after := new.cost; else spent_after := new.cost; end if;
    end if;
    if tg_op = 'DELETE' or moved then
        update user_days set spent = spent - spent_before, reserved = reserved - reserved_before
            where user_id = old.user_id and day = old.day;
        spent_before := 0;
        reserved_before := 0;
    end if;
    if (spent_before, reserved_before) <> (spent_after, reserved_after) then
        update user_days set spent = spent + spent_after - spent_before,
            reserved = reserved + reserved_after - reserved_before
            where user_id = new.user_id and day = new.day;
    end if;
    return null;
end $$
"""

BEGIN_DAY = """
create function begin_user_day() returns trigger language plpgsql as $$
begin
    select coalesce(sum(cost) filter (where state <> 'open'), 0), coalesce(sum(cost) filter (where state = 'open'), 0)
        into new.spent, new.reserved from ledger where user_id = new.user_id and day = new.day;
    return new;
end $$
"""
"""A day's row is there before its first call, so the sum is 0, unless someone has written the ledger by hand."""

SHARD = """
create function fleet_shard(user_id text) returns integer language sql immutable parallel safe
return get_byte(sha256(convert_to(user_id, 'UTF8')), 0) % 32
"""

COUNT_DAY = """
create function count_user_day() returns trigger language plpgsql as $$
declare
    more_spent bigint := 0; more_reserved bigint := 0;
begin
    if tg_op <> 'DELETE' then
        more_spent := coalesce(new.spent, 0);
        more_reserved := coalesce(new.reserved, 0);
    end if;
    if tg_op <> 'INSERT' then
        more_spent := more_spent - coalesce(old.spent, 0);
        more_reserved := more_reserved - coalesce(old.reserved, 0);
    end if;
    if (more_spent, more_reserved) <> (0, 0) then
        insert into fleet_days as fleet (day, shard, spent, reserved)
            values (coalesce(new.day, old.day), fleet_shard(coalesce(new.user_id, old.user_id)), more_spent,
                more_reserved)
            on conflict (day, shard) do update
            set spent = fleet.spent + more_spent, reserved = fleet.reserved + more_reserved;
    end if;
    return null;
end $$
"""

BACKFILL = """
update user_days set spent = sums.spent, reserved = sums.reserved
from (
    select user_id, day,
        (select coalesce(sum(cost) filter (where state <> 'open'), 0) from ledger
            where ledger.user_id = days.user_id and ledger.day = days.day) as spent,
        (select coalesce(sum(cost) filter (where state = 'open'), 0) from ledger
            where ledger.user_id = days.user_id and ledger.day = days.day) as reserved
    from user_days as days where day >= (now() at time zone 'UTC')::date - 1
) as sums
where user_days.user_id = sums.user_id and user_days.day = sums.day
"""
"""Reads the ledger of two days by its index, so that it takes no longer on a ledger of years."""


def upgrade() -> None:
    # Null: an earlier day, whose sum is read from the ledger. The table's lock comes before the ledger's, as in calls.
    for column in ("spent", "reserved"):
        op.add_column("user_days", sa.Column(column, sa.BigInteger(), nullable=True))
        op.alter_column("user_days", column, server_default="0")
    op.create_table(
        "fleet_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("spent", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("granted", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("day", "shard", name=op.f("pk_fleet_days")),
    )
    # Rows that change all the time: leave room for new versions beside the old ones.
    op.execute("alter table fleet_days set (fillfactor = 50)")
    for function in (COUNT_ENTRY, BEGIN_DAY, SHARD, COUNT_DAY):
        op.execute(function)
    op.execute(
        "create trigger ledger_totals after insert or delete or update of cost, state, user_id, day on ledger "
        "for each row execute function count_ledger_entry()"
    )
    op.execute(
        "create trigger user_days_begin before insert on user_days for each row execute function begin_user_day()"
    )
    # Deferred: the fleet's row is locked by many users' transactions, so each one locks it at its end only.
    op.execute(
        "create constraint trigger user_days_fleet after insert or delete or update of spent, reserved on user_days "
        "deferrable initially deferred for each row execute function count_user_day()"
    )
    op.execute(BACKFILL)
    op.execute("set constraints all immediate")
    op.execute("set constraints all deferred")


def downgrade() -> None:
    op.execute("drop trigger user_days_fleet on user_days")
    op.execute("drop trigger user_days_begin on user_days")
    op.execute("drop trigger ledger_totals on ledger")
    for function in ("count_user_day()", "begin_user_day()", "count_ledger_entry()", "fleet_shard(text)"):
        op.execute(f"drop function {function}")
    op.drop_table("fleet_days")
    op.drop_column("user_days", "reserved")
    op.drop_column("user_days", "spent")
