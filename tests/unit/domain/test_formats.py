"""Which programs may work with which database."""

import pytest

from domain.formats import Format, OlderProcess, refusal_of_contract, unreadable

OWN = {"schema": 12, "conversation": 2}


@pytest.mark.parametrize(
    ("stored", "word"),
    [
        ([Format("schema", 12, 3), Format("conversation", 2, 1)], None),
        ([Format("schema", 20, 12)], None),
        ([Format("schema", 20, 13)], "Start the version"),
        ([Format("schema", 11, 3)], "cofounder migrate"),
        ([Format("schema", 12, 3), Format("conversation", 3, 2)], None),
        ([Format("schema", 12, 3), Format("conversation", 3, 3)], "Start the version"),
        ([Format("schema", 12, 3), Format("a later one", 9, 9)], None),
    ],
)
def test_a_program_reads_what_it_can(stored: list[Format], word: str | None) -> None:
    problem = unreadable(OWN, stored)
    assert (problem is None) if word is None else (problem is not None and word in problem)


def test_a_refused_migration_names_the_processes() -> None:
    problem = refusal_of_contract("0013", [OlderProcess("worker", "0.1.0", 2)])
    assert "2 worker of version 0.1.0" in problem
    assert "0013" in problem
