"""History grows by a constant per turn, and a long build continues as new."""

import pytest

from bench.flat import chain_of, largest_payload, shares_of
from domain.status import Status
from local.stack import LocalStack
from tests.workshop import workshop

TURNS = 64
RUN_TURNS = 40


@pytest.mark.parametrize("calls", [1, 3])
async def test_a_turn_takes_a_constant_share_of_history(stack: LocalStack, calls: int) -> None:
    async with workshop(stack, tool_call_cap=10_000, continue_as_new_turns=RUN_TURNS) as shop:
        script = {"kind": "long", "turns": TURNS, "calls_per_turn": calls, "end": "end_turn"}
        build_id = await shop.start(script=script)
        await shop.until(build_id, frozenset({Status.CHECKS}))
        await shop.builds.cancel(build_id)
        await shop.finished(build_id)
        chain = await chain_of(shop.client, str(build_id))

    assert len(chain) == 2, "continued as new once"
    shares = [share for events in chain for share in shares_of(events)]
    assert len(shares) >= 60
    for share in shares:
        assert share.events <= 14 + 6 * (calls - 1)
        assert share.bytes <= 2200 + 1200 * (calls - 1)
    half = len(shares) // 2
    first, second = sum(s.bytes for s in shares[:half]) / half, sum(s.bytes for s in shares[half : 2 * half]) / half
    assert second == pytest.approx(first, rel=0.05)
    assert sum(s.events for s in shares[half : 2 * half]) == pytest.approx(
        sum(s.events for s in shares[:half]), rel=0.05
    )
    assert max(largest_payload(event) for events in chain for event in events) < 4096
