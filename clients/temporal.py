"""Connects to Temporal with the configuration that `temporalio.envconfig` reads."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.failure.v1 import Failure
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from clients.payload_codec import EncryptingCodec
from domain.deployment import Namespace
from domain.errors import Misconfigured
from domain.payload_keys import PayloadKeys, parse_payload_keys

_RPC_TIMEOUT = timedelta(seconds=8)

_OWN_FRAMES = 4
"""Frames of our own code in a failure's stack trace in history. Those outside of them say how activities are called."""

_INNERMOST_FRAMES = 2
"""Frames of a library in which the error was raised."""

_PROGRAM = str(Path(__file__).resolve().parent.parent)
_OWN_PACKAGES = ("activities", "clients", "db", "domain", "observing", "services", "workflows")
"""Directories of the program: a wheel puts them beside those of libraries."""


class CompactPayloadConverter(PydanticPayloadConverter):
    """Pydantic JSON without unset fields, because every byte that a turn adds to history costs money."""

    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


class BriefFailureConverter(DefaultFailureConverter):
    """Failures with short stack traces, as history has one for each time that a step fails. The log's are longer."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """As the SDK does, with the frames that say where it was. The exception keeps all."""
        whole = exception.__traceback__
        exception.__traceback__ = _brief(whole)
        try:
            super().to_failure(exception, payload_converter, failure)
        finally:
            exception.__traceback__ = whole


class EncodedFailureConverter(BriefFailureConverter):
    """The same, with message and stack trace where a codec encrypts them."""

    def __init__(self) -> None:
        super().__init__(encode_common_attributes=True)


def _brief(trace: TracebackType | None) -> TracebackType | None:
    """The frames of our own code, the innermost few of them, and the innermost frames of all."""
    frames: list[TracebackType] = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    own = [number for number, each in enumerate(frames) if _is_own(each.tb_frame.f_code.co_filename)]
    kept = sorted({*own[-_OWN_FRAMES:], *range(len(frames))[-_INNERMOST_FRAMES:]})
    brief = None
    for each in (frames[number] for number in reversed(kept)):
        brief = TracebackType(brief, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return brief


def _is_own(path: str) -> bool:
    directory, _, rest = path.removeprefix(_PROGRAM + os.sep).partition(os.sep)
    return bool(rest) and path.startswith(_PROGRAM) and directory in _OWN_PACKAGES


DATA_CONVERTER = DataConverter(
    payload_converter_class=CompactPayloadConverter, failure_converter_class=BriefFailureConverter
)
"""The converter of every client, worker and replayer that has no PAYLOAD_KEY; all must use the same."""


def data_converter(keys: PayloadKeys) -> DataConverter:
    """The converter that reads with these keys. If one of them encrypts, error texts are encrypted, too."""
    if not keys.keys:
        return DATA_CONVERTER
    converter = replace(DATA_CONVERTER, payload_codec=EncryptingCodec(keys))
    if keys.writes is None:
        return converter
    return replace(converter, failure_converter_class=EncodedFailureConverter)


def payload_keys(environment: Mapping[str, str] | None = None) -> PayloadKeys:
    """Read PAYLOAD_KEY; without it there are no keys.

    Args:
        environment: read this variable instead of the process's.

    Raises:
        Misconfigured: it is wrong; says how.
    """
    text = (os.environ if environment is None else environment).get("PAYLOAD_KEY")
    try:
        return parse_payload_keys(text) if text else PayloadKeys()
    except ValueError as error:
        raise Misconfigured(f"PAYLOAD_KEY: {error}.") from None


async def connect_temporal(
    environment: Mapping[str, str] | None = None, *, lazy: bool = False, runtime: Runtime | None = None
) -> Client:
    """Make a client from TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS… or a profile, and from
    PAYLOAD_KEY.

    Args:
        environment: read these variables instead of the process's.
        lazy: connect at the first call. For the API, which must start without a Temporal server.
        runtime: of the SDK; None for its default, which counts nothing.

    Raises:
        Misconfigured: the server can't be reached or the configuration can't be read.
    """
    config = temporal_config(environment)
    address = config.get("target_host")
    converter = data_converter(payload_keys(environment))
    try:
        return await Client.connect(**config, data_converter=converter, lazy=lazy, runtime=runtime)
    except RuntimeError as error:
        if config.get("tls"):
            todo = (
                "Check TEMPORAL_ADDRESS, and the key or certificate (TEMPORAL_API_KEY, TEMPORAL_TLS_CLIENT_CERT_PATH)"
            )
        else:
            todo = "Start it (`cofounder local temporal`), or set TEMPORAL_ADDRESS to its address"
        raise Misconfigured(f"Temporal does not answer at {address}. {todo}. ({error})") from error


def temporal_config(environment: Mapping[str, str] | None = None) -> ClientConnectConfig:
    """Temporal's connection settings from the environment and the profile. Does not connect.

    Raises:
        Misconfigured: the configuration can't be read; says why.
    """
    # An empty variable counts as unset, like all others: an empty key would switch TLS on.
    variables = {name: value for name, value in (os.environ if environment is None else environment).items() if value}
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=variables)
    except (RuntimeError, ValueError, OSError) as error:
        raise Misconfigured(
            f"Temporal's configuration can't be read: {error}. Correct TEMPORAL_PROFILE, the file that "
            "TEMPORAL_CONFIG_FILE names, or the other TEMPORAL_ variables."
        ) from error
    address = config["target_host"] = config.get("target_host") or "localhost:7233"
    if not _has_host_and_port(address):
        raise Misconfigured(f"TEMPORAL_ADDRESS is {address}, which is not of the form host:port. Correct it.")
    key, tls = config.get("api_key", ""), config.get("tls")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise Misconfigured(
            "TEMPORAL_API_KEY has a line break, a space at an end or a character that is not ASCII; copy it again."
        )
    if isinstance(tls, TLSConfig) and (tls.client_cert is None) != (tls.client_private_key is None):
        raise Misconfigured("Temporal's client certificate and its key (TEMPORAL_TLS_CLIENT_…) go together. Set both.")
    return config


def _has_host_and_port(address: str) -> bool:
    try:
        parts = urlsplit(f"//{address}")
        return bool(parts.hostname and parts.port) and parts.netloc == address and " " not in address
    except ValueError:
        return False


_HIDDEN = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)
"""Answers to a client that may use a namespace but not describe it."""


Answer = TypeVar("Answer")


async def ask(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Make a call that the SDK does not try again, and make it again if its connection was closed just then.

    A server closes each connection after some minutes. What the SDK was about to send on it is cancelled.

    Raises:
        RPCError: Temporal does not answer, or refuses.
    """
    try:
        return await call()
    except RPCError as error:
        if error.status is not RPCStatusCode.CANCELLED:
            raise
        return await call()


