"""Settings that an operator may change for a build that runs."""

import pytest

from domain.errors import InvalidInput
from services.build_settings import parse_changes


def test_settings_are_read_as_from_the_environment() -> None:
    changes = parse_changes(["SANDBOX_MAX_SECONDS=86400", "gate_attempts = 5", "TOOL_CALL_CAP="])
    assert changes == {"sandbox_max_seconds": 86400, "gate_attempts": 5, "tool_call_cap": None}


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("DATABASE_URL=x", "SANDBOX_MAX_SECONDS"),
        ("GATE_ATTEMPTS", "NAME=VALUE"),
        ("GATE_ATTEMPTS=0", "GATE_ATTEMPTS: .*greater than or equal to 1"),
        ("GATE_ATTEMPTS=", "GATE_ATTEMPTS: .*valid integer"),
        ("PREVIEW_SECONDS=soon", "PREVIEW_SECONDS: .*valid integer"),
    ],
)
def test_what_is_not_valid_is_refused(assignment: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        parse_changes([assignment])
