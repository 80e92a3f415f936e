"""Sends spans to OTEL_EXPORTER_OTLP_ENDPOINT, with the ids that they are to have."""

import httpx2
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind

from observing.traces import FORCED_IDS, Attributes, current_context, span


class _Ids(RandomIdGenerator):
    """Random ids, unless the span is to have others."""

    def generate_span_id(self) -> int:
        forced = FORCED_IDS.get()
        return super().generate_span_id() if forced is None else forced.span_id

    def generate_trace_id(self) -> int:
        forced = FORCED_IDS.get()
        return super().generate_trace_id() if forced is None else forced.trace_id


def open_exporter(service: str, version: str) -> TracerProvider:
    """Make this process's spans go to the receiver. The caller shuts it down."""
    resource = Resource.create({"service.version": version}).merge(Resource.create())
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource, id_generator=_Ids())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _trace_requests()
    return provider


def _trace_requests() -> None:
    """Give each HTTP request inside a span one of its own: method, server and status.

    The model's SDK uses this transport. That of sandboxes has another; their calls are spans of activities.
    """
    send = httpx2.AsyncHTTPTransport.handle_async_request

    async def traced(self: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        if not current_context().is_valid:
            return await send(self, request)
        attributes: Attributes = {
            "http.request.method": request.method,
            "server.address": request.url.host,
            "server.port": request.url.port or (443 if request.url.scheme == "https" else 80),
        }
        with span(request.method, SpanKind.CLIENT, attributes) as made:
            response = await send(self, request)
            made.set_attribute("http.response.status_code", response.status_code)
            return response

    httpx2.AsyncHTTPTransport.handle_async_request = traced  # type: ignore[method-assign]
