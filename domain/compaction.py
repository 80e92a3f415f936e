"""When a conversation is summed up: before it is too long for its window, its day's budget or its price.

A compaction opens a new prefix, which the cache has to read for the first time. So it pays only once the conversation
is long, and not again right away.
"""

from domain.pricing import ModelPrice

SUMMARY_OUTPUT_TOKENS = 8000
"""`max_tokens` of the call that writes a summary."""

TAIL_TURNS = 4
"""The last turns that a new prefix keeps as they were; the summary covers what came before."""

LEAST_TOKENS = 40_000
"""A shorter conversation is not worth summing up."""

TURNS_BETWEEN = 8
"""Turns after one compaction, whatever became of it, before the next."""

WINDOW_PERCENT = 85
"""Compact a conversation that fills this share of the window."""

FLOOR_PERCENT = 95
"""At this share of the window, a new prefix opens without a summary, which needs no call and no money."""

IMAGES_DUE = 16
"""A conversation with this many images is summed up, which leaves out all but the last ones."""

MOST_IMAGES = 20
"""Images of one conversation: for more, the API accepts only smaller ones. One more opens a new prefix."""

MOST_BYTES = 20_000_000
"""Bytes of one request, images included; the API accepts 32 MB. A longer one opens a new prefix."""

_SHARE_OF_CEILING = 4
"""The worst case of a call should be at most this fraction of the day's ceiling."""


def compaction_threshold(price: ModelPrice, window: int, ceiling: int | None) -> int:
    """Return the tokens at which a conversation is summed up.

    Args:
        price: the row of the model that the build uses.
        window: the model's window in tokens.
        ceiling: what the user may spend on the day, in µ$; None on an unlimited plan.
    """
    threshold = price.compact_at
    if ceiling is not None:
        dearest = price.dearest(threshold)
        per_token = max(dearest.input, dearest.cache_write_5m)
        left = ceiling // _SHARE_OF_CEILING - SUMMARY_OUTPUT_TOKENS * dearest.output
        threshold = min(threshold, int(left / per_token)) if per_token else threshold
    return min(max(threshold, LEAST_TOKENS), window * WINDOW_PERCENT // 100)


def is_compaction_due(tokens: int, threshold: int, *, winds_down: bool, turns_since: int, images: int = 0) -> bool:
    """Whether to sum up the conversation before its next turn.

    Args:
        tokens: the prompt of the next turn, as far as it is counted.
        threshold: see `compaction_threshold`.
        winds_down: the day's budget runs low. The cache is warm now and cold tomorrow, so a summary is cheap today.
        turns_since: turns since this prefix was opened, or since the last attempt to sum it up.
        images: the images in it.
    """
    if turns_since < TURNS_BETWEEN:
        return False
    return tokens >= threshold or images >= IMAGES_DUE or (winds_down and tokens >= LEAST_TOKENS)
