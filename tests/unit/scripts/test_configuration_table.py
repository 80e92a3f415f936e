"""The table of settings in docs/configuration.md agrees with settings.py."""

from scripts.configuration_table import DOCUMENT, GROUPS, table, with_table
from settings import Settings


def test_the_document_has_the_current_settings() -> None:
    document = DOCUMENT.read_text()
    assert with_table(document) == document, "run: .venv/bin/python -m scripts.configuration_table"


def test_every_setting_is_in_a_group_and_says_what_it_is_for() -> None:
    names = list(Settings.model_fields)
    assert table().splitlines()[2].startswith("| **"), "the first setting is not in a group"
    assert set(GROUPS) <= set(names)
    assert all(field.description for field in Settings.model_fields.values())
    assert all(f"| `{name.upper()}` |" in table() for name in names)
