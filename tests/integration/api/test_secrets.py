"""Secrets over HTTP: set, listed by name, removed, encrypted at rest, and never read back."""

import base64
import uuid
from collections.abc import AsyncIterator

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from clients.cipher import Cipher, cipher_of
from db.models import Base, ProjectSecret
from db.project_secrets import count_by_key, list_secrets
from db.transaction import transaction
from domain.errors import NoSecretsKey, SecretUnreadable
from domain.product_secrets import MAX_SECRETS
from local.stack import LocalStack
from services.product_secrets import open_secrets, rotate
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for

VALUE = "sk_live_51Hx/9+abcDEF=="
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    key = SecretStr(f"main:{base64.b64encode(OLD).decode()}")
    settings = settings_for(await new_database(stack), secrets_key=key)
    async with running_api(settings, stack.environment) as running:
        yield running


async def _stored(api: RunningApi, project: str) -> dict[str, ProjectSecret]:
    async with transaction(api.sessions) as tx:
        return {secret.name: secret for secret in await list_secrets(tx, uuid.UUID(project))}


async def test_a_secret_is_set_listed_replaced_and_removed_and_never_read_back(api: RunningApi) -> None:
    path = f"/v1/projects/{await api.project()}/secrets"
    assert (await api.http.get(path)).json() == {"secrets": []}
    with structlog.testing.capture_logs() as logs:
        for name, value in (("STRIPE_API_KEY", "a first value"), ("MAIL_TOKEN", VALUE), ("STRIPE_API_KEY", VALUE)):
            set_ = await api.http.put(f"{path}/{name}", json={"value": value})
            assert (set_.status_code, set_.json()["name"]) == (200, name), set_.text
            assert value not in set_.text
    listed = await api.http.get(path)
    assert [each["name"] for each in listed.json()["secrets"]] == ["MAIL_TOKEN", "STRIPE_API_KEY"]
    assert all(set(each) == {"name", "set_at"} for each in listed.json()["secrets"])

    stored = await _stored(api, path.split("/")[3])
    assert open_secrets(cipher_of(api.resources.settings), stored.values()) == dict.fromkeys(stored, VALUE)
    assert {row.key_id for row in stored.values()} == {"main"}
    async with transaction(api.sessions) as tx:
        for table in Base.metadata.sorted_tables:
            rows = "".join(await tx.session.scalars(text(f'select t::text from "{table.name}" t')))
            assert VALUE not in rows
            assert VALUE.encode().hex() not in rows
    assert VALUE not in str(logs)

    assert (await api.http.delete(f"{path}/MAIL_TOKEN")).status_code == 204
    gone = await api.http.delete(f"{path}/MAIL_TOKEN")
    assert (gone.status_code, gone.json()["detail"]) == (404, "The project has no secret 'MAIL_TOKEN'.")
    assert (await api.http.get(f"{path}/STRIPE_API_KEY")).status_code == 405


async def test_secrets_of_another_user_do_not_exist(api: RunningApi) -> None:
    path = f"/v1/projects/{await api.project('ada')}/secrets"
    assert (await api.http.put(f"{path}/KEY_OF_ADA", json={"value": VALUE}, headers=as_user("ada"))).is_success
    answers = [
        await api.http.get(path, headers=as_user("eve")),
        await api.http.put(f"{path}/KEY_OF_ADA", json={"value": "the value of eve"}, headers=as_user("eve")),
        await api.http.delete(f"{path}/KEY_OF_ADA", headers=as_user("eve")),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    stored = await _stored(api, path.split("/")[3])
    assert open_secrets(cipher_of(api.resources.settings), stored.values()) == {"KEY_OF_ADA": VALUE}


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("PATH", {"value": VALUE}, "name"),
        ("lower", {"value": VALUE}, "name"),
        ("A%00B", {"value": VALUE}, "name"),
        ("KEY", {"value": "tiny"}, "value"),
        ("KEY", {"value": f"{VALUE}\x00"}, "value"),
        ("KEY", {"value": [VALUE]}, "value"),
        ("KEY", {"value": VALUE, VALUE: 1}, VALUE),
        ("KEY", {"value": VALUE * 1000}, "value"),
    ],
)
async def test_a_problem_names_the_field_and_never_the_value(
    api: RunningApi, name: str, body: dict[str, object], field: str
) -> None:
    path = f"/v1/projects/{await api.project()}/secrets"
    refused = await api.http.put(f"{path}/{name}", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field), refused.text
    if field != VALUE:
        assert VALUE not in refused.text
    assert (await api.http.get(path)).json() == {"secrets": []}
    assert (await api.http.delete(f"{path}/{name}")).status_code == 404


async def test_a_project_has_a_bounded_number_of_secrets(api: RunningApi) -> None:
    path = f"/v1/projects/{await api.project()}/secrets"
    for number in range(MAX_SECRETS):
        assert (await api.http.put(f"{path}/KEY_{number}", json={"value": VALUE})).is_success
    assert (await api.http.put(f"{path}/ONE_MORE", json={"value": VALUE})).status_code == 409
    assert (await api.http.put(f"{path}/KEY_0", json={"value": VALUE})).is_success


async def test_without_a_key_setting_one_is_refused_and_says_how_to_make_it(stack: LocalStack) -> None:
    async with running_api(settings_for(await new_database(stack)), stack.environment) as api:
        path = f"/v1/projects/{await api.project()}/secrets"
        refused = await api.http.put(f"{path}/KEY", json={"value": VALUE})
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:cofounder:problem:no-secrets-key")
        assert "openssl rand -base64 32" in refused.json()["detail"]
        assert (await api.http.get(path)).json() == {"secrets": []}
        with pytest.raises(NoSecretsKey):
            await rotate(api.sessions, Cipher({}))


async def test_a_rotation_encrypts_all_again_but_what_cannot_be_read(api: RunningApi) -> None:
    project = await api.project()
    path = f"/v1/projects/{project}/secrets"
    for name in ("ONE", "TWO"):
        assert (await api.http.put(f"{path}/{name}", json={"value": f"{VALUE} {name}"})).is_success
    async with transaction(api.sessions) as tx:
        await tx.session.execute(text("insert into project_secrets select project_id, 'LOST', ciphertext, 'gone', "
                                      "set_at, set_by from project_secrets where name = 'ONE'"))  # fmt: skip
    before = await _stored(api, project)
    async with transaction(api.sessions) as tx:
        readable = (await count_by_key(tx))["main"]

    both = Cipher({"new": NEW, "main": OLD})
    rotation = await rotate(api.sessions, both)
    assert (rotation.key_id, rotation.encrypted) == ("new", readable)
    assert rotation.unreadable == [
        (f"LOST of project {project}", "it was encrypted with the key gone, which SECRETS_KEY does not have")
    ]
    after = await _stored(api, project)
    rotated = [after["ONE"], after["TWO"]]
    assert open_secrets(Cipher({"new": NEW}), rotated) == {"ONE": f"{VALUE} ONE", "TWO": f"{VALUE} TWO"}
    assert after["LOST"].ciphertext == before["LOST"].ciphertext
    assert [row.set_at for row in after.values()] == [row.set_at for row in before.values()]
    again = await rotate(api.sessions, both)
    assert (again.encrypted, len(again.unreadable)) == (0, 1)
    with pytest.raises(SecretUnreadable, match=r"The secret LOST \(and 2 more\) can't be read: it was encrypted"):
        open_secrets(Cipher({"main": OLD}), after.values())
