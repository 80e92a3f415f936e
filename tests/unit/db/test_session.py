"""What an operator reads about a database that can't be used."""

import pytest

from db.session import unusable


@pytest.mark.parametrize(
    ("error", "reason"),
    [(TimeoutError(), "TimeoutError"), (OSError("refused\nby the host"), "refused"), (OSError(" "), "OSError")],
)
def test_the_message_has_a_reason_also_if_the_error_has_none(error: Exception, reason: str) -> None:
    assert str(unusable(error)).endswith(f"({reason})")
