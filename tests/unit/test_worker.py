"""What `python worker.py` makes of its settings."""

import pytest

import worker
from domain.worker_roles import WorkerRole
from settings import load_settings


def test_each_role_has_the_slots_and_the_cache_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {
        "MAX_ACTIVITIES": 11,
        "MAX_CACHED_WORKFLOWS": 12,
        "MAX_ARCHIVE_ACTIVITIES": 13,
        "MAX_BROWSER_ACTIVITIES": 14,
    }
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://u@127.0.0.1/x")
    for name, number in chosen.items():
        monkeypatch.setenv(name, str(number))
    options = {role: worker._options_of(role, load_settings()) for role in WorkerRole}
    build = options[WorkerRole.BUILD]
    assert (build["max_concurrent_activities"], build["max_cached_workflows"]) == (11, 12)
    for role, slots in ((WorkerRole.ARCHIVE, 13), (WorkerRole.BROWSER, 14)):
        assert options[role]["max_concurrent_activities"] == slots
        assert "max_cached_workflows" not in options[role], "only one role has workflows"
