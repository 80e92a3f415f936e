"""Who one is, and what a page needs to know of the server."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from db.switches import switch_off, switch_on
from db.transaction import transaction
from domain.switches import SwitchScope, notice
from local.stack import LocalStack
from tests.harness.api_server import (
    AS_OPERATOR,
    OPERATORS,
    RunningApi,
    as_user,
    new_database,
    running_api,
    settings_for,
)


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    own = settings_for(
        await new_database(stack),
        stack.environment,
        api_operator_token=SecretStr(OPERATORS),
        temporal_ui_url="https://temporal.example.com/ui/",
        preview_url="https://p-*.previews.example.com",
        rehearsal_model=False,
    )
    async with running_api(own, stack.environment) as running:
        yield running


async def test_a_page_learns_about_the_server_what_its_reader_may_know(api: RunningApi) -> None:
    me = (await api.http.get("/v1/me", headers=as_user("ada"))).json()
    assert (me["user"], me["is_operator"]) == ("ada", False)
    version = me["server"].pop("version")
    assert version[0].isdigit()
    assert me["server"] == {
        "builds_on": True,
        "builds_off_reason": None,
        "rehearsal": False,
        "preview_origins": ["https://*.previews.example.com"],
        "temporal_ui_url": None,
    }
    seen = (await api.http.get("/v1/me", headers=AS_OPERATOR)).json()
    assert seen["is_operator"]
    assert seen["server"]["temporal_ui_url"] == "https://temporal.example.com/ui/namespaces/default"


async def test_a_switch_of_ones_own_shows(api: RunningApi) -> None:
    await api.http.get("/v1/me", headers=as_user("eve"))
    async with transaction(api.sessions) as tx:
        await switch_off(tx, SwitchScope.USER, "eve", reason="A test.", by="tests")
    server = (await api.http.get("/v1/me", headers=as_user("eve"))).json()["server"]
    assert (server["builds_on"], server["builds_off_reason"]) == (False, notice(SwitchScope.USER))
    assert (await api.http.get("/v1/me", headers=as_user("ada"))).json()["server"]["builds_on"]
    async with transaction(api.sessions) as tx:
        await switch_on(tx, SwitchScope.USER, "eve")


@pytest.mark.thorough
async def test_the_kill_switch_and_the_rehearsal_model_show(stack: LocalStack) -> None:
    own = settings_for(await new_database(stack), stack.environment, autonomous_agent=False, rehearsal_model=True)
    async with running_api(own, stack.environment) as off:
        server = (await off.http.get("/v1/me")).json()["server"]
    assert (server["builds_on"], server["rehearsal"]) == (False, True)
    assert server["builds_off_reason"] == notice(SwitchScope.FLEET)
