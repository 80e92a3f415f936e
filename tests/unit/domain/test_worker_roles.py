"""Roles of workers: which queues a worker polls, and to which one a build's work goes."""

import pytest

from domain.errors import Misconfigured
from domain.worker_roles import WorkerRole, needed_roles, parse_roles, polled_roles, queue_of, separate_roles
from settings import Settings, load_settings


def test_a_worker_without_roles_takes_all_work() -> None:
    assert polled_roles(None, None) == ["build"]
    assert polled_roles(None, "archive,browser") == ["build", "archive", "browser"]
    assert polled_roles([WorkerRole.BROWSER], "archive,browser") == ["browser"]
    assert polled_roles([WorkerRole.BUILD, WorkerRole.ARCHIVE], None) == ["build", "archive"]


def test_a_separate_role_has_a_queue_beside_that_of_builds() -> None:
    assert [queue_of("cofounder", role) for role in WorkerRole] == [
        "cofounder",
        "cofounder-archive",
        "cofounder-browser",
    ]


def test_what_a_newer_version_has_stored_is_readable() -> None:
    assert separate_roles("browser,judge") == ["browser"]
    assert separate_roles(None) == []
    assert needed_roles("browser") == ["build", "browser"]


def test_roles_are_read_in_any_order_and_once() -> None:
    assert parse_roles(" browser, build,browser ") == ["build", "browser"]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WORKER_ROLES", "build,gate", "gate is not a role; choose from build, archive, browser"),
        ("SEPARATE_ROLES", "build", "build is the role of TEMPORAL_TASK_QUEUE itself; name archive or browser"),
    ],
)
def test_a_wrong_role_is_refused_by_name(variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured, match=says):
        load_settings()


def test_settings_read_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_ROLES", "browser,archive")
    monkeypatch.setenv("SEPARATE_ROLES", "browser, archive")
    settings = Settings()
    assert (settings.worker_roles, settings.separate_roles) == (["archive", "browser"], "archive,browser")
