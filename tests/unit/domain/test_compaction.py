"""When a conversation is summed up."""

import pytest

from domain.compaction import IMAGES_DUE, LEAST_TOKENS, TURNS_BETWEEN, compaction_threshold, is_compaction_due
from domain.models import default_prices

DEFAULT_CEILING = 1_833_333
"""110 % of a day of the default plan, in µ$."""


@pytest.mark.parametrize(
    ("model", "window", "ceiling", "threshold"),
    [
        ("claude-sonnet-5-5", 1_000_000, None, 150_000),
        ("claude-haiku-5-5", 1_000_000, None, 90_000),
        ("claude-sonnet-5-5", 60_000, None, 51_000),
        ("claude-sonnet-5-5", 1_000_000, DEFAULT_CEILING, 150_000),
        ("claude-opus-5-5", 1_000_000, DEFAULT_CEILING, 59_666),
        ("claude-opus-5-5", 1_000_000, 1000, LEAST_TOKENS),
    ],
)
def test_the_threshold(model: str, window: int, ceiling: int | None, threshold: int) -> None:
    found = compaction_threshold(default_prices()[model], window, ceiling)
    assert found == pytest.approx(threshold, rel=0.02)


def test_it_is_due_when_long_or_before_a_sleep_but_not_at_once_again() -> None:
    long, later = 60_000, TURNS_BETWEEN
    assert is_compaction_due(long, long, winds_down=False, turns_since=later)
    assert not is_compaction_due(long - 1, long, winds_down=False, turns_since=later)
    assert is_compaction_due(LEAST_TOKENS, long, winds_down=True, turns_since=later)
    assert not is_compaction_due(LEAST_TOKENS - 1, long, winds_down=True, turns_since=later)
    assert not is_compaction_due(long, long, winds_down=True, turns_since=later - 1)


def test_many_images_are_a_reason_of_their_own() -> None:
    def is_due(images: int, turns_since: int = TURNS_BETWEEN) -> bool:
        return is_compaction_due(1000, 150_000, winds_down=False, turns_since=turns_since, images=images)

    assert is_due(IMAGES_DUE)
    assert not is_due(IMAGES_DUE - 1)
    assert not is_due(IMAGES_DUE, TURNS_BETWEEN - 1)
