"""What the program says to people names settings that there are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from settings import Settings

ROOT = Path(__file__).parents[3]
PRODUCT = (
    "activities",
    "api",
    "checks",
    "cli",
    "clients",
    "db",
    "domain",
    "local",
    "observing",
    "services",
    "workflows",
)
OTHERS = frozenset({"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_PROFILE", "STRIPE_API_KEY"})
"""Variables that Temporal's SDK reads by itself, and a product's in an example."""

ADVICE = re.compile(
    r"\b(?:[Cc]heck|[Cc]hoose|[Ll]ower|[Pp]ut|[Rr]aise|[Ss]et|[Uu]nset) ([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"
    r"(?:(?:,| and| or) ([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+))*"
)


def _advised() -> Iterator[tuple[str, str]]:
    """Each variable that a text tells people to set or to check, and where."""
    for folder in PRODUCT:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for advice in ADVICE.finditer(node.value):
                        for name in re.findall(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+", advice[0]):
                            yield name, f"{file.relative_to(ROOT)}:{node.lineno}"


def test_advice_names_settings_that_there_are() -> None:
    advised = list(_advised())
    assert len({name for name, _ in advised}) > 20
    known = {*Settings.variables(), *OTHERS}
    assert [each for each in advised if each[0] not in known] == []
