"""Organisations, their members, and who may see and change what."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import func, update

from api import feeds
from db.feed import append_events
from db.models import Build
from db.transaction import transaction
from domain.events import StatusEvent
from local.stack import LocalStack
from tests.harness.api_server import (
    BRIEF,
    OPERATORS,
    RunningApi,
    as_user,
    for_user,
    new_database,
    running_api,
    settings_for,
)
from tests.harness.wait import wait_until

KEY = "main:" + "c2l4dGVlbiBieXRlcyBvciBtb3JlLCBmb3IgdGVzdHM="


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        await new_database(stack), api_operator_token=SecretStr(OPERATORS), secrets_key=SecretStr(KEY)
    )
    async with running_api(settings, stack.environment) as running:
        yield running


async def send(api: RunningApi, method: str, path: str, user: str, body: Any = None) -> httpx2.Response:
    return await api.http.request(method, f"/v1{path}", json=body, headers=as_user(user))


async def ok(api: RunningApi, method: str, path: str, user: str, body: Any = None) -> Any:
    answer = await send(api, method, path, user, body)
    assert answer.status_code < 300, answer.text
    return answer.json()


class Team:
    """An organisation with an owner, a member and a viewer, and a stranger."""

    def __init__(self, api: RunningApi) -> None:
        self._api = api
        tag = uuid.uuid4().hex[:8]
        self.owner, self.member, self.viewer, self.stranger = (
            f"{role}-{tag}" for role in ("owner", "member", "viewer", "stranger")
        )
        self.id = ""

    async def make(self) -> "Team":
        api = self._api
        self.id = (await ok(api, "POST", "/organisations", self.owner, {"name": "Choir"}))["id"]
        for user in (self.member, self.viewer, self.stranger):
            await ok(api, "GET", "/organisations", user)
        await self.set_role(self.member, "member")
        await self.set_role(self.viewer, "viewer")
        return self

    async def set_role(self, user: str, role: str, by: str | None = None) -> httpx2.Response:
        path = f"/organisations/{self.id}/members/{user}"
        return await send(self._api, "PUT", path, by or self.owner, {"role": role})

    async def remove(self, user: str, by: str | None = None) -> httpx2.Response:
        return await send(self._api, "DELETE", f"/organisations/{self.id}/members/{user}", by or self.owner)

    async def project(self, by: str | None = None) -> str:
        body = {"brief": BRIEF, "organisation_id": self.id}
        return str((await ok(self._api, "POST", "/projects", by or self.owner, body))["id"])

    async def build(self, project: str, by: str) -> str:
        return str((await ok(self._api, "POST", f"/projects/{project}/builds", by, {"goal": "Build it."}))["id"])

    async def roles(self) -> dict[str, str]:
        listed = await ok(self._api, "GET", f"/organisations/{self.id}/members", self.owner)
        return {each["user"]: each["role"] for each in listed["members"]}


@pytest.fixture
async def team(api: RunningApi) -> Team:
    return await Team(api).make()


async def test_everyone_has_a_personal_organisation_and_can_create_others(api: RunningApi, team: Team) -> None:
    [personal, choir] = (await ok(api, "GET", "/organisations", team.owner))["organisations"]
    assert (personal["is_personal"], personal["role"]) == (True, "owner")
    assert (choir["name"], choir["is_personal"], choir["role"]) == ("Choir", False, "owner")
    [_, seen] = (await ok(api, "GET", "/organisations", team.viewer))["organisations"]
    assert seen == choir | {"role": "viewer"}
    renamed = await ok(api, "PATCH", f"/organisations/{team.id}", team.owner, {"name": "Big Choir"})
    assert renamed == choir | {"name": "Big Choir"}
    assert await ok(api, "GET", f"/organisations/{team.id}", team.member) == renamed | {"role": "member"}

    own = await ok(api, "POST", "/projects", team.owner, {"brief": BRIEF})
    shared = await team.project()
    assert own["organisation_id"] == personal["id"]
    listed = (await ok(api, "GET", "/projects", team.owner))["projects"]
    assert [(each["id"], each["organisation_id"]) for each in listed] == [
        (shared, team.id),
        (own["id"], personal["id"]),
    ]
    only = (await ok(api, "GET", f"/projects?organisation_id={team.id}", team.owner))["projects"]
    assert [each["id"] for each in only] == [shared]
    assert [each["id"] for each in (await ok(api, "GET", "/projects", team.viewer))["projects"]] == [shared]
    assert (await ok(api, "GET", "/projects", team.stranger))["projects"] == []


async def test_only_owners_change_members(api: RunningApi, team: Team) -> None:
    before = await team.roles()
    for user in (team.member, team.viewer):
        for refused in (
            await team.set_role(team.stranger, "member", by=user),
            await team.set_role(user, "owner", by=user),
            await team.remove(team.owner, by=user),
            await send(api, "PATCH", f"/organisations/{team.id}", user, {"name": "Mine"}),
        ):
            assert (refused.status_code, refused.json()["type"].split(":")[-1]) == (403, "refused")
            assert "only an owner can" in refused.json()["detail"]
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "Mine"}),
        ("GET", "/members", None),
        ("PUT", f"/members/{team.stranger}", {"role": "owner"}),
        ("DELETE", f"/members/{team.owner}", None),
        ("DELETE", f"/members/{team.stranger}", None),
    ):
        hidden = await send(api, method, f"/organisations/{team.id}{path}", team.stranger, body)
        assert hidden.status_code == 404, (method, path)
    assert await team.roles() == before
    assert (await team.set_role("no-such-user", "member")).status_code == 404
    assert (await team.remove("no-such-user")).status_code == 404
    assert await team.roles() == before


async def test_members_are_added_changed_and_removed(api: RunningApi, team: Team) -> None:
    odd = f"auth0|a/b?{team.stranger}"
    await ok(api, "GET", "/organisations", odd)
    quoted = odd.replace("/", "%2F").replace("?", "%3F")
    for status, role in ((201, "viewer"), (200, "viewer"), (200, "owner")):
        answer = await team.set_role(quoted, role)
        assert (answer.status_code, answer.json()["role"], answer.json()["user"]) == (status, role, odd)
    assert (await team.roles())[odd] == "owner"
    assert (await team.remove(quoted, by=odd)).json() == {"user": odd, "cancelled_builds": []}
    assert odd not in await team.roles()
    assert (await team.set_role(team.stranger, "boss")).status_code == 422


async def test_an_organisation_keeps_an_owner(api: RunningApi, team: Team) -> None:
    for answer in (
        await team.remove(team.owner),
        await team.set_role(team.owner, "member"),
        await team.set_role(team.owner, "viewer"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:cofounder:problem:last-owner")
        assert "Make another member an owner first." in answer.json()["detail"]
    await team.set_role(team.member, "owner")
    both = await asyncio.gather(
        team.remove(team.owner, by=team.owner),
        team.remove(team.member, by=team.member),
        team.set_role(team.owner, "viewer", by=team.owner),
        team.set_role(team.member, "viewer", by=team.member),
    )
    assert any(answer.status_code == 200 for answer in both)
    listed = (await ok(api, "GET", f"/organisations/{team.id}/members", team.viewer))["members"]
    assert "owner" in [each["role"] for each in listed]


async def test_a_personal_organisation_has_no_other_members(api: RunningApi, team: Team) -> None:
    personal = (await ok(api, "GET", "/organisations", team.owner))["organisations"][0]["id"]
    path = f"/organisations/{personal}/members"
    for method, user in (("PUT", team.member), ("PUT", team.owner), ("DELETE", team.owner)):
        body = {"role": "viewer"} if method == "PUT" else None
        answer = await send(api, method, f"{path}/{user}", team.owner, body)
        assert (answer.status_code, "personal organisation" in answer.json()["detail"]) == (409, True)


CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/projects/{project}/brief", {"brief": BRIEF}),
    ("PUT", "/projects/{project}/interview", {"interview": {"questions": [], "answers": {}}}),
    ("PUT", "/projects/{project}/secrets/STRIPE_KEY", {"value": "sk_live_0123456789"}),
    ("DELETE", "/projects/{project}/secrets/STRIPE_KEY", None),
    ("POST", "/projects/{project}/builds", {"goal": "Build it."}),
    ("POST", "/builds/{build}/messages", {"text": "Hello."}),
    ("PATCH", "/projects/{project}", {"name": "Another"}),
    ("DELETE", "/builds/{build}/messages/1", None),
    ("POST", "/builds/{build}/finish", None),
    ("POST", "/builds/{build}/answer", {"question_id": str(uuid.uuid4()), "text": "Yes."}),
    ("POST", "/builds/{build}/restore", {"snapshot": 1}),
    ("POST", "/builds/{build}/wake", None),
    ("POST", "/builds/{build}/push", {"url": "https://8.8.8.8/x.git", "token": "t"}),
    ("POST", "/builds/{build}/preview", None),
    ("POST", "/builds/{build}/cancel", None),
)
"""Each change of a project or build, so that none of them is refused to a member for their role."""

READS = (
    "/projects/{project}",
    "/projects/{project}/brief",
    "/projects/{project}/builds",
    "/projects/{project}/versions",
    "/projects/{project}/secrets",
    "/builds/{build}",
    "/builds/{build}/turns",
    "/builds/{build}/progress",
    "/builds/{build}/past-events",
    "/builds/{build}/messages",
    "/builds/{build}/snapshots",
    "/builds/{build}/screenshots",
)


async def test_members_steer_viewers_look_and_strangers_find_nothing(api: RunningApi, team: Team) -> None:
    project = await team.project()
    build = await team.build(project, team.owner)
    for path in READS:
        at = path.format(project=project, build=build)
        for user, status in ((team.owner, 200), (team.member, 200), (team.viewer, 200), (team.stranger, 404)):
            assert (await send(api, "GET", at, user)).status_code == status, (path, user)
    before = await api.rows()
    for method, path, body in CHANGES:
        at = path.format(project=project, build=build)
        refused = await send(api, method, at, team.viewer, body)
        assert (refused.status_code, refused.json()["type"].split(":")[-1]) == (403, "refused"), path
        assert "only owners and members of its organisation can change it" in refused.json()["detail"], path
        assert (await send(api, method, at, team.stranger, body)).status_code == 404, path
    assert await api.rows() == before
    assert (await send(api, "POST", "/projects", team.viewer, {"organisation_id": team.id})).status_code == 403
    assert (await send(api, "POST", "/projects", team.stranger, {"organisation_id": team.id})).status_code == 404
    for method, path, body in CHANGES:
        answer = await send(api, method, path.format(project=project, build=build), team.member, body)
        assert answer.status_code not in (401, 403), (path, answer.text)
        assert answer.status_code != 404 or "There is no" not in answer.text, (path, answer.text)


async def test_a_build_is_paid_by_who_started_it(api: RunningApi, team: Team) -> None:
    project = await team.project()
    build = await team.build(project, team.member)
    await ok_operator(api, "POST", "/v1/account/top-ups", team.member, {"amount": 5_000_000})
    seen = await ok(api, "GET", f"/builds/{build}", team.viewer)
    own = await ok(api, "GET", f"/builds/{build}", team.member)
    assert seen["started_by"] == own["started_by"] == team.member
    assert (seen["budget"]["percent"], seen["budget"]["allowance"]) == (own["budget"]["percent"], None)
    as_operator = await api.http.get(f"/v1/builds/{build}", headers=for_user(team.owner))
    account = await api.http.get("/v1/account", headers=for_user(team.member))
    assert as_operator.json()["budget"]["allowance"] == account.json()["budget"]["allowance"]
    other = await team.build(await team.project(), team.owner)
    for user in (team.owner, team.member, team.viewer):
        listed = (await ok(api, "GET", "/builds", user))["builds"]
        assert {each["id"]: each["started_by"] for each in listed} == {build: team.member, other: team.owner}
        mine = (await ok(api, "GET", "/builds?started_by_me=true", user))["builds"]
        assert [each["id"] for each in mine] == [each["id"] for each in listed if each["started_by"] == user]
    assert (await ok(api, "GET", "/account", team.owner))["open_builds"] == [other]


async def ok_operator(api: RunningApi, method: str, path: str, user: str, body: Any) -> None:
    answer = await api.http.request(method, path, json=body, headers=for_user(user))
    assert answer.status_code < 300, answer.text


async def test_who_is_removed_sees_nothing_at_once_and_pays_no_more(api: RunningApi, team: Team) -> None:
    project, untouched = await team.project(), await team.project()
    build = await team.build(project, team.member)
    others = await team.build(untouched, team.owner)
    removed = await team.remove(team.member)
    assert (removed.status_code, removed.json()["cancelled_builds"]) == (200, [build])
    for path in READS:
        at = path.format(project=project, build=build)
        assert (await send(api, "GET", at, team.member)).status_code == 404, path
    assert (await ok(api, "GET", "/builds", team.member))["builds"] == []
    assert (await api.row(build)).cancel_requested_at is not None
    assert (await api.row(others)).cancel_requested_at is None
    assert (await send(api, "POST", f"/builds/{build}/messages", team.member, {"text": "Hi"})).status_code == 404


async def test_who_becomes_a_viewer_pays_no_more(api: RunningApi, team: Team) -> None:
    build = await team.build(await team.project(), team.member)
    changed = await team.set_role(team.member, "viewer")
    assert changed.json()["cancelled_builds"] == [build]
    assert (await ok(api, "GET", f"/builds/{build}", team.member))["cancel_requested_at"] is not None


async def test_a_project_moves_between_organisations_of_its_owner(api: RunningApi, team: Team) -> None:
    personal = (await ok(api, "GET", "/organisations", team.owner))["organisations"][0]["id"]
    project = await team.project(team.member)
    path = f"/projects/{project}/organisation"
    theirs = (await ok(api, "GET", "/organisations", team.member))["organisations"][0]["id"]
    refused = await send(api, "PUT", path, team.member, {"organisation_id": theirs})
    assert (refused.status_code, "only an owner can move its projects" in refused.json()["detail"]) == (403, True)
    assert (await send(api, "PUT", path, team.stranger, {"organisation_id": theirs})).status_code == 404
    assert (await send(api, "PUT", path, team.owner, {"organisation_id": theirs})).status_code == 404

    build = await team.build(project, team.member)
    conflict = await send(api, "PUT", path, team.owner, {"organisation_id": personal})
    assert (conflict.status_code, conflict.json()["build_id"]) == (409, build)
    async with transaction(api.sessions) as tx:
        ended = {"status": "failed", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**ended))
    for _ in range(2):
        moved = await ok(api, "PUT", path, team.owner, {"organisation_id": personal})
        assert moved["organisation_id"] == personal
    assert (await send(api, "GET", f"/projects/{project}", team.member)).status_code == 404
    assert (await send(api, "GET", f"/builds/{build}", team.member)).status_code == 404
    assert (await ok(api, "GET", f"/builds/{build}", team.owner))["started_by"] == team.member


async def test_an_open_feed_ends_for_who_is_removed(
    api: RunningApi, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_ACCESS_SECONDS", 0.1)
    monkeypatch.setattr(feeds, "_POLL_SECONDS", 0.1)
    build = await team.build(await team.project(), team.owner)
    path = f"/v1/builds/{build}/events"

    async def read(user: str) -> str:
        async with api.http.stream("GET", path, headers=as_user(user)) as response:
            return (await response.aread()).decode()

    reading = [asyncio.create_task(read(user)) for user in (team.member, team.viewer)]
    await wait_until(lambda: api.resources.feeds.viewers(uuid.UUID(build)) == 2)
    await team.remove(team.member)
    assert "event: status" not in await reading[0]
    assert api.resources.feeds.viewers(uuid.UUID(build)) == 1
    assert (await api.http.get(path, headers=as_user(team.member))).status_code == 404
    async with transaction(api.sessions) as tx:
        ended = {"status": "failed", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**ended))
        await append_events(tx, uuid.UUID(build), [StatusEvent(status="failed")])
    assert "event: status" in await reading[1]
