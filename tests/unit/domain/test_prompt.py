"""The agent's system prompt."""

import json

from domain.prompt import UNATTENDED, open_stories, render_system_prompt
from domain.tools import TOOLS


def test_the_prompt_holds_brief_interview_and_goal_verbatim() -> None:
    brief = {"name": 'Q"uo\\te', "features": ["ünï", "{curly}"]}
    answers = [{"question": "Why {so}?", "answer": "Därför"}]
    [block] = json.loads(render_system_prompt(brief, answers, "Make {it} work", []))
    text = block["text"]
    assert json.JSONDecoder().raw_decode(text.split("<idea_brief>\n", 1)[1])[0] == brief
    assert json.JSONDecoder().raw_decode(text.split("<interview>\n", 1)[1])[0] == answers
    assert "<goal>\nMake {it} work\n</goal>" in text
    assert "no network" in text
    assert all(tool in text for tool in TOOLS)


def test_the_prompt_describes_the_network() -> None:
    assert "only these hosts: pypi.org" in render_system_prompt({}, [], "g", ["pypi.org"])
    assert "access to the internet" in render_system_prompt({}, [], "g", None)


def test_the_prompt_asks_for_a_plan_and_ends_with_what_an_unattended_run_needs() -> None:
    [block] = json.loads(render_system_prompt({}, [], "g", None))
    assert "`- [ ] A visitor" in block["text"]
    assert "`BLOCKED: " in block["text"]
    assert block["text"].endswith(UNATTENDED)


def test_an_early_end_is_answered_with_the_open_stories() -> None:
    text = open_stories(["Log in", "Log out"], 5, is_empty=False)
    assert "PLAN.md:\n- Log in\n- Log out\nand 3 more\n" in text
    assert "there is no PLAN.md" in open_stories([], 0, is_empty=True)
