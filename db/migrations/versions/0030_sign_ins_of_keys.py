"""Sign-in links: what the sign-in may do, and the API key that made the link and with which the sign-in ends"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None
kind = "expand"

_OF_KEY = "the key that made the link; the sign-in ends with it"


def upgrade() -> None:
    op.add_column(
        "sign_in_codes",
        sa.Column(
            "scopes",
            postgresql.JSONB(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="names of scopes of the sign-in",
        ),
    )
    for table in ("sign_in_codes", "sign_ins"):
        op.add_column(table, sa.Column("api_key_id", sa.Text(), nullable=True, comment=_OF_KEY))
        op.create_foreign_key(op.f(f"fk_{table}_api_key_id"), table, "api_keys", ["api_key_id"], ["id"])
    op.create_index(op.f("ix_sign_ins_api_key_id"), "sign_ins", ["api_key_id"])


def downgrade() -> None:
    for table in ("sign_ins", "sign_in_codes"):
        op.drop_column(table, "api_key_id")
    op.drop_column("sign_in_codes", "scopes")
