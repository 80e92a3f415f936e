"""The questions that a guard asks the founder."""

from domain.question import Attempt, about_circle, about_error


def test_a_question_says_what_happened_and_what_was_tried() -> None:
    attempts = [Attempt(turn, "I try\nagain.", "bash: make", "x" * 1000 + f"\nError {turn}") for turn in range(7)]
    asked = about_error(attempts)
    assert asked.problem.startswith(asked.reason)
    assert asked.problem.endswith("Error 6")
    assert len(asked.problem) < 1000
    assert asked.tried == [f"Turn {turn}: I try again. — bash: make" for turn in range(2, 7)]
    assert 2 <= len(asked.options) <= 4
    assert about_circle(attempts).tried == asked.tried
