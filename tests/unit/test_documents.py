"""The documents' links lead somewhere, and the licence is the one that the package names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_documents_for_newcomers_are_there() -> None:
    names = {document.name for document in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "vendors.md"} <= names


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    project = (ROOT / "pyproject.toml").read_text()
    assert 'license = "Apache-2.0"' in project
    assert 'license-files = ["LICENSE"]' in project


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    versions = re.findall(r"(?m)^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text())
    assert versions[0] == ("Unreleased", "")
    assert all(date for _, date in versions[1:])
