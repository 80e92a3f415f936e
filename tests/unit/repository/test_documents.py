"""Links and commands in the documents work, and the licence is the one that the package names."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from cli.main import app

ROOT = Path(__file__).parents[3]
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


def _commands_in(document: Path) -> list[list[str]]:
    """The `cofounder` and `make` commands of a document's shell blocks, as words."""
    lines = [
        line
        for block in re.findall(r"(?s)```(?:sh|bash)\n(.*?)```", document.read_text())
        for line in block.replace("\\\n", " ").splitlines()
    ]
    commands = [shlex.split(line, comments=True) for line in lines if re.match(r"(\S*/)?(cofounder|make) ", line)]
    return [[Path(command[0]).name, *command[1:]] for command in commands]


def test_commands_in_the_documents_exist() -> None:
    """Every `cofounder` command takes the options that a document gives it, and every `make` target is there."""
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    commands = [command for document in DOCUMENTS for command in _commands_in(document)]
    assert len(commands) > 20
    for program, *words in commands:
        if program == "make":
            assert words[0] in targets, words
            continue
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        context = command.make_context("cofounder", [word.rstrip("&") for word in words if word != "&"])
        assert context.command is command


def test_an_unknown_option_in_a_document_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("```sh\n.venv/bin/cofounder wake last --loudly   # now\n```\n")
    ((program, name, *words),) = _commands_in(document)
    assert (program, name, words) == ("cofounder", "wake", ["last", "--loudly"])
    command: Any = typer.main.get_command(app)
    with pytest.raises(TyperException, match="No such option: --loudly"):
        command.commands[name].make_context("wake", words)
