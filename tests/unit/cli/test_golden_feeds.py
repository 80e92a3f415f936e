"""The command line's state of each stored feed. The web console's tests compare theirs with the same files."""

import json
from pathlib import Path

import pytest

from tests.golden.states import SHAPES, events_of, feeds, shapes, state_of

_AGAIN = "If that is meant, run `python -m tests.golden.states`, and change web/src/feed/ in the same way."


@pytest.mark.parametrize("feed", feeds(), ids=lambda feed: feed.stem)
def test_each_feed_adds_up_to_its_state(feed: Path) -> None:
    stored = json.loads(feed.with_suffix(".state.json").read_text())
    assert json.loads(json.dumps(state_of(events_of(feed)))) == stored, _AGAIN


def test_feeds_hold_every_type_of_event() -> None:
    kinds = {event.type for feed in feeds() for event in events_of(feed)}
    assert kinds >= set(shapes()), "add an event of each new type to tests/golden/feeds/edges.jsonl"


def test_shapes_are_those_of_the_events() -> None:
    assert shapes() == json.loads(SHAPES.read_text()), _AGAIN
