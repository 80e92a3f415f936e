"""Makes further Temporal namespaces on the embedded stack."""

import uuid
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from clients.search_attributes import register_search_attributes
from clients.temporal import connect_temporal
from local.stack import LocalStack
from tests.harness.wait import wait_until


async def new_namespace(stack: LocalStack) -> str:
    """Register an empty namespace that workers can use, and return its name."""
    name = f"namespace-{uuid.uuid4().hex[:8]}"
    client = await connect_temporal(stack.environment)
    retention = Duration()
    retention.FromTimedelta(timedelta(days=1))
    request = RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=retention)
    await client.workflow_service.register_namespace(request)
    there = await connect_temporal({**stack.environment, "TEMPORAL_NAMESPACE": name})
    await wait_until(lambda: _serves(there))
    await register_search_attributes(there)
    return name


async def _serves(client: Client) -> bool:
    """Whether the server has heard of its new namespace: it reads the list of them every few seconds."""
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
        await client.count_workflows()
    except RPCError:
        return False
    return True
