"""When a sandbox is near the end of its provider's cap."""

from datetime import UTC, datetime, timedelta

from domain.lifetime import is_near_its_end


def test_a_sandbox_near_its_providers_cap_is_replaced() -> None:
    opened, hour = datetime(2026, 1, 1, tzinfo=UTC), 3600

    def near(minutes: float, cap: int | None = hour, longest: int = 600) -> bool:
        return is_near_its_end(opened, opened + timedelta(minutes=minutes), cap, longest)

    assert not near(44.9)
    assert near(45), "the longest call and a snapshot still fit"
    assert not near(10_000, cap=None)
    assert not near(29, longest=7200), "half of the time at least is used"
    assert near(30, longest=7200)
    assert not is_near_its_end(None, opened, hour, 600)
