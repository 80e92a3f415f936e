"""Findings as the agent reads them: cause, evidence and remedy, bounded and plain."""

from hypothesis import given
from hypothesis import strategies as st

from domain.findings import EVIDENCE_CHARACTERS, SENTENCE_CHARACTERS, Finding, FindingKind, Output


def test_a_finding_says_cause_evidence_and_remedy() -> None:
    finding = Finding(FindingKind.BLANK, "The page is blank.", "one colour", "Draw something.")
    assert finding.text() == "The page is blank.\none colour\nTo satisfy this: Draw something."
    assert finding.problem == "The page is blank.\none colour"


def test_a_finding_without_evidence_has_no_empty_line() -> None:
    assert Finding(FindingKind.BLANK, "Blank.", "", "Draw.").text() == "Blank.\nTo satisfy this: Draw."


@given(st.text(max_size=100).map(lambda text: text * 400))
def test_a_finding_is_bounded_and_can_be_stored(text: str) -> None:
    rendered = Finding(FindingKind.BLANK, text, text, text).text()
    assert len(rendered) < EVIDENCE_CHARACTERS + 2 * SENTENCE_CHARACTERS + 300
    assert "\0" not in rendered
    rendered.encode()


def test_a_short_output_is_quoted_whole() -> None:
    assert Output("\x1b[31mred\x1b[0m\n").quoted() == "Its output:\nred"
    assert Output("\n", bytes=1).quoted("Its log") == "Its log is empty."


def test_a_long_output_is_quoted_with_its_beginning_and_its_end() -> None:
    lines = [f"line {number}" for number in range(2_000)]
    text = "\n".join(lines)
    whole = Output(text, bytes=len(text), path="/home/user/rest").quoted()
    parts = Output(text[:9_000], text[-9_000:], len(text), "/home/user/rest").quoted()
    assert whole == parts
    shown = whole.splitlines()
    assert shown[0] == f"Its output ({len(text):,} bytes), its beginning and its end:"
    assert shown[1] == "line 0"
    assert shown[-1] == "line 1999"
    assert shown[shown.index("[… left out; more of it is in /home/user/rest …]") - 1] in lines
    assert set(shown[1:]) - set(lines) == {"[… left out; more of it is in /home/user/rest …]"}


def test_one_long_line_is_cut_within_it() -> None:
    quoted = Output("a" * 20_000 + "b" * 20_000).quoted()
    assert "aaa\n[… left out …]\nbbb" in quoted
    assert len(quoted) < 6_200
