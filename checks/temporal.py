"""Checks that Temporal answers and has what builds need: search attributes, the reaper's schedule, a worker."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from checks.check import CheckContext, CheckResult, fail, ok, warn
from clients.payload_codec import EncryptingCodec
from clients.search_attributes import find_search_attributes
from clients.temporal import ask, workers_on
from db.payload_keys import used_keys
from db.reaper import read_alerts
from domain.names import REAPER_ID, SEARCH_ATTRIBUTES
from domain.payload_keys import PayloadKeys, lost_key

_RPC_TIMEOUT = timedelta(seconds=8)


async def check_temporal(context: CheckContext) -> CheckResult:
    """Check the server and its namespace."""
    client = await context.connect()
    address = client.service_client.config.target_host
    namespace = client.namespace
    try:
        request = DescribeNamespaceRequest(namespace=namespace)
        await ask(lambda: client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return fail(
                f"Temporal at {address} has no namespace {namespace}",
                "Set TEMPORAL_NAMESPACE to an existing one, or create it: temporal operator namespace create "
                f"--namespace {namespace}",
            )
        if error.status not in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED):
            return fail(f"Temporal at {address} does not serve the namespace {namespace} ({error.message})")
        # Some keys may use a namespace but not describe it.
        return await _check_use(client, str(address))
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=_RPC_TIMEOUT)
    return ok(f"Temporal {info.server_version} at {address}, namespace {namespace}")


async def _check_use(client: Client, address: str) -> CheckResult:
    try:
        await client.count_workflows(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        return fail(
            f"Temporal at {address} refuses access to the namespace {client.namespace} ({error.message})",
            "Set TEMPORAL_API_KEY or the TLS certificate to one that may use it.",
        )
    return ok(f"Temporal at {address}, namespace {client.namespace}")


async def check_payloads(context: CheckContext) -> CheckResult:
    """Check that PAYLOAD_KEY has the keys with which builds have written to Temporal."""
    codec = (await context.temporal()).data_converter.payload_codec
    keys = codec.keys if isinstance(codec, EncryptingCodec) else PayloadKeys()
    async with context.rows() as tx:
        used = await used_keys(tx)
    if (problem := lost_key(keys, used)) is not None:
        return fail(problem)
    if keys.writes is not None:
        return ok(f"Temporal gets what it stores of builds encrypted, with the key {keys.writes}")
    if used:
        return warn(
            f"Temporal gets what it stores of builds as plain text; {', '.join(used)} can still be read",
            "Remove `plain` from the front of PAYLOAD_KEY to encrypt.",
        )
    return ok("Temporal gets what it stores of builds as plain text")


async def check_search_attributes(context: CheckContext) -> CheckResult:
    """Check the search attributes. Builds can't start without them; workers register them if permitted."""
    attributes = await find_search_attributes(await context.temporal())
    problem = attributes.problem()
    if problem is None:
        return ok(f"all {len(SEARCH_ATTRIBUTES)} are registered")
    if attributes.mistyped or not attributes.may_register:
        return fail(problem)
    return warn(
        f"missing: {', '.join(attributes.missing)}",
        f"Start a worker, which registers them, or run: {attributes.command}",
    )


async def check_reaper(context: CheckContext) -> CheckResult:
    """Check the schedule of the reaper, which repairs what a crash left between the database and Temporal."""
    client = await context.temporal()
    try:
        description = await client.get_schedule_handle(REAPER_ID).describe(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return warn(f"there is no schedule {REAPER_ID}", "Start a worker, which creates it: python -m worker")
    if description.schedule.state.paused:
        return fail(
            f"the schedule {REAPER_ID} is paused, so builds that a crash left behind are neither started nor closed",
            f"Run: temporal schedule toggle --schedule-id {REAPER_ID} --unpause --reason 'on again'",
        )
    if alerts := await _alerts(context):
        return fail("the reaper needs an operator", " ".join(alerts))
    if not description.info.recent_actions:
        return ok(f"the schedule {REAPER_ID} exists and has not run yet")
    age = datetime.now(UTC) - description.info.recent_actions[-1].started_at
    every = context.settings.reaper_seconds
    if age.total_seconds() > 10 * every + 60:
        return warn(
            f"it last ran {age.total_seconds() / 60:.0f} minutes ago, but should run every {every} seconds",
            f"Find out why: temporal schedule describe --schedule-id {REAPER_ID}",
        )
    return ok(f"runs every {every} seconds, last {max(0, age.total_seconds()):.0f} seconds ago")


async def _alerts(context: CheckContext) -> Sequence[str]:
    """What an operator must look at; nothing if the database cannot be read, which is a check of its own."""
    try:
        async with context.database() as tx:
            return await read_alerts(tx)
    except (OSError, SQLAlchemyError):
        return []


async def check_worker(context: CheckContext) -> CheckResult:
    """Check that a worker polls the builds' task queue."""
    client, queue = await context.temporal(), context.settings.temporal_task_queue
    workers = await workers_on(client, queue)
    if not workers:
        return fail(
            f"no worker polls the task queue {queue}, so builds stay queued",
            "Start a worker (`python -m worker` or `cofounder up`), or set TEMPORAL_TASK_QUEUE to the workers' queue.",
        )
    return ok(f"{len(workers)} on the task queue {queue}: {', '.join(workers[:3])}{', …' if workers[3:] else ''}")
