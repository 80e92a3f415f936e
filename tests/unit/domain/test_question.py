"""The questions that a guard asks the founder."""

from domain.question import Attempt, about_circle, about_error, reason_of


def test_a_question_says_what_happened_and_what_was_tried() -> None:
    attempts = [Attempt(turn, "I try\nagain.", "bash: make", "x" * 1000 + f"\nError {turn}") for turn in range(7)]
    asked = about_error(attempts)
    reason = "The agent has hit the same error 7 times, most recently with `bash: make`."
    assert reason_of(asked.problem) == reason
    assert asked.problem.startswith(reason)
    assert asked.problem.endswith("Error 6")
    assert len(asked.problem) < 1000
    assert asked.tried == [f"Turn {turn}: I try again. — bash: make" for turn in range(2, 7)]
    assert 2 <= len(asked.options) <= 4
    assert about_circle(attempts).tried == asked.tried
