"""The reaper over the API: a pause that no start of a worker ends, and a plan that changes nothing."""

import uuid
from datetime import timedelta

from pydantic import SecretStr
from sqlalchemy import func, select, update

from clients.build_workflows import BuildWorkflows
from clients.sandbox import Role, Sandboxes, sandbox_config
from clients.schedules import schedule_reaper
from db.models import AuditEntry, Build, DoomedObject
from db.transaction import transaction
from local.stack import LocalStack
from services.reap.builds import BuildReaper
from tests.harness.api_server import AS_OPERATOR, OPERATORS, TOKEN, RunningApi, running_api
from tests.harness.deployments import new_deployment
from tests.harness.many_builds import ManyBuilds, make_builds

ENDED, CANCELLED, CLOSED = range(3)
"""Builds of the test, by place."""


async def test_the_reaper_is_paused_planned_and_resumed(stack: LocalStack) -> None:
    settings, client = await new_deployment(
        stack, api_operator_token=SecretStr(OPERATORS), api_token=SecretStr(TOKEN), reaper_spares_seconds=0
    )
    async with running_api(settings, {**stack.environment, "TEMPORAL_NAMESPACE": client.namespace}) as api:
        await _pause_and_resume(api)
        await _plan(api, await make_builds(api.sessions, client, 8))


async def _pause_and_resume(api: RunningApi) -> None:
    reaper = "/v1/ops/reaper"
    assert (await api.http.get(reaper, headers=AS_OPERATOR)).json()["paused"] is None
    why = {"reason": "too little is listed"}
    assert (await api.http.post(f"{reaper}/pause", json=why, headers=AS_OPERATOR)).status_code == 404
    hourly = timedelta(hours=1)
    await schedule_reaper(api.temporal, "no-workers", hourly)
    paused = (await api.http.post(f"{reaper}/pause", json=why, headers=AS_OPERATOR)).json()
    assert paused["paused"] is True
    assert paused["note"].startswith("too little is listed (operator, 20")
    await schedule_reaper(api.temporal, "no-workers", hourly)  # as a worker that starts
    assert (await api.http.get(reaper, headers=AS_OPERATOR)).json()["note"] == paused["note"]
    assert (await api.http.post(f"{reaper}/resume", headers=AS_OPERATOR)).json()["paused"] is False
    async with transaction(api.sessions) as tx:
        actions = list(await tx.session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))
    assert actions == ["reaper.pause", "reaper.resume"], "what Temporal refused is not recorded"


async def _plan(api: RunningApi, many: ManyBuilds) -> None:
    ended, cancelled, closed = (many.ids[each] for each in (ENDED, CANCELLED, CLOSED))
    await BuildReaper(api.sessions, BuildWorkflows(many.client, "no-workers")).look()
    await many.end(1)
    sandboxes = Sandboxes(sandbox_config(api.settings))
    sandbox = await sandboxes.create(str(closed), Role.WORKSPACE)
    await many.client.get_workflow_handle(f"build-{closed}").terminate()
    object_key = f"snapshots/{closed}/{uuid.uuid4()}"
    async with transaction(api.sessions) as tx:
        longer = func.now() - timedelta(minutes=5)
        await tx.session.execute(update(Build).where(Build.id == cancelled).values(cancel_requested_at=longer))
        await tx.session.execute(update(Build).where(Build.id == closed).values(closed_at=longer, status="failed"))
        tx.session.add(DoomedObject(key=object_key, build_id=closed, due_at=longer, why="a test"))
    before = await api.rows()
    plan = (await api.http.get("/v1/ops/reaper/plan", headers=AS_OPERATOR)).json()
    acts = {each["step"]: [(act["act"], act["id"]) for act in each["acts"]] for each in plan["steps"]}
    assert [each["problem"] for each in plan["steps"]] == [None] * 4
    assert acts["builds"] == [("close build", str(ended))]
    assert ("end sandbox", sandbox.id) in acts["sandboxes"]
    assert acts["store"] == [("delete object", object_key)]
    assert acts["nudges"] == [("cancel build", str(cancelled))]
    assert await api.rows() == before
    assert (await api.row(str(ended))).closed_at is None
    assert sandbox.id in {each.id for each in await sandboxes.list_all()}
    await sandboxes.kill(sandbox.id)
    await sandboxes.close()
