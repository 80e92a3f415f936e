"""What the program says to people: it names settings that there are, and has words for what it shows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.payloads import SnapshotReason
from settings import Settings

ROOT = Path(__file__).parents[3]
OTHERS = frozenset({"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_PROFILE", "STRIPE_API_KEY"})
"""Variables that Temporal's SDK reads by itself, and a product's in an example."""

NAME = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"
ADVICE = re.compile(
    rf"\b(?:[Cc]heck|[Cc]hoose|[Ll]ower|[Pp]ut|[Rr]aise|[Ss]et|[Uu]nset) {NAME}(?:(?:,| and| or) {NAME})*"
)


def _advised() -> Iterator[tuple[str, str]]:
    """Each variable that a text tells people to set or to check, and where."""
    packages = [each.parent for each in ROOT.glob("*/__init__.py") if each.parent.name not in ("tests", "bench")]
    for package in packages:
        for file in package.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for advice in ADVICE.finditer(node.value):
                        for name in re.findall(NAME, advice[0]):
                            yield name, f"{file.relative_to(ROOT)}:{node.lineno}"


def test_advice_names_settings_that_there_are() -> None:
    advised = list(_advised())
    assert len({name for name, _ in advised}) > 20
    known = {*Settings.variables(), *OTHERS}
    assert [each for each in advised if each[0] not in known] == []


@pytest.mark.parametrize(("file", "table"), [("feed", "const SNAPSHOT"), ("panels", "reasons: {")])
def test_the_console_has_words_for_each_reason_of_a_snapshot(file: str, table: str) -> None:
    text = (ROOT / "web" / "src" / "words" / f"{file}.ts").read_text()
    words = text[text.index(table) :].partition("}")[0]
    assert set(re.findall(r"(?m)^\s+(\w+): \"", words)) == {reason.value for reason in SnapshotReason}
