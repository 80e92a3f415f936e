"""The project speaks plain English: words and turns of phrase that read as translated are kept out of it."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

AVOID = {
    r"who(m)?ever": "anyone who",
    r"(?<!\")nobody(?!\")": "no one, or say who does what",
    r"somebody": "someone",
    r"anew|afresh": "again",
    r"mend(s|ed|ing)?": "fix",
    r"besides": "also",
    r"so (many|often) times": "after this many times",
    r"so often": "this often",
    r"where it is|where there is no(ne)?": "if",
    r"(?<!there )(is|are|was) no(?! (longer|more|one|such|way|need|room|reason|limit|answer)\b) "
    r"[a-z]+(?= (of|for|to|in|that)\b|[.,:;])": "is not a",
    r"in use (it|is|does|runs)|durable as in use": "in production",
    r"(?<=[a-z] )of before\b": "earlier",
    r"comes? to nothing|came to nothing": "say what happens",
    r"gets? no further": "makes no progress",
    r"lets? go of": "release",
}
"""Regular expressions, without regard to case, and what to write instead."""

_ANY = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in AVOID), re.IGNORECASE)

NOT_PROSE = (
    "tests/replay/histories/",
    "uv.lock",
    "LICENSE",
    "tests/unit/repository/test_prose.py",
    "db/migrations/versions/",
)
"""Recorded or frozen texts, and this list itself."""

TEXT = {"", ".md", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml", ".json", ".html", ".css", ".js"}


def tracked_texts() -> list[Path]:
    """The files that are under version control and read by people."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    names = [name for name in listed.split("\0") if name and not name.startswith(NOT_PROSE)]
    return [ROOT / name for name in names if Path(name).suffix in TEXT and (ROOT / name).is_file()]


def violations(text: str) -> list[str]:
    """The lines that hold an avoided phrase, with the phrase and what to write instead."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not _ANY.search(line):
            continue
        for pattern, instead in AVOID.items():
            if match := re.search(rf"\b(?:{pattern})\b", line, re.IGNORECASE):
                found.append(f"{number}: {match[0]!r}; write {instead!r}: {line.strip()[:100]}")
    return found


def test_texts_are_plain_english() -> None:
    texts = tracked_texts()
    assert len(texts) > 200
    bad = [f"{path.relative_to(ROOT)}:{found}" for path in texts for found in violations(path.read_text())]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    "line",
    [
        "Whoever reads this",
        "a defect that is mended",
        "This is no address.",
        "begin anew",
        "Somebody else was faster",
        "workers of before can't read it",
    ],
)
def test_an_avoided_phrase_is_noticed(line: str) -> None:
    assert violations(line)


@pytest.mark.parametrize("line", ["It is no longer there.", "There is no such file.", 'user "nobody"', "recommend"])
def test_ordinary_english_is_not(line: str) -> None:
    assert not violations(line)
