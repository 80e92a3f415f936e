"""Webhooks: news is queued with the event, delivered until it is accepted or dead, and goes to no private address."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import func, update
from standardwebhooks import Webhook as Verifier
from temporalio.worker import Worker

from activities.webhooks import WebhookActivities
from clients import webhook_sender
from clients.build_workflows import BuildWorkflows
from clients.cancellation import cancel_and_wait
from clients.cipher import cipher_of
from clients.temporal import connect_temporal
from clients.webhook_sender import WebhookSender
from db.feed import append_events
from db.models import Question, Webhook, WebhookDelivery
from db.transaction import transaction
from domain import webhooks
from domain.events import BuildEvent, ReadyEvent, StatusEvent
from domain.status import Dependency, Status, WaitingFor
from local.stack import LocalStack
from services.product_secrets import Rotation
from services.webhooks import Outbox, secrets_of
from services.webhooks import rotate as encrypt_again
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.receiver import CONNECTION_CLOSED, NO_ANSWER, answer, receiving
from tests.harness.wait import DEADLINE, wait_until
from workflows.webhook import WebhookWorkflow

ADA, BOB = "ada", "bob"
KEY = "main:" + "c2l4dGVlbiBieXRlcyBvciBtb3JlLCBmb3IgdGVzdHM="


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    settings = settings_for(
        await new_database(stack),
        stack.environment,
        secrets_key=SecretStr(KEY),
        webhook_private_hosts="127.0.0.1",
    )
    async with running_api(settings, stack.environment) as running:
        yield running


@pytest.fixture(scope="module")
async def outbox(api: RunningApi, stack: LocalStack) -> AsyncIterator[None]:
    settings = api.settings
    sender = WebhookSender(["127.0.0.1"])
    delivering = WebhookActivities(api.sessions, cipher_of(settings), sender, settings.public_url)
    client, queue = await connect_temporal(stack.environment), f"webhooks-{uuid.uuid4()}"
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[WebhookWorkflow],
        activities=[delivering.deliver_webhook],
    )
    async with worker:
        keeping = asyncio.create_task(Outbox(api.sessions, BuildWorkflows(api.temporal, queue)).keep())
        yield
        keeping.cancel()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "RETRIES", (timedelta(seconds=0.05),) * 2)
    monkeypatch.setattr("services.webhooks._LOOK_SECONDS", 0.05)


async def make(api: RunningApi, url: str, **body: Any) -> dict[str, Any]:
    made = await api.http.post("/v1/webhooks", json={"url": url, **body}, headers=as_user(ADA))
    assert made.status_code == 201, made.text
    result: dict[str, Any] = made.json()
    return result


async def build_of_ada(api: RunningApi) -> uuid.UUID:
    project = await api.project(ADA)
    started = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Build it."}, headers=as_user(ADA))
    assert started.status_code == 201, started.text
    return uuid.UUID(started.json()["id"])


async def tell(api: RunningApi, build: uuid.UUID, *events: BuildEvent) -> None:
    for event in events:
        async with transaction(api.sessions) as tx:
            await append_events(tx, build, [event])


async def deliveries(api: RunningApi, webhook: str, user: str = ADA) -> list[dict[str, Any]]:
    listed = await api.http.get(f"/v1/webhooks/{webhook}/deliveries", headers=as_user(user))
    assert listed.status_code == 200, listed.text
    found: list[dict[str, Any]] = listed.json()["deliveries"]
    return found


async def ended(api: RunningApi, webhook: str, count: int) -> list[dict[str, Any]]:
    """The webhook's deliveries, the oldest first, once that many have ended."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await deliveries(api, webhook)
            if sum(each["ended_at"] is not None for each in found) >= count:
                return found[::-1]
            await asyncio.sleep(0.05)


