"""An erasure reaches each table that has something of a founder."""

import re

from db.erasures import _BEFORE_BUILDS, _BUILD_ROWS, _PROJECT_ROWS, _USER_ROWS
from db.models import Base

KEPT = {
    "certificates": "ids, counts and hashes of what was archived",
    "dependencies": "whether servers answer",
    "deployment": "the namespace",
    "erasures": "the certificates",
    "fleet_days": "sums of all users",
    "formats": "versions of the program",
    "limits": "set by operators",
    "model_buckets": "rates of all users",
    "payload_keys": "ids of keys",
    "plan_tiers": "set by operators",
    "processes": "versions of the program",
    "reaper_steps": "how far the reaper is",
    "sandbox_fleet": "a sum of all users",
    "sign_in_attempts": "of no one yet, and for minutes",
}
"""Tables that an erasure leaves alone, each with what it has. A new one belongs here if it has nothing of founders."""


def test_each_table_is_reached_or_has_nothing_of_founders() -> None:
    statements = " ".join([*_BEFORE_BUILDS, *_BUILD_ROWS, *_PROJECT_ROWS, *_USER_ROWS])
    reached = set(re.findall(r"(?:delete from|update) (\w+)", statements))
    tables = Base.metadata.tables
    assert reached <= set(tables)
    while True:
        more = {
            name
            for name, table in tables.items()
            for key in table.foreign_keys
            if key.ondelete == "CASCADE" and key.column.table.name in reached
        }
        if more <= reached:
            break
        reached |= more
    assert set(tables) - reached == set(KEPT)
