"""How long builds wait for a permit between two checks, and what founders read meanwhile."""

from datetime import timedelta

from db.permits import STALE
from domain.permits import CHECK_EVERY, FIRST_RETRY, reason_to_wait, time_to_next_check


def test_founders_read_how_many_are_ahead() -> None:
    assert reason_to_wait(0) == "Your build waits for a free sandbox, and is next. It continues by itself."
    assert "1 build is ahead" in reason_to_wait(1)
    assert "12 builds are ahead" in reason_to_wait(12)
    assert reason_to_wait(2, "preview").startswith("Your preview waits")
    assert "has no room" in reason_to_wait(3, refused=True)


def test_a_place_is_checked_before_it_is_skipped() -> None:
    assert max(time_to_next_check(0, fraction) for fraction in (0.0, 0.5, 1.0)) == CHECK_EVERY
    assert timedelta(minutes=1) <= STALE - CHECK_EVERY, "a check may be late"


def test_checks_after_refusals_are_ever_rarer() -> None:
    waits = [time_to_next_check(refusals, 0.0) for refusals in range(1, 40)]
    assert waits[0] == FIRST_RETRY
    assert waits == sorted(waits)
    assert waits[-1] == CHECK_EVERY
    assert time_to_next_check(1, 1.0) < FIRST_RETRY, "they vary"
