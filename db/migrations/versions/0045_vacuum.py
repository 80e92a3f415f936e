"""Vacuum large tables by a small share of their rows, and leave room in the rows of builds"""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None
kind = "expand"

_LARGE = ("events", "messages", "tool_calls", "turns", "ledger", "prompts", "compactions")
"""They grow with every turn, and retention deletes from all but the ledger."""

_SHARES = ("autovacuum_vacuum_scale_factor", "autovacuum_vacuum_insert_scale_factor", "autovacuum_analyze_scale_factor")


def upgrade() -> None:
    # A fifth of a table, the default, is weeks of a large one: until then deleted rows take room, and reads of an index
    # look at the table for rows that are visible to everyone.
    for table in _LARGE:
        op.execute(f"alter table {table} set ({', '.join(f'{share} = 0.02' for share in _SHARES)})")
    # A row of a build changes several times a turn. With room on its page, no index has to follow.
    op.execute("alter table builds set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    op.execute("alter table builds reset (fillfactor, autovacuum_vacuum_scale_factor)")
    for table in _LARGE:
        op.execute(f"alter table {table} reset ({', '.join(_SHARES)})")
