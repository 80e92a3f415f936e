"""The prompt cache of the rehearsal model, and the script that computes the cached share from request bodies alone."""

import json
from typing import Any

import pytest

from local.rehearsal.cache import InputUsage, PromptCache, breakpoints
from local.rehearsal.errors import ApiError
from local.rehearsal.prefix import read_prefix
from scripts.cache_share import main, read_share

LONG = "word " * 1200
"""1500 tokens: more than the minimum of most models."""


class Clock:
    """A clock that only moves when a test sets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> PromptCache:
    return PromptCache(clock)


def body(*turns: str, ttl: str = "5m", system: str = LONG, model: str = "claude-sonnet-5-5") -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "model": model,
        "cache_control": {"type": "ephemeral", "ttl": ttl},
        "system": system,
        "messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(turns)],
    }


def serve(cache: PromptCache, request: dict[str, Any]) -> InputUsage:
    prefix = read_prefix(request)
    return cache.serve(request["model"], prefix, breakpoints(prefix, request.get("cache_control")))


def test_writes_first_then_reads_what_was_written_and_writes_what_is_new(cache: PromptCache) -> None:
    first = serve(cache, body("12345678"))
    second = serve(cache, body("12345678", "1234", "12345678"))
    assert first == InputUsage(cache_write_5m=1502)
    assert second == InputUsage(cache_write_5m=3, cache_read=1502)


def test_without_cache_control_all_is_plain_input(cache: PromptCache) -> None:
    request = body("hello")
    del request["cache_control"]
    assert serve(cache, request) == serve(cache, request) == InputUsage(input=1502)


def test_a_changed_byte_reads_nothing(cache: PromptCache) -> None:
    serve(cache, body("hello"))
    assert serve(cache, body("hello", system=LONG + ".")).cache_read == 0


def test_models_do_not_share_entries(cache: PromptCache) -> None:
    serve(cache, body("hello"))
    assert serve(cache, body("hello", model="claude-sonnet-5")).cache_read == 0


def test_short_prefixes_are_not_cached(cache: PromptCache) -> None:
    short = body("hello", system="brief")
    assert serve(cache, short) == serve(cache, short) == InputUsage(input=4)


def test_the_minimum_is_the_models_own(cache: PromptCache) -> None:
    assert serve(cache, body("hello", model="claude-opus-4-7")).cache_write_5m == 0


def test_five_minutes_begin_again_with_each_use(cache: PromptCache, clock: Clock) -> None:
    serve(cache, body("hello"))
    clock.now = 299
    assert serve(cache, body("hello")).cache_read == 1502
    clock.now = 299 + 299
    assert serve(cache, body("hello")).cache_read == 1502
    clock.now += 301
    assert serve(cache, body("hello")) == InputUsage(cache_write_5m=1502)


def test_an_hour_lasts_an_hour(cache: PromptCache, clock: Clock) -> None:
    assert serve(cache, body("hello", ttl="1h")) == InputUsage(cache_write_1h=1502)
    clock.now = 3599
    assert serve(cache, body("hello", ttl="1h")).cache_read == 1502


def test_explicit_breakpoints_of_both_lifetimes(cache: PromptCache) -> None:
    request = body("hello")
    request["system"] = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert serve(cache, request) == InputUsage(cache_write_1h=1500, cache_write_5m=2)


def test_looks_back_twenty_blocks_and_no_further(cache: PromptCache) -> None:
    def with_blocks(count: int) -> dict[str, Any]:
        request = body("hello")
        request["messages"][0]["content"] = [{"type": "text", "text": "1234"}] * count
        return request

    serve(cache, with_blocks(1))
    assert serve(cache, with_blocks(20)).cache_read == 1501
    serve(PromptCache(Clock()), with_blocks(1))
    assert serve(cache, with_blocks(41)).cache_read == 0


def test_a_run_of_calls_or_of_results_is_one_position(cache: PromptCache) -> None:
    def with_calls(turns: int, calls: int) -> dict[str, Any]:
        request = body("hello")
        for turn in range(turns):
            ids = [f"toolu_{turn}_{number}" for number in range(calls)]
            uses = [{"type": "tool_use", "id": name, "name": "bash", "input": {}} for name in ids]
            results = [{"type": "tool_result", "tool_use_id": name, "content": "x"} for name in ids]
            request["messages"] += [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]
        return request

    first = serve(cache, with_calls(1, 30))
    assert serve(cache, with_calls(2, 30)).cache_read == first.cache_write_5m
    serve(cache, with_calls(3, 30))
    assert serve(cache, with_calls(12, 30)).cache_read > 0, "18 runs later"
    assert serve(cache, with_calls(22, 30)).cache_read == 0, "20 runs later"
    assert read_share([with_calls(number, 30) for number in range(1, 9)]) > 0.5


@pytest.mark.parametrize(
    ("model", "minimum"), [("claude-opus-5-5", 512), ("claude-sonnet-5-5", 512), ("claude-haiku-5-5", 4096)]
)
def test_the_shortest_prefix_that_is_cached(cache: PromptCache, model: str, minimum: int) -> None:
    for tokens in (minimum - 1, minimum):
        request = body("1234", system="x" * 4 * (tokens - 1), model=model)
        assert (serve(cache, request).cache_write_5m > 0) is (tokens == minimum)


def test_another_effort_reads_only_what_is_before_the_messages(cache: PromptCache) -> None:
    request = body("1234")
    request["system"] = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    serve(cache, request)
    assert serve(cache, request | {"output_config": {"effort": "high"}}).cache_read == 1501, "the model's default"
    assert serve(cache, request | {"output_config": {"effort": "low"}}).cache_read == 1500


def test_refuses_too_many_breakpoints_and_a_long_lifetime_after_a_short_one() -> None:
    def marked(*lifetimes: str) -> dict[str, Any]:
        request = body("hello")
        del request["cache_control"]
        request["system"] = [
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": ttl}} for ttl in lifetimes
        ]
        return request

    for request in (marked(*["5m"] * 5), marked("5m", "1h"), marked("2h")):
        with pytest.raises(ApiError) as caught:
            breakpoints(read_prefix(request), None)
        assert caught.value.status == 400


class TestShare:
    """`scripts/cache_share.py`."""

    def conversation(self, turns: int, **options: Any) -> list[dict[str, Any]]:
        texts = [f"turn {number}" for number in range(2 * turns)]
        return [body(*texts[: 2 * number + 1], **options) for number in range(turns)]

    def test_agrees_with_what_the_server_counts(self, cache: PromptCache) -> None:
        bodies = self.conversation(8)
        served = [serve(cache, request) for request in bodies][3:]
        total = sum(usage.cache_read + usage.cache_write_5m + usage.input for usage in served)
        assert read_share(bodies) == pytest.approx(sum(usage.cache_read for usage in served) / total, abs=0.01)
        assert read_share(bodies) > 0.9

    def test_is_nothing_without_cache_control(self, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
        bodies = self.conversation(8)
        for number, request in enumerate(bodies):
            del request["cache_control"]
            (tmp_path / f"{number:03}.json").write_text(json.dumps(request))
        assert read_share(bodies) == 0
        assert main([str(tmp_path)]) == 0
        assert capsys.readouterr().out == "0\n"

    def test_is_nothing_when_the_prefix_changes_each_time(self) -> None:
        bodies = [request | {"system": f"{number} {LONG}"} for number, request in enumerate(self.conversation(8))]
        assert read_share(bodies) == 0

    def test_counts_from_the_fourth_turn_of_each_prefix(self, cache: PromptCache) -> None:
        plain = self.conversation(8)
        block = {"type": "compaction", "content": "Summary. " * 300, "signature": "s"}
        opening = {"role": "assistant", "content": [block]}
        behind = [request | {"messages": [opening, *request["messages"]]} for request in plain]
        compaction = plain[-1] | {"compaction": {"type": "summarize"}}
        assert read_share([*plain, compaction, *behind]) > 0.9
        assert read_share([*plain, *behind[:3]]) == pytest.approx(read_share(plain)), "a new prefix begins at 0"
        assert read_share([*plain, compaction]) == pytest.approx(read_share(plain)), "a compaction is not a turn"
        kept = [request | {"messages": [opening, *request["messages"][1:]]} for request in plain[5:]]
        assert read_share([*plain, kept[0]]) == pytest.approx(read_share(plain)), "kept turns do not count"

    def test_short_prompts_do_not_count_as_cached(self) -> None:
        assert read_share(self.conversation(8, system="brief")) == 0

    def test_needs_a_directory(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "usage" in capsys.readouterr().err
