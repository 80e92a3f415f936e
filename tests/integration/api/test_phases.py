"""The phases of a build and what they have changed, read over HTTP."""

from collections.abc import AsyncIterator

import pytest

from clients.object_store import ObjectStore
from domain.workspace_diff import StoredDiff
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.stored_diffs import PATCH, end_phase, make_diff, store_diff
from tests.harness.stored_files import store_files

ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack), stack.environment), stack.environment) as running:
        yield running


async def test_phases_say_how_much_they_have_changed(api: RunningApi) -> None:
    build = await api.build()
    path = f"/v1/builds/{build}"
    assert (await api.http.get(f"{path}/phases")).json() == {"phases": []}
    nothing = await api.http.get(f"{path}/diff")
    assert (nothing.status_code, "no phase has ended" in nothing.json()["detail"]) == (404, True)

    await end_phase(api, build, 1, ONE)
    of_old_version = await api.http.get(f"{path}/diff")
    assert (of_old_version.status_code, "not stored" in of_old_version.json()["detail"]) == (404, True)
    await end_phase(api, build, 2, TWO[:12], "A list")
    await store_files(api, build, [], number=4, commit=TWO, reason="phase")
    hostile = "<b>\u202e.py"
    second = StoredDiff(phase=make_diff(TWO, ONE, path=hostile), build=make_diff(TWO, additions=7))
    await store_diff(api, build, 2, second)

    first, last = (await api.http.get(f"{path}/phases")).json()["phases"]
    assert (first["number"], first["files"], first["additions"], first["snapshot"]) == (1, None, None, None)
    assert (last["title"], last["commit"], last["files"], last["additions"]) == ("A list", TWO[:12], 1, 1)
    assert (last["snapshot"], last["turn"]) == (4, 2)
    assert last["seconds"] >= 0

    answer = await api.http.get(f"{path}/phases/2/diff")
    assert "immutable" in answer.headers["cache-control"]
    diff = answer.json()
    assert (diff["phase"], diff["base"], diff["commit"], diff["truncated"]) == (2, ONE, TWO, False)
    [change] = diff["changes"]
    assert (change["path"], change["patch"], change["status"]) == (hostile, PATCH, "modified")
    whole = await api.http.get(f"{path}/diff")
    assert whole.headers["cache-control"] == "no-store"
    assert (whole.json()["up_to_phase"], whole.json()["base"], whole.json()["additions"]) == (2, None, 7)

    for phase, detail in ((1, "were not stored"), (3, "no phase 3")):
        missing = await api.http.get(f"{path}/phases/{phase}/diff")
        assert (missing.status_code, detail in missing.json()["detail"]) == (404, True)
    for each in ("phases", "phases/2/diff", "diff"):
        eve = await api.http.get(f"{path}/{each}", headers=as_user("eve"))
        assert (eve.status_code, eve.json()["type"]) == (404, "urn:cofounder:problem:not-found")


@pytest.mark.thorough
async def test_what_is_lost_in_the_store_is_said(api: RunningApi) -> None:
    build = await api.build()
    await end_phase(api, build, 1, ONE)
    key = await store_diff(api, build, 1, StoredDiff(phase=make_diff(ONE)))
    assert (await api.http.get(f"/v1/builds/{build}/diff")).json()["commit"] == ONE
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    for content in (b"no gzip", b""):
        await store.put(key, content)
        assert (await api.http.get(f"/v1/builds/{build}/diff")).status_code == 404
    await store.delete([key])
    lost = await api.http.get(f"/v1/builds/{build}/phases/1/diff")
    assert (lost.status_code, "were not stored" in lost.json()["detail"]) == (404, True)
