"""The application: routes, error handlers, limits. Its services are built by the entry point and passed in."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI

from api.body_limit import BodyLimit
from api.deps import Services, require_token
from api.errors import add_error_handlers
from api.responses import problems
from api.routes import builds, events, health, previews, projects, usage, workspaces

BODY_MAX_BYTES = 256 * 1024


def create_app(open_services: AbstractAsyncContextManager[Services]) -> FastAPI:
    """The application. Its services are opened at start-up, and closed at shutdown."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services as services:
            app.state.services = services
            services.feeds.start()
            try:
                yield
            finally:
                await services.feeds.stop()

    app = FastAPI(
        title="Cofounder",
        version="1",
        summary="A founder's idea goes in; a running, tested MVP comes out.",
        description="Errors are problem+json (RFC 9457) with a stable `type`. Money is in microdollars.",
        lifespan=lifespan,
        responses=problems(500),
    )
    app.add_middleware(BodyLimit, max_bytes=BODY_MAX_BYTES)
    add_error_handlers(app)
    app.include_router(health.router)
    v1 = APIRouter(prefix="/v1", dependencies=[Depends(require_token)], responses=problems(401, 503))
    for module in (projects, builds, events, previews, workspaces, usage):
        v1.include_router(module.router)
    app.include_router(v1)
    return app
