"""Reading a plan's stories, and the blocker that a last message names."""

import pytest

from domain.plan import named_blocker, parse_plan


def test_stories_are_open_or_done() -> None:
    plan = parse_plan(
        "# Plan\n- [ ] Sign up: check: a test posts the form\n- [x] See the list\n* [X] Log in\n1. [ ] Log out\n"
        "  - [ ] nested\n"
    )
    assert plan.open == ("Sign up: check: a test posts the form", "Log out", "nested")
    assert plan.done == ("See the list", "Log in")
    assert not plan.is_empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no list",
        "- [] none",
        "- [ ]",
        "-[ ] glued",
        "```\n- [ ] in code\n```",
        "~~~\n- [ ] in code",
        "[ ] no bullet",
    ],
)
def test_what_is_no_story(text: str) -> None:
    assert parse_plan(text).is_empty


def test_a_very_long_story_is_cut() -> None:
    [story] = parse_plan("- [ ] " + "long " * 1000).open
    assert len(story) == 200


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("All done.", None),
        ("I am blocked: really", None),
        ("Stopped.\nBLOCKED: there is no key for the mail service", "there is no key for the mail service"),
        ("**BLOCKED:** no key", "no key"),
        ("BLOCKED:\n", None),
        ("BLOCKED: one\ntext\n- BLOCKED: two\n", "one; two"),
    ],
)
def test_the_blocker_that_a_message_names(text: str, what: str | None) -> None:
    found = named_blocker(text)
    assert (found.strip("* ") if found else None) == what
