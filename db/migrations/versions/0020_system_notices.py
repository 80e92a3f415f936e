"""Cofounder's notes to the agent may be messages of their own, with the role `system`"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column("prompts", sa.Column("system_notices", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # Not validated: every row satisfies the narrower check that this one replaces, and reading them all takes long.
    op.drop_constraint(op.f("ck_messages_role"), "messages")
    op.execute(
        "alter table messages add constraint ck_messages_role check (role in ('assistant', 'system', 'user')) not valid"
    )


def downgrade() -> None:
    op.execute("alter table messages disable trigger user")
    op.execute("delete from messages where role = 'system'")
    op.execute("alter table messages enable trigger user")
    op.drop_constraint(op.f("ck_messages_role"), "messages")
    op.create_check_constraint(op.f("ck_messages_role"), "messages", "role in ('assistant', 'user')")
    op.drop_column("prompts", "system_notices")
