"""Feeds with the state that each adds up to: the command line and the web console have to agree on it.

    python -m tests.golden.states    write the states and the shapes again, from this version of the command line

A feed is what `cofounder watch BUILD --json` prints. `rehearsal.jsonl` is a build of the rehearsal model; the others
are made by hand. `web/src/feed/golden.test.ts` reads the same files.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from cli import feed_state
from cli.feed_state import FeedEvent, FeedState
from domain.events import EVENTS

FEEDS = Path(__file__).parent / "feeds"
SHAPES = FEEDS / "shapes.json"

_KINDS = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "flag",
    list[str]: "texts",
    list[int]: "integers",
    dict[str, int]: "integer map",
    dict[str, str]: "text map",
}


def feeds() -> list[Path]:
    """The stored feeds."""
    return sorted(FEEDS.glob("*.jsonl"))


def events_of(feed: Path) -> list[FeedEvent]:
    """The events of a stored feed, as they arrive."""
    sent = [json.loads(line) for line in feed.read_text().splitlines()]
    return [FeedEvent(**each | {"created_at": datetime.fromisoformat(each["created_at"])}) for each in sent]


def state_of(events: list[FeedEvent]) -> dict[str, Any]:
    """What the events add up to. Lines are left out, except for the ids of the events that have one."""
    state = FeedState()
    with patch.object(feed_state, "LINES_KEPT", 100_000):
        for event in events:
            state = state.apply(event)
    shown = sorted({line.event_id for line in state.lines})
    values = {name: value for name, value in vars(state).items() if name != "lines"}
    times = {name: _milliseconds(values[name]) for name in ("began_at", "ended_at")}
    return {**values, **times, "phases": list(state.phases), "shown": shown}


def _milliseconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)


def shapes() -> dict[str, Any]:
    """The fields of each type of event: what a field holds, and its default if an event may leave it out."""
    return {
        kind: {
            name: [_kind(field.annotation)] if field.is_required() else [_kind(field.annotation), field.default]
            for name, field in model.model_fields.items()
        }
        for kind, model in sorted(EVENTS.items())
    }


def _kind(annotation: Any) -> str:
    members = [member for member in get_args(annotation) if member is not type(None)]
    if type(None) in get_args(annotation):
        [member] = members
        return f"{_KINDS[member]} or null"
    return _KINDS[annotation]


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _write(SHAPES, shapes())
    for each in feeds():
        _write(each.with_suffix(".state.json"), state_of(events_of(each)))
