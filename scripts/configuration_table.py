"""Write the table of settings into docs/configuration.md, between its two markers, from settings.py.

.venv/bin/python -m scripts.configuration_table
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from domain.build_settings import BuildSettings
from settings import Settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN = "<!-- configuration: written by scripts/configuration_table.py from settings.py -->"
END = "<!-- end of configuration -->"

GROUPS = {
    "database_url": "Database and task queue",
    "s3_endpoint_url": "Object store",
    "anthropic_api_key": "Model",
    "e2b_api_key": "Sandboxes",
    "autonomous_agent": "Builds",
    "api_token": "API and command line",
    "log_format": "Logs",
}
"""A group begins with this setting and goes on to the next of them, in the order of settings.py."""


def table() -> str:
    """Every setting with its default and what it is for, in Markdown."""
    return "\n".join(_rows())


def with_table(document: str) -> str:
    """Return the document with the current table between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/configuration.md lacks a marker: {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _rows() -> Iterator[str]:
    yield "| variable | default | what for |"
    yield "| --- | --- | --- |"
    for name, field in _fields():
        if name in GROUPS:
            yield f"| **{GROUPS[name]}** | | |"
        yield f"| `{name.upper()}` | {_default(field)} | {_cell(field.description or '')} |"


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield the settings in the order of settings.py. Those of domain/build_settings.py follow the kill switch."""
    for name, field in Settings.model_fields.items():
        if name not in BuildSettings.model_fields:
            yield name, field
        if name == "autonomous_agent":
            yield from BuildSettings.model_fields.items()


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None:
        return "in settings.py"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, list):
        value = ",".join(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{_cell(str(value))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Update docs/configuration.md, and print whether anything changed."""
    document = DOCUMENT.read_text()
    changed = with_table(document)
    DOCUMENT.write_text(changed)
    sys.stdout.write(
        "docs/configuration.md is up to date.\n" if changed == document else "docs/configuration.md has been written.\n"
    )


if __name__ == "__main__":
    main()
