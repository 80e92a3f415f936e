"""Connecting to Temporal, wherever `temporalio.envconfig` says that it is."""

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.service import RPCError, RPCStatusCode

from domain.errors import Misconfigured
from domain.names import REAPER_ID, REAPER_WORKFLOW, SEARCH_ATTRIBUTES


class CompactPayloadConverter(PydanticPayloadConverter):
    """Pydantic JSON that leaves out unset fields: a turn's share of history is bytes that somebody pays for."""

    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


DATA_CONVERTER = DataConverter(payload_converter_class=CompactPayloadConverter)
"""For every client, worker and replayer; all must use the same."""


async def connect_temporal(environment: Mapping[str, str] | None = None, *, lazy: bool = False) -> Client:
    """A client from TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS… or a profile.

    Args:
        environment: read these variables instead of the process's.
        lazy: connect at the first call; for the API, which must come up without a server.

    Raises:
        Misconfigured: the server can't be reached or the configuration can't be read.
    """
    config = temporal_config(environment)
    address = config.get("target_host")
    try:
        return await Client.connect(**config, data_converter=DATA_CONVERTER, lazy=lazy)
    except RuntimeError as error:
        raise Misconfigured(
            f"Temporal does not answer at {address}. Start it (`cofounder local temporal`), or set TEMPORAL_ADDRESS "
            f"to where it is. ({error})"
        ) from error


def temporal_config(environment: Mapping[str, str] | None = None) -> ClientConnectConfig:
    """Where Temporal is, from the environment and the profile, without asking it.

    Raises:
        Misconfigured: the configuration can't be read; says why.
    """
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=environment)
    except (RuntimeError, ValueError, OSError) as error:
        raise Misconfigured(
            f"Temporal's configuration can't be read: {error}. Correct TEMPORAL_PROFILE, the file that "
            "TEMPORAL_CONFIG_FILE names, or the other TEMPORAL_ variables."
        ) from error
    address = config["target_host"] = config.get("target_host") or "localhost:7233"
    if not _has_host_and_port(address):
        raise Misconfigured(f"TEMPORAL_ADDRESS is {address}, which is not of the form host:port. Correct it.")
    return config


def _has_host_and_port(address: str) -> bool:
    try:
        parts = urlsplit(f"//{address}")
        return bool(parts.hostname and parts.port) and parts.netloc == address and " " not in address
    except ValueError:
        return False


async def register_search_attributes(client: Client) -> None:
    """Register the program's search attributes where they are missing. Starting a build with an unknown one fails.

    Raises:
        Misconfigured: they are missing and this client may not register them; names the command that does.
    """
    operator, namespace = client.operator_service, client.namespace
    try:
        listed = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=namespace))
        missing = [name for name in SEARCH_ATTRIBUTES if name not in listed.custom_attributes]
        if missing:
            await operator.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=namespace,
                    search_attributes=dict.fromkeys(missing, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD),
                )
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Misconfigured(
                f"Temporal has no namespace {namespace}. Set TEMPORAL_NAMESPACE to one that is there, or make it: "
                f"temporal operator namespace create --namespace {namespace}"
            ) from error
        command = "temporal operator search-attribute create --namespace " + namespace
        flags = " ".join(f"--name {name} --type Keyword" for name in SEARCH_ATTRIBUTES)
        raise Misconfigured(
            f"The search attributes could not be registered in the namespace {namespace} ({error.message}). Ask "
            f"whoever administers Temporal to run: {command} {flags}"
        ) from error


async def schedule_reaper(client: Client, task_queue: str, every: timedelta) -> None:
    """Create the reaper's schedule, or bring it up to date.

    Raises:
        Misconfigured: this client may not, or Temporal has gone away.
    """
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(REAPER_WORKFLOW, id=REAPER_ID, task_queue=task_queue),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    try:
        await client.create_schedule(REAPER_ID, schedule)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(REAPER_ID).update(lambda _: ScheduleUpdate(schedule=schedule))
    except RPCError as error:
        raise Misconfigured(
            f"The schedule {REAPER_ID} could not be made in Temporal's namespace {client.namespace} ({error.message}). "
            "Check that Temporal runs and that its key may write there."
        ) from error
