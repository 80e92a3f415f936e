"""An erasure removes from the audit also what an identity provider calls its user"""

from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None
kind = "expand"

_REFUSE = """
create or replace function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and erasing() then
        if new.ip is null then
            old.ip := null;
        end if;
        if new.credential_id is null and old.how = 'jwt' then
            old.credential_id := null;
        end if;
        if new.fields = old.fields - 'subject' then
            old.fields := new.fields;
        end if;
        if new is not distinct from old then
            return new;
        end if;
    end if;
    raise exception 'the audit is only ever added to' using errcode = 'restrict_violation';
end $$
"""
"""Of an entry, an erasure removes the address, the `sub` of a token, and that of an identity that was linked."""

_REFUSE_BEFORE = """
create or replace function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and erasing() then
        old.ip := null;
        if new is not distinct from old then
            return new;
        end if;
    end if;
    raise exception 'the audit is only ever added to' using errcode = 'restrict_violation';
end $$
"""


def upgrade() -> None:
    op.execute(_REFUSE)


def downgrade() -> None:
    op.execute(_REFUSE_BEFORE)
