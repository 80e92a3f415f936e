"""Which hosts sandboxes may never reach: those of Cofounder's own servers."""

import pytest

from local.operator_network import operator_network
from settings import Settings


@pytest.mark.parametrize(
    ("database_url", "hosts"),
    [
        ("postgresql+asyncpg://u:p@db.example/c", {"db.example"}),
        ("postgresql+asyncpg://u:p@/c?host=/var/run/postgresql", set()),
        ("postgresql+asyncpg://u:p@/c?host=a.example:5432&host=b.example:5433", {"a.example", "b.example"}),
    ],
)
def test_hosts_of_the_database_are_off_limits_and_sockets_are_not_hosts(database_url: str, hosts: set[str]) -> None:
    """A directory of sockets never resolves, and a server that does not resolve closes every private host."""
    settings = Settings.model_validate({"database_url": database_url})
    network = operator_network(settings, {}, ["mirror.example"])
    assert {host for setting, host in network.off_limits if setting == "DATABASE_URL"} == hosts