async def describe_namespace(client: Client) -> Namespace:
    """Ask Temporal for the id of the client's namespace.

    Raises:
        Misconfigured: there is no such namespace, or Temporal does not answer.
    """
    address = client.service_client.config.target_host
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        answer = await ask(lambda: client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT))
    except (RPCError, RuntimeError) as error:  # a lazy client raises RuntimeError if it can't connect
        status = error.status if isinstance(error, RPCError) else None
        if status in _HIDDEN:
            return Namespace(client.namespace, address, None)
        if status is RPCStatusCode.NOT_FOUND:
            raise Misconfigured(
                f"Temporal at {address} has no namespace {client.namespace}. Set TEMPORAL_NAMESPACE to an existing "
                f"one, or create it: temporal operator namespace create --namespace {client.namespace}"
            ) from error
        raise Misconfigured(f"Temporal does not answer at {address}. Check TEMPORAL_ADDRESS. ({error})") from error
    return Namespace(client.namespace, address, answer.namespace_info.id or None)


async def workers_on(client: Client, task_queue: str) -> list[str]:
    """Identities of the workers that poll the queue for workflow tasks, or did so in the last minutes; sorted.

    Raises:
        RPCError: Temporal does not answer, or this client may not ask.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    answer = await ask(lambda: client.workflow_service.describe_task_queue(request, timeout=_RPC_TIMEOUT))
    return sorted({poller.identity for poller in answer.pollers})
