"""A status that an older program writes ends a wait for a dependency, of which it knows nothing"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
kind = "expand"

_FORGET = """
create function forget_dependency() returns trigger language plpgsql as $$
begin
    new.dependency := null;
    return new;
end $$
"""


def upgrade() -> None:
    op.execute(_FORGET)
    op.execute(
        "create trigger builds_forget_dependency before update of status on builds for each row "
        "when (new.status <> 'waiting' and new.dependency is not null) execute function forget_dependency()"
    )


def downgrade() -> None:
    op.execute("drop trigger builds_forget_dependency on builds")
    op.execute("drop function forget_dependency()")
