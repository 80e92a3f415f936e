"""The agent's system prompt."""

import json

from domain.prompt import render_system_prompt
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
