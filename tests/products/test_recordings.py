"""The recorded agent scripts can be read, and none leaves out what every product needs."""

import json

import pytest

from domain.tools import TOOLS
from tests.products.reach import REGISTRY_HOSTS
from tests.products.recordings import Recording, parse_recording, read_recordings

_RECORDINGS = read_recordings()


@pytest.mark.parametrize("recording", _RECORDINGS, ids=lambda recording: recording.name)
def test_each_recording_is_a_product_that_is_continued_on_another_day(recording: Recording) -> None:
    assert len(recording.days) == 2
    assert set(recording.needs) <= set(REGISTRY_HOSTS)
    assert {"name", "features"} <= set(recording.brief)
    written = [
        step["input"] for turn in recording.days[0]["turns"] for step in turn if step.get("tool") == "write_file"
    ]
    files = {each["file_path"]: each["content"] for each in written}
    assert {"install", "check", "start", "port"} == set(json.loads(files["cofounder.json"]))
    assert "- [x]" in files["PLAN.md"]


@pytest.mark.parametrize("recording", _RECORDINGS, ids=lambda recording: recording.name)
def test_each_call_of_a_recording_fits_its_tool(recording: Recording) -> None:
    for day in recording.days:
        for step in (step for turn in day["turns"] for step in turn if "tool" in step):
            TOOLS[step["tool"]].input.model_validate(step["input"])


def test_directions_become_tool_calls() -> None:
    recording = parse_recording(
        "p", ">>> brief {}\n>>> needs npm\n>>> day\n>>> turn Now.\n>>> write a b\nx\n\ny\n>>> bash 9\nls\n"
    )
    assert recording.needs == ["npm"]
    [[text, write, bash]] = recording.days[0]["turns"]
    assert text == {"text": "Now."}
    assert write["input"] == {"file_path": "a b", "content": "x\n\ny\n"}
    assert bash["input"] == {"command": "set -e\nls\n", "timeout_ms": 9000}


def test_an_unknown_direction_is_named() -> None:
    with pytest.raises(ValueError, match="p: a recording has no direction wirte"):
        parse_recording("p", ">>> wirte a\n")
