"""An API whose database role sees every row serves one user, and says what to do about the others."""

import uuid

import httpx2
import pytest
from pydantic import SecretStr

from api.main import check_servers
from domain.errors import NoRowSecurity
from domain.preview_address import preview_address
from local.postgres import api_database_url
from local.stack import LocalStack
from tests.harness.api_server import OPERATORS, as_user, for_user, new_database, running_api, settings_for


async def test_with_the_owners_role_the_api_serves_its_own_user_only(stack: LocalStack) -> None:
    settings = settings_for(await new_database(stack), stack.environment, api_operator_token=SecretStr(OPERATORS))
    async with running_api(settings, stack.environment, as_owner=True) as api:
        assert (await api.http.get("/v1/projects")).status_code == 200
        assert (await api.http.get("/readyz")).status_code == 200
        await check_servers(settings, stack.environment)
        for headers in (as_user("bob"), for_user("bob")):
            answer = await api.http.get("/v1/projects", headers=headers)
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:cofounder:problem:single-user"
            assert "DATABASE_URL" in answer.json()["detail"]
        preview = {"Host": httpx2.URL(preview_address(settings.preview_url, uuid.uuid4())).netloc.decode()}
        answer = await api.http.get("/", headers=as_user("bob") | preview)
        assert (answer.status_code, "DATABASE_URL" in answer.text) == (503, True)
        assert (await api.http.get("/v1/projects")).status_code == 200
        readiness = await api.http.get("/readyz")
        assert readiness.status_code == 503
        assert "cofounder_api" in readiness.json()["dependencies"]["database"]["detail"]
        with pytest.raises(NoRowSecurity, match="API_DATABASE_PASSWORD"):
            await check_servers(settings, stack.environment)
        own = settings.model_copy(update={"database_url": api_database_url(settings.database_url)})
        await check_servers(own, stack.environment)
