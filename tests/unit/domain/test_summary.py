"""What an agent is told beside, or instead of, a summary of its conversation."""

from domain.summary import FOUNDER_CHARACTERS, INSTRUCTIONS, LastTurn, Record, compacted, opening

RECORD = Record(["Make it blue.", "And round."], ["Add the scaffold", "Add the waitlist"], ["Visitors can leave"])


def test_both_say_what_a_summary_may_have_lost() -> None:
    for text in (compacted(RECORD), opening(RECORD, LastTurn("", [], []))):
        assert text.index("<founder_message>\nMake it blue.") < text.index("<founder_message>\nAnd round.")
        assert text.index("Add the scaffold") < text.index("Add the waitlist")
        assert "Visitors can leave" in text
        assert "PLAN.md and NOTES.md are in the workspace" in text


def test_the_newest_messages_are_kept() -> None:
    long = [f"{number} {'x' * 9000}" for number in range(4)]
    text = compacted(Record(long, []))
    assert len(text) < FOUNDER_CHARACTERS + 2000
    assert long[3] in text
    assert long[2] in text
    assert "\n1 xxx" in text, "the oldest that fits in part"
    assert "\n0 xxx" not in text


def test_an_opening_has_what_came_last() -> None:
    text = opening(RECORD, LastTurn("I look at the tests.", [("bash: make", "y" * 50_000)], ["Fix the findings."]))
    assert text.index("I look at the tests.") < text.index("bash: make") < text.index("Fix the findings.")
    assert "characters left out" in text
    assert len(text) < 20_000


def test_founders_do_not_read_their_own_messages_again() -> None:
    text = opening(RECORD, LastTurn("I look.", [], ["<founder_message>\nAnd fast."]), for_people=True)
    assert "(Your last 2 messages, word for word.)" in text
    assert "Make it blue." not in text
    assert "And fast." not in text
    assert "Add the waitlist" in text


def test_nothing_known_leaves_nothing_empty() -> None:
    assert "#" not in opening(Record([], []), LastTurn("", [], []))


def test_the_instructions_fit_the_size_that_a_request_is_given() -> None:
    assert len(INSTRUCTIONS.encode()) < 1000
