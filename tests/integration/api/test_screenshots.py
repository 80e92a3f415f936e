"""The screenshots of a build over HTTP: which there are, and which are no longer kept."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from clients.object_store import ObjectStore, image_key
from db.models import GateRun, ToolCall
from db.transaction import transaction
from domain.tool_output import ImageRef, render_result
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(await new_database(stack), stack.environment)
    async with running_api(settings, stack.environment) as running:
        yield running


async def _build_with_screenshots(api: RunningApi) -> str:
    """A build whose agent has looked once, before its two gates. The first gate's picture is gone."""
    build = await api.build()
    store = api.resources.store
    assert isinstance(store, ObjectStore)
    looked, desktop, mobile = ("1a" * 32, "2b" * 32, "3c" * 32)
    for name in (looked, desktop, mobile):
        await store.put_image(name, name.encode())
    text = "/ on port 8000, mobile 390x2000, HTTP status 200, title 'Pantry'."
    calls: list[tuple[str, str, list[Any]]] = [
        ("toolu_look", "look", [ImageRef(looked), text]),
        ("toolu_failed", "look", ["No server answers."]),
        ("toolu_file", "read_file", [ImageRef(looked), "logo.png: 20x20 pixels."]),
    ]
    async with transaction(api.sessions) as tx:
        for position, (call_id, name, content) in enumerate(calls):
            known: dict[str, Any] = {"state": "done", "is_error": False, "done_at": AT, "summary": ""}
            ids = {"build_id": uuid.UUID(build), "tool_use_id": call_id, "turn": 4, "position": position}
            tx.session.add(ToolCall(**ids, **known, name=name, result=render_result(call_id, content)))
        for number, keys in (
            (1, {"desktop": image_key("9f" * 32)}),
            (2, {"mobile": image_key(mobile), "desktop": image_key(desktop)}),
        ):
            gate = {"build_id": uuid.UUID(build), "number": number, "snapshot_number": 1, "findings": []}
            tx.session.add(GateRun(**gate, screenshots=keys, ended_at=AT + timedelta(minutes=number)))
    return build


async def test_screenshots_of_gates_and_of_the_agent_are_listed_with_what_is_gone(api: RunningApi) -> None:
    build = await _build_with_screenshots(api)
    path = f"/v1/builds/{build}/screenshots"
    listed = (await api.http.get(path)).json()
    assert [(each["id"], each["kept"]) for each in listed["screenshots"]] == [
        ("gate-2-desktop", True),
        ("gate-2-mobile", True),
        ("gate-1-desktop", False),
        ("toolu_look-1", True),
    ]
    assert listed["next_before"] is None
    looked = listed["screenshots"][-1]
    assert looked.items() >= {"kind": "agent", "viewport": "mobile", "width": 390, "height": 2000}.items()
    assert (
        looked.items() >= {"turn": 4, "gate": None, "tool_use_id": "toolu_look", "path": f"{path}/toolu_look-1"}.items()
    )
    assert datetime.fromisoformat(looked["taken_at"]) == AT
    for each in listed["screenshots"]:
        picture = await api.http.get(each["path"])
        assert picture.status_code == (200 if each["kept"] else 404)
        if each["kept"]:
            assert "immutable" in picture.headers["cache-control"]
        else:
            assert "no longer kept" in picture.json()["detail"]
        assert (await api.http.get(each["path"], headers=as_user("eve"))).status_code == 404
    of_gates = (await api.http.get(path, params={"kind": "gate"})).json()["screenshots"]
    assert {each["gate"] for each in of_gates} == {1, 2}


async def test_screenshots_come_in_pages(api: RunningApi) -> None:
    build = await _build_with_screenshots(api)
    found, query = [], {"limit": "3"}
    while True:
        page = (await api.http.get(f"/v1/builds/{build}/screenshots", params=query)).json()
        found += [each["id"] for each in page["screenshots"]]
        if page["next_before"] is None:
            break
        query["before"] = page["next_before"]
    assert found == ["gate-2-desktop", "gate-2-mobile", "gate-1-desktop", "toolu_look-1"]
    for unknown, status in (("toolu_file-1", 404), ("gate-3-desktop", 404), ("a.b", 422)):
        assert (await api.http.get(f"/v1/builds/{build}/screenshots/{unknown}")).status_code == status


async def test_a_download_reads_only_the_call_that_the_id_names(api: RunningApi) -> None:
    build = await _build_with_screenshots(api)
    other = {"build_id": uuid.UUID(build), "name": "look", "state": "done", "is_error": False, "summary": ""}
    async with transaction(api.sessions) as tx:
        for call_id in ("toolu_other", "gate-2"):
            result = render_result(call_id, [ImageRef("1a" * 32), "/ on port 8000, desktop 1x1."])
            tx.session.add(
                ToolCall(**other, tool_use_id=call_id, turn=5, position=len(call_id), done_at=AT, result=result)
            )
    loaded: list[str] = []

    def note(row: ToolCall, context: Any) -> None:
        loaded.append(row.tool_use_id)

    event.listen(ToolCall, "load", note)
    try:
        path = f"/v1/builds/{build}/screenshots"
        for screenshot, status, calls in (
            ("toolu_look-1", 200, ["toolu_look"]),
            ("toolu_look-2", 404, ["toolu_look"]),
            ("toolu_failed-1", 404, []),
            ("gate-2-1", 200, ["gate-2"]),
            ("gate-2-desktop", 200, []),
            ("gate-99999999999999999999-desktop", 404, []),
            ("gate-2", 404, []),
            ("toolu_look", 404, []),
        ):
            loaded.clear()
            assert (await api.http.get(f"{path}/{screenshot}")).status_code == status, screenshot
            assert loaded == calls, screenshot
    finally:
        event.remove(ToolCall, "load", note)
