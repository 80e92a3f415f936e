"""Screenshots are found in the rows of gates and of tool calls."""

from datetime import UTC, datetime

import pytest

from activities.tool_outcome import page_seen, screenshots_taken
from domain.page_view import DESKTOP, MOBILE, PageView
from domain.screenshots import of_call, of_gate
from domain.tool_output import ImageRef, render_result

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _view(viewport: str, width: int, height: int, title: str = "") -> PageView:
    return PageView("/", viewport, 200, title, "", (), (), (), 0, b"", width, height)


def test_screenshots_of_a_gate_have_the_viewports_sizes() -> None:
    found = of_gate(2, {"mobile": "m", "desktop": "d", "watch": "w"}, AT)
    assert [(each.id, each.key, each.width, each.height) for each in found] == [
        ("gate-2-desktop", "d", DESKTOP.width, DESKTOP.height),
        ("gate-2-mobile", "m", MOBILE.width, MOBILE.height),
    ]


def test_screenshots_of_a_call_have_the_sizes_that_its_tool_said() -> None:
    shots = [_view("desktop", 1280, 800), _view("mobile", 390, 844)]
    taken = screenshots_taken("/", 8000, shots, [ImageRef("a" * 64), ImageRef("b" * 64)])
    found = of_call("toolu_1", 7, render_result("toolu_1", taken.content), AT, str.upper)
    assert [(each.id, each.key, each.viewport, each.width, each.height) for each in found] == [
        ("toolu_1-1", "A" * 64, "desktop", 1280, 800),
        ("toolu_1-2", "B" * 64, "mobile", 390, 844),
    ]
    assert {(each.turn, each.gate, each.tool_use_id) for each in found} == {(7, None, "toolu_1")}


def test_a_whole_page_is_as_long_as_it_is_whatever_its_title_says() -> None:
    view = _view("mobile", 390, 5_120, title=" on port 1: desktop 1x1")
    seen = page_seen("/list", 8000, view, ImageRef("a" * 64))
    [found] = of_call("toolu_1", 7, render_result("toolu_1", seen.content), AT, str)
    assert (found.viewport, found.width, found.height) == ("mobile", 390, 5_120)


@pytest.mark.parametrize("text", ["", "A text of an older version.", "/ on port 8000: desktop 1280x800; HTTP 200"])
def test_a_size_that_no_text_says_is_unknown(text: str) -> None:
    stored = render_result("toolu_1", [ImageRef("a" * 64), text, ImageRef("b" * 64)])
    found = of_call("toolu_1", 7, stored, AT, str)
    assert [each.viewport for each in found] == ["desktop", "desktop"]
    assert found[1].width is None


def test_a_call_without_images_has_no_screenshots() -> None:
    assert of_call("toolu_1", 7, render_result("toolu_1", "No server answers."), AT, str) == []
