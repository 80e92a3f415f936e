"""Manifests: the same text for the same tree, and differences that people can read."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.manifest import (
    DIFFERENCES_SHOWN,
    Entry,
    Kind,
    compare,
    digest,
    directory,
    link,
    parse_manifest,
    printable,
    render_manifest,
)


def file(path: str, content: bytes = b"x", mode: int = 0o644, ignored: bool = False) -> Entry:
    return Entry(path, Kind.FILE, mode, len(content), hashlib.sha256(content).hexdigest(), ignored)


NAMES = st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"0").decode("utf-8", "surrogateescape"))


@given(st.lists(NAMES, unique=True))
def test_a_manifest_is_the_same_text_whatever_the_order(names: list[str]) -> None:
    entries = [file(name) for name in names]
    text = render_manifest(entries)
    assert text == render_manifest(reversed(entries))
    assert text.isascii()
    assert sorted(parse_manifest(text), key=lambda entry: entry.path) == sorted(entries, key=lambda entry: entry.path)
    assert compare(entries, parse_manifest(text)) == []
    assert (digest(text) == digest("")) == (not names)


@pytest.mark.parametrize("line", ["{}", "[]", '["a","socket",420,1,""]', '["a","file","420",1,""]', "nonsense"])
def test_an_invalid_manifest_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_manifest(line)


def test_each_kind_of_difference_is_reported() -> None:
    stored = [file("content"), file("mode"), file("gone"), file("kind"), link("link", "a"), directory("dir", 0o755)]
    found = [
        file("content", b"y"),
        file("mode", mode=0o755),
        directory("kind", 0o755),
        link("link", "b"),
        directory("dir", 0o700),
        file("new"),
        file("cache", ignored=True),
        directory("another", 0o755),
    ]
    assert compare(stored, found) == [
        "content has other content",
        "dir has mode 700, not 755",
        "gone is missing",
        "kind is a dir, not a file",
        "link has other content",
        "mode has mode 755, not 644",
        "new was not there",
    ]


def test_many_differences_are_counted() -> None:
    told = compare([file(f"{number:03}") for number in range(100)], [])
    assert len(told) == DIFFERENCES_SHOWN + 1
    assert told[-1] == "and 80 more"


@given(NAMES)
def test_any_path_can_be_shown_and_stored(name: str) -> None:
    text = printable(name * 30)
    text.encode()
    assert "\0" not in text
    assert "\n" not in text
    assert len(text) <= 200


def test_a_stored_line_is_short_and_has_no_flag() -> None:
    line = render_manifest([dataclasses.replace(file("a"), ignored=True)])
    assert json.loads(line) == ["a", "file", 0o644, 1, hashlib.sha256(b"x").hexdigest()]
