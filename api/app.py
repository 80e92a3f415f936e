"""The application: routes, error handlers, limits. The entry point opens its resources and passes them in."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp

from api import (
    bulk_schemas,
    certificate_schemas,
    change_schemas,
    codec_schemas,
    conversation_schemas,
    erasure_schemas,
    export_schemas,
    file_schemas,
    identity_schemas,
    ops_schemas,
    project_schemas,
    reaper_schemas,
    schemas,
    switch_schemas,
    webhook_schemas,
)
from api.access_log import AccessLog
from api.body_limit import BodyLimit
from api.deps import Resources, for_operators, identified, limited, recorded, require_json
from api.errors import add_error_handlers
from api.gateway.previews import PreviewHosts
from api.hosts import HostCheck
from api.operation_ids import operation_id
from api.request_ids import RequestIds
from api.responses import event_schemas, kinds_table, past_event_kinds, problems, share_problems
from api.routes import (
    account,
    audit,
    builds,
    certificates,
    codec,
    conversation,
    docs,
    erasures,
    events,
    exports,
    files,
    health,
    interview_questions,
    keys,
    me,
    ops,
    ops_bulk,
    ops_erasures,
    ops_reaper,
    ops_switches,
    organisations,
    pages,
    phases,
    preview_entry,
    preview_links,
    previews,
    projects,
    provider_sign_ins,
    pushes,
    secrets,
    sign_ins,
    steering,
    usage,
    webhooks,
    workspaces,
)
from api.schemas import examples_of
from api.security_headers import SecurityHeaders
from api.temporal_ui import TemporalUi

BODY_MAX_BYTES = 256 * 1024

_MODELS = {
    name: model
    for module in (
        *(schemas, identity_schemas, conversation_schemas, file_schemas, change_schemas, project_schemas),
        *(ops_schemas, bulk_schemas, reaper_schemas, switch_schemas, webhook_schemas, codec_schemas, erasure_schemas),
        *(certificate_schemas, export_schemas),
    )
    for name, model in vars(module).items()
}
"""The models of bodies, by name."""

_DESCRIPTION = """
Money is in microdollars (1 µ$ = 0.000001 USD), times are UTC. Bodies are JSON of at most 256 KB.

Programs send an API key as `Authorization: Bearer …`. Browsers have the cookie that `POST /v1/sign-ins` sets; it works
only on pages of this address.

Every error is an `application/problem+json` (RFC 9457). Its `type` never changes and its `detail` says what to do. If
the request is not valid, `errors` names each field. Every response has an `X-Request-Id`, which logs and the audit
name. A request too many is answered with 429, and `Retry-After` says in how many seconds to repeat it.

{kinds}
"""


_SENT_AS_THEY_ARE = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    *("text/*", "image/*", "font/*", "application/octet-stream", "application/pdf", "application/x-tar"),
)
"""Media types that are compressed already, or are those of products' files, of which a part can be asked for. The
console's own files are compressed by `api/web.py`."""


class _Api(FastAPI):
    """The application. Describes the events of feeds, and optional parameters without null, which they can't be."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            described = super().openapi()
            operations = [operation for path in described["paths"].values() for operation in path.values()]
            for parameter in (each for operation in operations for each in operation.get("parameters", ())):
                schema = parameter["schema"]
                if (kinds := schema.pop("anyOf", None)) is not None:
                    [kind] = [kind for kind in kinds if kind != {"type": "null"}]
                    schema.update(kind)
            described["components"]["schemas"] |= event_schemas()
            described["components"]["schemas"]["EventOut"]["oneOf"] = past_event_kinds()
            share_problems(described)
            for name, schema in described["components"]["schemas"].items():
                if "examples" in schema:
                    schema["examples"] = examples_of(_MODELS[name])  # FastAPI drops nulls
        assert self.openapi_schema is not None, "made above"
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        # Not `add_middleware`: the answer to an error in the program is made outside of that.
        hosts = HostCheck(TemporalUi(super().build_middleware_stack()))
        return PreviewHosts(RequestIds(AccessLog(SecurityHeaders(hosts))))


def create_app(open_resources: AbstractAsyncContextManager[Resources]) -> FastAPI:
    """The application. Opens its resources at start-up and closes them at shutdown."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources as resources:
            app.state.resources = resources
            resources.feeds.start()
            resources.account_feeds.start()
            try:
                yield
            finally:
                await resources.account_feeds.stop()
                await resources.feeds.stop()

    app = _Api(
        title="Cofounder",
        version="1",
        summary="A founder's idea goes in; a running, tested MVP comes out.",
        description=_DESCRIPTION.format(kinds=kinds_table()),
        lifespan=lifespan,
        responses=problems(500),
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        docs_url=None,  # of FastAPI's own pages each takes a script from another origin
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=BODY_MAX_BYTES)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5, exclude_content_types=_SENT_AS_THEY_ARE)
    add_error_handlers(app)
    app.include_router(health.router)
    app.include_router(pages.router)
    app.include_router(provider_sign_ins.router)
    app.include_router(
        sign_ins.open_router, prefix="/v1", dependencies=[Depends(require_json)], responses=problems(401, 421, 429, 503)
    )
    app.include_router(certificates.open_router, prefix="/v1", responses=problems(421, 429, 503))
    app.include_router(docs.router)
    app.include_router(preview_entry.router)
    v1 = APIRouter(
        prefix="/v1",
        dependencies=[identified, limited, recorded, Depends(require_json)],
        responses=problems(401, 403, 421, 429, 503),
    )
    building = (
        projects,
        interview_questions,
        secrets,
        builds,
        conversation,
        steering,
        events,
        previews,
        preview_links,
        workspaces,
        files,
        phases,
        pushes,
    )
    of_users = (usage, account, organisations, me, keys, sign_ins, webhooks, erasures, certificates, exports)
    for module in (*building, *of_users):
        v1.include_router(module.router)
    app.include_router(v1)
    # For everyone else nothing is there, so that is decided before the body's type is.
    of_operators = APIRouter(
        prefix="/v1",
        dependencies=[identified, limited, for_operators, recorded, Depends(require_json)],
        responses=problems(401, 403, 404, 421, 429, 503),
    )
    for module in (audit, codec, ops, ops_bulk, ops_erasures, ops_reaper, ops_switches):
        of_operators.include_router(module.router)
    app.include_router(of_operators)
    app.router.default = pages.UnknownAddress(app.router.default)
    return app
