"""What processes of several versions share: the schema and what is stored in it. Each has a version number.

A row of `formats` says from which version on a program reads what is stored. A program that is older refuses to work,
instead of failing the builds that it can't read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCHEMA = "schema"
"""The format whose version is the number of the last migration."""

SYSTEM_NOTICES = 2
"""The version of the conversation from which on it may have messages of the role `system`."""

STORED: Mapping[str, int] = {"conversation": SYSTEM_NOTICES, "snapshot": 1, "ledger": 1}
"""The version of each format that this program reads and may write. Raise one if older programs can't read what is
written from then on. Write the new one once no older program runs: `formats.may_write` in `db/` says so."""

ALIVE_SECONDS = 120.0
"""A process that was last seen earlier than this many seconds ago counts as ended."""


@dataclass(frozen=True)
class Format:
    """A format as it is in the database."""

    name: str
    written: int
    """The newest version that is written."""
    readable_from: int
    """A program reads it from this version on."""


@dataclass(frozen=True)
class OlderProcess:
    """A running process that could not go on after a migration."""

    role: str
    version: str
    count: int


def unreadable(reads: Mapping[str, int], stored: Sequence[Format]) -> str | None:
    """Why a program that reads these versions can't work with what is stored, and what to do; None if it can."""
    for each in stored:
        own = reads.get(each.name)
        if own is None:
            continue  # of a later version, and nothing says that this one needs it
        if each.readable_from > own:
            return (
                f"This program is too old for its database: it reads version {own} of the {each.name}, and what is "
                f"there needs version {each.readable_from}. Start the version of Cofounder that migrated the database."
            )
        if each.name == SCHEMA and each.written == 0:
            return (
                f"The database has not been migrated: this program needs version {own} of its schema. Run `cofounder "
                "migrate`, then start this again."
            )
        if each.name == SCHEMA and each.written < own:
            return (
                f"The database is older than this program: its schema has version {each.written}, and this program "
                f"needs {own}. Run `cofounder migrate`, then start this again."
            )
    return None


def refusal_of_contract(migration: str, older: Sequence[OlderProcess]) -> str:
    """Why a migration can't run while older processes do, and what to do."""
    names = ", ".join(f"{each.count} {each.role} of version {each.version}" for each in older)
    return (
        f"Migration {migration} takes away what running processes still use ({names}), so nothing was migrated. Stop "
        f"them or replace them with this version, then run `cofounder migrate` again: a process that was killed counts "
        f"as running for {ALIVE_SECONDS:.0f} seconds."
    )
