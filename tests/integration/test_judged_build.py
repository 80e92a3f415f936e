"""A build whose product is not what was asked for."""

from domain.judge import MAX_RETURNS
from domain.status import Status
from tests.harness.scripts import SMALL
from tests.harness.worker import WorkerHarness

BRIEF = {"name": "Rooms", "features": ["A calendar of bookings"]}


async def test_the_judge_returns_a_product_twice_and_then_the_founder_reads_what_is_left(
    harness: WorkerHarness,
) -> None:
    """The judge's findings do not count for the attempts after which a founder is asked: here one would be the last."""
    goal = "Build it. The judge is strict."
    build_id = await harness.start(script=SMALL, brief=BRIEF, goal=goal, settings={"gate_attempts": 1})
    assert (await harness.finished(build_id)).status == Status.READY
    judged = await harness.events(build_id, "product_judged")
    assert [event.data["returned"] for event in judged] == [True] * MAX_RETURNS + [False]
    assert all("A calendar of bookings" in event.data["findings"][0] for event in judged)
    assert len(await harness.events(build_id, "gate_bounced")) == MAX_RETURNS
    assert await harness.events(build_id, "question") == []
