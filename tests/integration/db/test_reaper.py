"""What the reaper reads, on a real database with more than one build."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from db.models import Build, Preview
from db.reaper import SandboxOwner, open_previews, sandbox_owners
from db.session import Sessions, open_sessions
from db.transaction import transaction
from domain.status import Status
from domain.verdicts import SLICES
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.build_rows import builds_of


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    async with open_sessions(await new_database(stack)) as opened:
        yield opened


async def closed_builds(sessions: Sessions, *states: str | None) -> list[uuid.UUID]:
    """Insert a closed build for each state of a preview; None for a build without one."""
    ids = await builds_of(sessions, "a", len(states))
    async with transaction(sessions) as tx:
        for build_id, state in zip(ids, states, strict=True):
            build = await tx.session.get_one(Build, build_id)
            build.status, build.closed_at = Status.FAILED, datetime.now(UTC)
            if state is not None:
                tx.session.add(Preview(build_id=build_id, state=state, seq=1))
    return ids


async def test_the_preview_of_one_build_keeps_no_sandbox_of_another(sessions: Sessions) -> None:
    ids = await closed_builds(sessions, "opening", "open", "closed", None)
    async with transaction(sessions) as tx:
        owners = await sandbox_owners(tx, ids)
    assert [owners[each] for each in ids] == [
        SandboxOwner(is_open=False, sandbox_id=None, is_previewed=is_previewed)
        for is_previewed in (True, True, False, False)
    ]


async def test_only_the_open_previews_that_were_asked_for_are_read(sessions: Sessions) -> None:
    opening, shown, ended, _ = await closed_builds(sessions, "opening", "open", "closed", None)

    async def read(among: list[uuid.UUID], digits: str = "") -> set[uuid.UUID]:
        async with transaction(sessions) as tx:
            return {row.build_id for row in await open_previews(tx, among, digits)}

    assert await read([]) == set()
    assert await read([opening, ended]) == {opening}
    assert await read([shown]) == {shown}
    assert await read([], SLICES) == {opening, shown}
