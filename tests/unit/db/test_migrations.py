"""Every migration says whether older programs can go on after it."""

import re
from pathlib import Path

import pytest
from alembic.script import Script, ScriptDirectory

from db.formats import own_formats
from domain.formats import SCHEMA

_MIGRATIONS = Path(__file__).parents[3] / "db" / "migrations"
_SCRIPTS = list(ScriptDirectory(_MIGRATIONS).walk_revisions())


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: str(script.revision))
def test_a_migration_is_expand_or_contract(script: Script) -> None:
    """A contract migration names the oldest program that can go on, by that program's last migration."""
    assert script.module.kind in ("expand", "contract"), 'add kind = "expand" or "contract" to the migration'
    if script.module.kind == "contract":
        assert re.fullmatch(r"\d{4}", script.module.needs)
        assert int(script.module.needs) <= int(script.revision)


def test_the_schema_has_the_last_migrations_number() -> None:
    [head] = ScriptDirectory(_MIGRATIONS).get_heads()
    assert own_formats()[SCHEMA] == int(head)
