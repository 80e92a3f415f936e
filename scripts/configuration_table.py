"""Write the table of settings into README.md, between its two markers, from settings.py.

.venv/bin/python -m scripts.configuration_table
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from settings import Settings

README = Path(__file__).parents[1] / "README.md"
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
"""Heading by the first setting of each group. A group ends where the next one begins, in the order of settings.py."""


def table() -> str:
    """Return every setting with its default and purpose, as a Markdown table."""
    return "\n".join(_rows())


def with_table(readme: str) -> str:
    """Return the README's text with the current table between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks a marker: {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _rows() -> Iterator[str]:
    yield "| variable | default | what for |"
    yield "| --- | --- | --- |"
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            yield f"| **{GROUPS[name]}** | | |"
        yield f"| `{name.upper()}` | {_default(field)} | {_cell(field.description or '')} |"


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
    """Update README.md, and print whether anything changed."""
    readme = README.read_text()
    updated = with_table(readme)
    README.write_text(updated)
    sys.stdout.write("README.md is up to date.\n" if updated == readme else "README.md has been updated.\n")


if __name__ == "__main__":
    main()
