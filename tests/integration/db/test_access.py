"""What `owned` says in SQL is what a plain model of organisations says, whatever has happened to their members."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from db import access, organisations
from db.builds import BuildRequest, insert_build
from db.models import Build, Organisation, Project
from db.projects import create_project, move_project
from db.session import make_engine, make_sessions
from db.transaction import Transaction, transaction
from db.users import ensure_user
from domain.identity import Role
from local.stack import LocalStack
from tests.harness.api_server import new_database

USERS = ("ada", "bob", "cem", "dora")
ACTS = ("organisation", "project", "project", "add", "add", "change", "remove", "remove", "move")


@dataclass
class Model:
    """Organisations as dictionaries."""

    members: dict[uuid.UUID, dict[str, Role]] = field(default_factory=dict)
    projects: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    builds: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)

    def role(self, user: str, project: uuid.UUID) -> Role | None:
        return self.members[self.projects[project]].get(user)

    def organisations_of(self, user: str) -> set[uuid.UUID]:
        return {each for each, members in self.members.items() if user in members}

    def projects_of(self, user: str) -> set[uuid.UUID]:
        return {each for each in self.projects if self.role(user, each) is not None}

    def builds_of(self, user: str) -> set[uuid.UUID]:
        return {each for each, project in self.builds.items() if self.role(user, project) is not None}


async def act(tx: Transaction, chance: random.Random, model: Model) -> None:
    """Do something to the rows and the model alike."""
    what, user, org_id = chance.choice(ACTS), chance.choice(USERS), _any(chance, list(model.members))
    members = model.members[org_id]
    if what == "organisation":
        new = uuid.uuid4()
        await organisations.insert_organisation(tx, new, "Shared", user)
        model.members[new] = {user: Role.OWNER}
    elif what == "project":
        project = await create_project(tx, user, "Test", None, None, org_id)
        build = await insert_build(tx, BuildRequest(project.id, user, "Test it."))
        assert build is not None
        model.projects[project.id], model.builds[build.id] = org_id, project.id
    elif what == "move" and model.projects:
        project_id = _any(chance, list(model.projects))
        await move_project(tx, await tx.session.get_one(Project, project_id), org_id)
        model.projects[project_id] = org_id
    elif what == "remove":
        await organisations.delete_member(tx, org_id, user)
        members.pop(user, None)
    elif what in ("add", "change"):
        members[user] = chance.choice(list(Role))
        await organisations.set_role(tx, org_id, user, members[user])


def _any(chance: random.Random, ids: Sequence[uuid.UUID]) -> uuid.UUID:
    return ids[chance.randrange(len(ids))]


async def check(tx: Transaction, model: Model) -> None:
    """Compare what each user sees."""
    for user in USERS:
        for rows, expected in (
            (Organisation, model.organisations_of(user)),
            (Project, model.projects_of(user)),
            (Build, model.builds_of(user)),
        ):
            assert set(await tx.session.scalars(select(rows.id).where(access.owned(rows, user)))) == expected
        listed = await organisations.list_organisations(tx, user)
        assert {each.organisation.id: each.role for each in listed} == {
            each: model.members[each][user] for each in model.organisations_of(user)
        }
        for project in list(model.projects)[-3:]:
            assert await access.find_role(tx, user, project) == model.role(user, project)


@pytest.mark.parametrize("seed", range(2))
async def test_owned_says_what_the_memberships_say(stack: LocalStack, seed: int) -> None:
    chance, model = random.Random(seed), Model()
    engine = make_engine(await new_database(stack), pool_size=1)
    async with transaction(make_sessions(engine)) as tx:
        for user in USERS:
            await ensure_user(tx, user)
            [personal] = await organisations.list_organisations(tx, user)
            model.members[personal.organisation.id] = {user: Role.OWNER}
        for _ in range(5):
            for _ in range(10):
                await act(tx, chance, model)
            await check(tx, model)
    assert len(model.projects) > 3
    await engine.dispose()
