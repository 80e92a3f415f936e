"""The screenshots of a build: those of its evidence gates, and those that its agent has looked at."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.conversation import ResultImage, ResultText, read_result
from domain.page_view import DESKTOP, VIEWPORTS

LOOKING_TOOLS = ("take_screenshot", "look")
"""The tools whose images show the product. Others show images of the workspace."""

_SIZES = re.compile(r" on port \d+[:,]((?:(?: and)? (?:desktop|mobile) \d{1,5}x\d{1,5})+)")
_SIZE = re.compile(r"(desktop|mobile) (\d+)x(\d+)")

_SIZE_OF = {viewport.name: (viewport.width, viewport.height) for viewport in VIEWPORTS}


class ScreenshotKind(StrEnum):
    """Who has taken a screenshot."""

    GATE = "gate"
    """An evidence gate."""
    AGENT = "agent"
    """The agent, with one of its tools."""


@dataclass(frozen=True)
class Screenshot:
    """A picture of the product. `key`: of the WebP in the object store; `width` and `height`: in CSS pixels."""

    id: str
    kind: ScreenshotKind
    key: str
    viewport: str
    taken_at: datetime
    width: int | None
    height: int | None
    gate: int | None = None
    turn: int | None = None
    tool_use_id: str | None = None


_OF_GATE = re.compile(r"gate-([1-9][0-9]{0,8})-(?:desktop|mobile)")
_OF_CALL = re.compile(r"(.+)-[1-9][0-9]*")


def gate_named_in(screenshot_id: str) -> int | None:
    """The number of the evidence gate that took the screenshot with this id; None if none did."""
    named = _OF_GATE.fullmatch(screenshot_id)
    return None if named is None else int(named[1])


def call_named_in(screenshot_id: str) -> str | None:
    """The id of the tool call that took the screenshot with this id; None if none did."""
    named = _OF_CALL.fullmatch(screenshot_id)
    return None if named is None else named[1]


def of_gate(number: int, keys: Mapping[str, str], ended_at: datetime) -> list[Screenshot]:
    """The screenshots of an evidence gate. `keys`: of the object store, by viewport."""
    return [
        Screenshot(
            id=f"gate-{number}-{viewport}",
            kind=ScreenshotKind.GATE,
            key=keys[viewport],
            viewport=viewport,
            taken_at=ended_at,
            width=size[0],
            height=size[1],
            gate=number,
        )
        for viewport, size in _SIZE_OF.items()
        if viewport in keys
    ]


def of_call(
    tool_use_id: str, turn: int, result: str, done_at: datetime, key_of: Callable[[str], str]
) -> list[Screenshot]:
    """The screenshots of a tool call.

    Args:
        result: as it is stored; its text says the sizes.
        key_of: the object store's key of an image, by its SHA-256.
    """
    parts = read_result(result)
    images = [part.sha256 for part in parts if isinstance(part, ResultImage)]
    sizes = _sizes([part.text for part in parts if isinstance(part, ResultText)], len(images))
    return [
        Screenshot(
            id=f"{tool_use_id}-{position}",
            kind=ScreenshotKind.AGENT,
            key=key_of(sha256),
            viewport=viewport,
            taken_at=done_at,
            width=width,
            height=height,
            turn=turn,
            tool_use_id=tool_use_id,
        )
        for position, (sha256, (viewport, width, height)) in enumerate(zip(images, sizes, strict=True), start=1)
    ]


def _sizes(texts: Sequence[str], count: int) -> list[tuple[str, int | None, int | None]]:
    """Viewport, width and height of each image, as the tool says them after the page's path and the port."""
    said = _SIZES.search("\n".join(texts))
    sizes = [] if said is None else _SIZE.findall(said[1])
    known = [(viewport, int(width), int(height)) for viewport, width, height in sizes[:count]]
    return [*known, *[(DESKTOP.name, None, None)] * (count - len(known))]