async def test_news_of_a_build_is_queued_in_order_and_arrives_signed(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        made = await make(api, receiver.url)
        build = await build_of_ada(api)
        await tell(
            api,
            build,
            StatusEvent(status=Status.CODE),
            StatusEvent(
                status=Status.SLEEPING, reason="the allowance is used up", wakes_at="2026-12-01T00:00:00+00:00"
            ),
            StatusEvent(status=Status.CODE),
            StatusEvent(status=Status.NEEDS_INPUT, waiting_for=WaitingFor.OPERATOR),
            StatusEvent(status=Status.NEEDS_INPUT, waiting_for=WaitingFor.FOUNDER),
            StatusEvent(status=Status.CODE),
            ReadyEvent(build_version=3, phases_completed=2),
            StatusEvent(status=Status.READY),
            StatusEvent(status=Status.FAILED, reason="broken"),
        )
        found = await ended(api, made["webhook"]["id"], 5)
        assert [each["event_id"] for each in found] == sorted(each["event_id"] for each in found)
        topics = ["build.asleep", "build.awake", "build.needs_input", "build.ready", "build.failed"]
        assert [each["topic"] for each in found] == topics
        assert {each["state"] for each in found} == {"delivered"}
        verifier = Verifier(made["secret"])
        told = {}
        for headers, body in receiver.got:
            content = verifier.verify(body, headers)
            told[content["type"]] = content["data"]
            assert headers["host"] == receiver.url.split("/")[2]
        assert set(told) == set(topics)
        assert told["build.asleep"]["wakes_at"] == "2026-12-01T00:00:00+00:00"
        assert told["build.ready"]["build_version"] == 3
        assert told["build.failed"]["reason"] == "broken"
        assert {each["build_id"] for each in told.values()} == {str(build)}
        with pytest.raises(Exception, match="No matching signature"):
            verifier.verify(receiver.got[0][1] + " ", receiver.got[0][0])


async def test_what_is_rolled_back_is_not_told_and_others_are_not_told(api: RunningApi) -> None:
    made = await make(api, "http://127.0.0.1:9/hook", topics=["build.ready"])
    bobs = await api.http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/bobs"}, headers=as_user(BOB))
    build = await build_of_ada(api)
    with suppress(ZeroDivisionError):
        async with transaction(api.sessions) as tx:
            await append_events(tx, build, [ReadyEvent(build_version=1)])
            raise ZeroDivisionError
    await tell(api, build, StatusEvent(status=Status.FAILED))
    assert await deliveries(api, made["webhook"]["id"]) == []
    await tell(api, build, ReadyEvent(build_version=1))
    assert [each["topic"] for each in await deliveries(api, made["webhook"]["id"])] == ["build.ready"]
    assert await deliveries(api, bobs.json()["webhook"]["id"], BOB) == [], "of another organisation"
    listed = await api.http.get("/v1/webhooks", headers=as_user(BOB))
    assert [each["url"] for each in listed.json()["webhooks"]] == ["http://127.0.0.1:9/bobs"]


async def test_a_build_that_waits_before_it_goes_on_is_awake_once(api: RunningApi) -> None:
    webhook = (await make(api, "http://127.0.0.1:9/hook", topics=["build.awake"]))["webhook"]["id"]
    build = await build_of_ada(api)
    await tell(
        api,
        build,
        StatusEvent(status=Status.SLEEPING),
        StatusEvent(status=Status.WAITING, dependency=Dependency.CAPACITY),
        StatusEvent(status=Status.CODE),
        StatusEvent(status=Status.WAITING, dependency=Dependency.MODEL),
        StatusEvent(status=Status.CODE),
    )
    assert [each["topic"] for each in await deliveries(api, webhook)] == ["build.awake"]


async def test_only_the_question_that_is_open_is_told(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        webhook = (await make(api, receiver.url, topics=["build.needs_input"]))["webhook"]["id"]
        build = await build_of_ada(api)
        asking = StatusEvent(status=Status.NEEDS_INPUT, waiting_for=WaitingFor.FOUNDER)
        async with transaction(api.sessions) as tx:
            question = Question(id=uuid.uuid4(), build_id=build, problem="Which colour?", tried=[], options=["red"])
            tx.session.add(question)
            await append_events(tx, build, [asking])
        await ended(api, webhook, 1)
        async with transaction(api.sessions) as tx:
            await tx.session.execute(update(Question).where(Question.build_id == build).values(closed_at=func.now()))
        await tell(api, build, StatusEvent(status=Status.CODE), asking)
        await ended(api, webhook, 2)
        first, second = (json.loads(body)["data"] for _, body in receiver.got)
        assert first["question"] == {"problem": "Which colour?", "options": ["red"]}
        assert "question" not in second


@pytest.mark.parametrize("error", [TimeoutError(), asyncpg.CannotConnectNowError("the database system is starting up")])
async def test_the_outbox_outlives_every_error(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    outbox, looks = Outbox(api.sessions, BuildWorkflows(api.temporal, "no-queue")), 0

    async def look(_: Outbox) -> int:
        nonlocal looks
        looks += 1
        raise error

    monkeypatch.setattr(Outbox, "look", look)
    keeping = asyncio.create_task(outbox.keep())
    await wait_until(lambda: looks > 2)
    assert not keeping.done()
    await cancel_and_wait(keeping)


@pytest.mark.parametrize(
    ("answers", "error", "attempts"),
    [
        ([answer(500)], "the status 500", 3),
        ([answer(302, "Location: http://169.254.169.254/")], "redirect", 3),
        ([NO_ANSWER], "did not answer", 3),
        ([answer(410)], "the status 410", 1),
        ([CONNECTION_CLOSED], "could not be reached", 3),
    ],
    ids=["fails", "redirects", "is slow", "is gone", "closes the connection"],
)
async def test_a_delivery_that_fails_is_dead_in_the_end_and_can_be_replayed(
    api: RunningApi,
    outbox: None,
    monkeypatch: pytest.MonkeyPatch,
    answers: Sequence[bytes],
    error: str,
    attempts: int,
) -> None:
    monkeypatch.setattr(webhook_sender, "SECONDS", 1.0)
    async with receiving() as receiver:
        receiver.answers = list(answers)
        webhook = (await make(api, receiver.url))["webhook"]["id"]
        tested = await api.http.post(f"/v1/webhooks/{webhook}/test", headers=as_user(ADA))
        assert tested.status_code == 202, tested.text
        [dead] = await ended(api, webhook, 1)
        assert (dead["state"], dead["attempts"], dead["topic"]) == ("dead", attempts, "webhook.test")
        assert error in dead["error"]
        assert len(receiver.got) == attempts
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        listed = (await api.http.get("/v1/webhooks", headers=as_user(ADA))).json()["webhooks"]
        [shown] = [each for each in listed if each["id"] == webhook]
        assert shown["enabled"] is (attempts > 1), shown
        enabled = await api.http.patch(f"/v1/webhooks/{webhook}", json={"enabled": True}, headers=as_user(ADA))
        assert enabled.json()["enabled"]

        receiver.answers = [answer(200)]
        path = f"/v1/webhooks/{webhook}/deliveries/{dead['id']}/replay"
        assert (await api.http.post(path, headers=as_user(ADA))).status_code == 202
        [delivered] = await ended(api, webhook, 1)
        assert (delivered["state"], delivered["error"]) == ("delivered", None)
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


async def test_a_receiver_that_is_down_is_tried_again(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        url = receiver.url
    webhook = (await make(api, url))["webhook"]["id"]
    await api.http.post(f"/v1/webhooks/{webhook}/test", headers=as_user(ADA))
    [dead] = await ended(api, webhook, 1)
    assert (dead["state"], dead["attempts"], dead["status"]) == ("dead", 3, None)
    assert "could not be reached" in dead["error"]


async def test_a_receiver_that_comes_back_gets_what_waited(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        receiver.answers = [answer(503, "Retry-After: 0"), answer(503), answer(200)]
        webhook = (await make(api, receiver.url))["webhook"]["id"]
        await api.http.post(f"/v1/webhooks/{webhook}/test", headers=as_user(ADA))
        [delivered] = await ended(api, webhook, 1)
        assert (delivered["state"], delivered["attempts"]) == ("delivered", 3)


async def test_a_delivery_whose_workflow_is_lost_is_started_again(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        webhook = (await make(api, receiver.url))["webhook"]["id"]
        async with transaction(api.sessions) as tx:
            lost = WebhookDelivery(webhook_id=uuid.UUID(webhook), topic="webhook.test", state="sending", attempts=1)
            lost.due_at = func.now() - timedelta(minutes=6)
            tx.session.add(lost)
        [delivered] = await ended(api, webhook, 1)
        assert (delivered["state"], delivered["attempts"]) == ("delivered", 2)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://10.0.0.7/hook", "private address"),
        ("https://[::1]/hook", "private address"),
        ("https://localhost/hook", "private address"),
        ("https://169.254.169.254/latest", "no webhook is delivered"),
        ("http://example.com/hook", "Use https"),
        ("https://ada:elephant@example.com/", "before the @"),
        ("https://example.com/#elephant", "#"),
        ("ftp://example.com/", "https://host/path"),
        ("https://", "https://host/path"),
        ("https://no-such-host.invalid/", "could not be found"),
    ],
)
async def test_an_address_that_is_not_allowed_is_refused(api: RunningApi, url: str, says: str) -> None:
    refused = await api.http.post("/v1/webhooks", json={"url": url}, headers=as_user(ADA))
    assert refused.status_code == 422, refused.text
    assert says in refused.json()["detail"] + json.dumps(refused.json().get("errors", []))
    assert "elephant" not in refused.json()["detail"]


async def test_a_name_that_comes_to_have_a_private_address_gets_nothing() -> None:
    async with receiving() as receiver:
        sender = WebhookSender([], _resolver("93.184.216.34", "127.0.0.1"))
        url = receiver.url.replace("http://127.0.0.1", "https://hooks.example.com")
        await sender.check(url)
        said = await sender.send(url, [webhooks.new_secret()], "msg_1", "{}")
        assert said.error is not None
        assert "private address" in said.error
        assert receiver.got == []


def _resolver(*answers: str) -> Callable[[str], Any]:
    left = list(answers)

    async def resolver(_: str) -> Sequence[str]:
        return [left.pop(0)]

    return resolver


async def _test_message(api: RunningApi, webhook: str, count: int) -> None:
    """Have a test delivered, and wait until the webhook has that many deliveries that have ended."""
    tested = await api.http.post(f"/v1/webhooks/{webhook}/test", headers=as_user(ADA))
    assert tested.status_code == 202, tested.text
    await ended(api, webhook, count)


async def test_after_a_rotation_messages_are_signed_with_both_secrets_for_a_day(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        made = await make(api, receiver.url)
        webhook = made["webhook"]["id"]
        rotated = await api.http.post(f"/v1/webhooks/{webhook}/rotate", json={}, headers=as_user(ADA))
        assert rotated.status_code == 200, rotated.text
        old, new = made["secret"], rotated.json()["secret"]
        assert old != new
        until = datetime.fromisoformat(rotated.json()["webhook"]["old_secret_until"])
        assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24)
        await _test_message(api, webhook, 1)
        headers, body = receiver.got[-1]
        assert len(headers["webhook-signature"].split(" ")) == 2
        for secret in (old, new):
            Verifier(secret).verify(body, headers)
        with pytest.raises(Exception, match="No matching signature"):
            Verifier(webhooks.new_secret()).verify(body, headers)

        # The day has passed.
        async with transaction(api.sessions) as tx:
            ended_now = update(Webhook).where(Webhook.id == uuid.UUID(webhook)).values(old_until=func.now())
            await tx.session.execute(ended_now)
        listed = (await api.http.get("/v1/webhooks", headers=as_user(ADA))).json()["webhooks"]
        assert [each["old_secret_until"] for each in listed if each["id"] == webhook] == [None]
        await _test_message(api, webhook, 2)
        headers, body = receiver.got[-1]
        Verifier(new).verify(body, headers)
        with pytest.raises(Exception, match="No matching signature"):
            Verifier(old).verify(body, headers)


async def test_a_secret_that_has_leaked_ends_at_once(api: RunningApi, outbox: None) -> None:
    async with receiving() as receiver:
        made = await make(api, receiver.url)
        webhook = made["webhook"]["id"]
        path = f"/v1/webhooks/{webhook}/rotate"
        first = await api.http.post(path, json={}, headers=as_user(ADA))
        second = await api.http.post(path, json={"overlap_seconds": 0}, headers=as_user(ADA))
        assert second.json()["webhook"]["old_secret_until"] is None
        await _test_message(api, webhook, 1)
        headers, body = receiver.got[-1]
        Verifier(second.json()["secret"]).verify(body, headers)
        for ended_secret in (made["secret"], first.json()["secret"]):
            with pytest.raises(Exception, match="No matching signature"):
                Verifier(ended_secret).verify(body, headers)


async def test_both_secrets_are_encrypted_again_with_a_new_key(api: RunningApi) -> None:
    made = await make(api, "http://127.0.0.1:9/hook")
    webhook = made["webhook"]["id"]
    rotated = await api.http.post(f"/v1/webhooks/{webhook}/rotate", json={}, headers=as_user(ADA))
    keys = "next:" + "c2l4dGVlbiBieXRlcyBvciBtb3JlLCBmb3IgbmV4dCE=" + "," + KEY
    cipher = cipher_of(api.settings.model_copy(update={"secrets_key": SecretStr(keys)}))
    rotation = Rotation(cipher.key_id)
    await encrypt_again(api.sessions, cipher, rotation)
    assert rotation.unreadable == []
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Webhook, uuid.UUID(webhook))
        assert (row.key_id, row.old_key_id) == ("next", "next")
        assert secrets_of(cipher, row) == [rotated.json()["secret"], made["secret"]]


async def test_deliveries_of_one_moment_are_on_one_page_each(api: RunningApi) -> None:
    webhook = (await make(api, "http://127.0.0.1:9/hook", topics=["build.ready"]))["webhook"]["id"]
    at = datetime.now(UTC)
    async with transaction(api.sessions) as tx:
        # 45 of one moment lie on both sides of a page's end.
        moments = [at - timedelta(seconds=1)] * 10 + [at] * 45 + [at + timedelta(seconds=1)] * 20
        rows = [
            WebhookDelivery(id=uuid.uuid4(), webhook_id=uuid.UUID(webhook), topic="webhook.test", created_at=moment)
            for moment in moments
        ]
        for row in rows:
            row.state, row.ended_at = "delivered", at
        tx.session.add_all(rows)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await api.http.get(
            f"/v1/webhooks/{webhook}/deliveries",
            params={"limit": 20} | ({"cursor": cursor} if cursor else {}),
            headers=as_user(ADA),
        )
        assert page.status_code == 200, page.text
        seen += [each["id"] for each in page.json()["deliveries"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(rows)
    assert set(seen) == {str(row.id) for row in rows}


async def test_only_owners_make_and_see_the_webhooks_of_an_organisation(api: RunningApi) -> None:
    created = await api.http.post("/v1/organisations", json={"name": "Team"}, headers=as_user(ADA))
    org = created.json()["id"]
    await api.http.get("/v1/me", headers=as_user(BOB))
    added = await api.http.put(f"/v1/organisations/{org}/members/{BOB}", json={"role": "member"}, headers=as_user(ADA))
    assert added.status_code in (200, 201), added.text
    body = {"url": "http://127.0.0.1:9/hook", "organisation_id": org}
    refused = await api.http.post("/v1/webhooks", json=body, headers=as_user(BOB))
    assert (refused.status_code, "owners" in refused.json()["detail"]) == (403, True)
    made = await make(api, body["url"], organisation_id=org)
    for path in ("", "/deliveries"):
        method = api.http.get if path else api.http.delete
        hidden = await method(f"/v1/webhooks/{made['webhook']['id']}{path}", headers=as_user(BOB))
        assert hidden.status_code == 404, hidden.text
    async with transaction(api.sessions) as tx:
        row = await tx.session.get_one(Webhook, uuid.UUID(made["webhook"]["id"]))
        assert made["secret"].encode() not in row.ciphertext
