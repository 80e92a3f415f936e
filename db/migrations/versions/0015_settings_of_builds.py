"""Settings that an operator has changed for a build that runs"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column(
            "settings",
            JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="what an operator has changed for it since it began, by name",
        ),
    )
    op.add_column(
        "builds",
        sa.Column(
            "settings_version",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="counts changes of `settings`; the workflow takes over the last",
        ),
    )
    check = "alter table builds add constraint ck_builds_settings check (jsonb_typeof(settings) = 'object') not valid"
    op.execute(check)
    op.execute("alter table builds validate constraint ck_builds_settings")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_builds_settings"), "builds")
    op.drop_column("builds", "settings_version")
    op.drop_column("builds", "settings")
