"""What the built console is made of: nothing that its policy forbids, and nothing of other origins."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def files(bundle: Path) -> dict[str, bytes]:
    """The built files by their path."""
    return {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_there_is_no_source_map_and_nothing_is_evaluated(files: dict[str, bytes]) -> None:
    assert not [path for path in files if path.endswith(".map")]
    for path, content in files.items():
        if path.endswith((".js", ".css", ".html")):
            text = content.decode()
            assert "sourceMappingURL" not in text, path
            assert not re.search(r"\beval\(|new Function\(|\bFunction\(\"", text), path


def test_the_page_has_nothing_inline_and_loads_only_files_of_the_bundle(files: dict[str, bytes]) -> None:
    page = files["index.html"].decode()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", page)
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert loaded
    assert {path.removeprefix("/") for path in loaded} <= files.keys()


def test_no_file_is_loaded_from_another_origin(files: dict[str, bytes]) -> None:
    """Addresses in scripts are names of XML namespaces, of standards and of documentation, which nothing requests."""
    for path, content in files.items():
        text = content.decode(errors="replace")
        assert not re.search(r"(?:import|fetch|@import|url|src=|href=)\s*\(?[\"']?(?:https?:)?//", text), path


def test_names_of_files_change_with_their_content(files: dict[str, bytes]) -> None:
    for path in files:
        assert path in ("index.html", "THIRD-PARTY.txt") or re.fullmatch(r"assets/[\w.-]+-[\w-]{8}\.\w+", path), path


def test_the_licences_of_packages_are_there(files: dict[str, bytes]) -> None:
    """Of each package that ends up in the files, its name and the text that it asks to be kept with it."""
    text = files["THIRD-PARTY.txt"].decode()
    for package in ("react", "react-dom", "@tanstack/react-query", "wouter", "react-markdown"):
        assert re.search(rf"^## {re.escape(package)} - [\d.]+ \(", text, re.MULTILINE), package
    assert text.count("Permission is hereby granted") > 10
