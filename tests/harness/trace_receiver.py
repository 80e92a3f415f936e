"""A receiver of OpenTelemetry's protocol over HTTP, which keeps the spans that it gets."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.harness.asgi_server import serving


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived."""

    service: str
    name: str
    trace_id: int
    span_id: int
    parent_id: int
    links: list[tuple[int, int]]
    attributes: dict[str, Any]
    status: int
    """A value of OpenTelemetry's `Status.StatusCode`."""
    texts: list[str]
    """All texts that it has: names and values, also those of its status, events, links and state."""

    @property
    def ids(self) -> tuple[int, int]:
        """Its trace's id and its own."""
        return self.trace_id, self.span_id


@asynccontextmanager
async def trace_receiver() -> AsyncIterator[tuple[str, list[ReceivedSpan]]]:
    """Receive spans; yields the value of OTEL_EXPORTER_OTLP_ENDPOINT, and the list that they are added to."""
    spans: list[ReceivedSpan] = []

    async def receive(request: Request) -> Response:
        message = ExportTraceServiceRequest.FromString(await request.body())
        for resource in message.resource_spans:
            service = next(
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            spans.extend(_received(service, span) for scope in resource.scope_spans for span in scope.spans)
        return Response(media_type="application/x-protobuf")

    async with serving(Starlette(routes=[Route("/v1/traces", receive, methods=["POST"])])) as port:
        yield f"http://127.0.0.1:{port}", spans


def _received(service: str, span: Span) -> ReceivedSpan:
    attributes = {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}
    return ReceivedSpan(
        service,
        span.name,
        int.from_bytes(span.trace_id),
        int.from_bytes(span.span_id),
        int.from_bytes(span.parent_span_id),
        [(int.from_bytes(link.trace_id), int.from_bytes(link.span_id)) for link in span.links],
        attributes,
        span.status.code,
        list(_texts(span)),
    )


def _texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for each in values:
            if isinstance(each, Message):
                yield from _texts(each)
            elif isinstance(each, str):
                yield each
