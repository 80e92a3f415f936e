"""The API's resources and settings, for `python -m api`, the container and `cofounder up`.

Another server can serve `api.main:application` too, but it answers a malformed HTTP request in its own words and not as
a problem; see `api.protocol`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from temporalio.service import RPCError

from api.account_feeds import AccountFeeds
from api.app import create_app
from api.deps import Resources
from api.feeds import Feeds
from api.gateway.previews import open_previews
from api.hosts import is_loopback
from api.limits import Limits
from api.nudges import FeedNudges
from api.origins import host_of
from api.web import read_bundle
from checks.check import CheckContext, RunningApi
from checks.run import RecentChecks
from clients.build_workflows import BuildWorkflows
from clients.fleet_workflows import FleetWorkflows
from clients.object_store import ObjectStore, store_config
from clients.oidc.provider import IdentityProvider, IdentityProviders
from clients.sandbox import Sandboxes, sandbox_config
from clients.temporal import connect_temporal, temporal_config
from db.session import API_POOL, Access, make_engine, make_sessions, open_sessions, pool_of
from domain.errors import LostPayloadKey, Misconfigured, NoRowSecurity, WrongNamespace, WrongVersion
from domain.preview_address import is_related
from observing.traces import exported_traces
from services.deployment import check_deployment
from services.permits import Permits
from services.presence import check_formats
from services.push import Pushes, PushPolicy
from services.row_security import RowSecurity, check_row_security
from settings import Settings, load_settings

_CHECK_SECONDS = 10.0
"""Start without having checked the servers if they don't answer within this many seconds."""

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_resources(settings: Settings, environment: Mapping[str, str] | None = None) -> AsyncIterator[Resources]:
    """Open everything that the routes use. Connects when first used, so the API starts before the servers behind it.

    Args:
        environment: where Temporal is; the process's environment by default.
    """
    engine = make_engine(settings.database_url, pool_of(settings.database_connections, API_POOL))
    sessions = make_sessions(engine)
    try:
        client = await connect_temporal(environment, lazy=True)
        limits = Limits(sessions, settings.request_limits)
        providers = IdentityProviders([IdentityProvider(issuer) for issuer in settings.issuers])
        async with (
            exported_traces("cofounder-api"),
            ObjectStore(store_config(settings)) as store,
            _open_sandboxes(settings) as sandboxes,
            open_previews(settings, sessions, limits, providers) as previews,
        ):
            workflows = BuildWorkflows(client, settings.temporal_task_queue)
            every = sessions.acting(Access.everything())
            nudges = FeedNudges(sessions)
            permits = Permits(every, workflows, settings.sandbox_quota, settings.sandbox_starts_per_second)
            yield Resources(
                settings=settings,
                sessions=sessions,
                workflows=workflows,
                fleet=FleetWorkflows(client),
                sandboxes=sandboxes,
                feeds=Feeds(every, nudges),
                account_feeds=AccountFeeds(every, nudges),
                store=store,
                row_security=RowSecurity(sessions, settings.api_user),
                pushes=Pushes(sessions, store, sandboxes, permits, _push_policy(settings)),
                previews=previews,
                limits=limits,
                checks=RecentChecks(CheckContext(settings, api=RunningApi(sessions, client))),
                providers=providers,
                bundle=read_bundle(settings),
            )
    finally:
        await sessions.nudges.close()
        await engine.dispose()


@asynccontextmanager
async def _open_sandboxes(settings: Settings) -> AsyncIterator[Sandboxes | None]:
    """The sandbox service, which only pushes need; None if this process has no key, or a setting is wrong."""
    try:
        sandboxes = Sandboxes(sandbox_config(settings))
    except Misconfigured as error:
        _log.warning("the API can't push code to git servers", reason=error)
        yield None
        return
    try:
        yield sandboxes
    finally:
        await sandboxes.close()


def _push_policy(settings: Settings) -> PushPolicy:
    return PushPolicy(
        seconds=settings.push_seconds,
        max_bytes=settings.push_max_megabytes * 10**6,
        private_hosts=tuple(settings.push_private_hosts or ()),
    )


def application(settings: Settings | None = None) -> FastAPI:
    """The application. Reads the settings from the environment if none are passed.

    Raises:
        Misconfigured: a setting is wrong, or there is no token.
    """
    settings = settings or load_settings()
    if settings.api_token is None or not settings.api_token.get_secret_value():
        raise Misconfigured("API_TOKEN is not set, so anyone could start builds. Set it to a long random text.")
    if settings.api_operator_token == settings.api_token:
        raise Misconfigured(
            "API_OPERATOR_TOKEN equals API_TOKEN, so every founder would be an operator. Change one of them."
        )
    if is_related(settings.preview_url, settings.public_url):
        raise Misconfigured(
            f"PREVIEW_URL and PUBLIC_URL share a domain, so a product could set cookies for {settings.public_url}. "
            "Give previews a domain of their own (docs/previews.md)."
        )
    if host_of(settings.preview_url).endswith(".localhost") and not is_loopback(host_of(settings.public_url)):
        _log.warning("previews open on this machine only; set PREVIEW_URL", preview_url=settings.preview_url)
    temporal_config()  # check it now: here an error is one sentence, at start-up it would be a traceback
    return create_app(open_resources(settings))


async def check_servers(settings: Settings, environment: Mapping[str, str] | None = None) -> None:
    """Refuse to serve a database that this program can't read, whose builds are in another Temporal namespace, or where
    nothing but the queries keeps users apart.

    The API starts before its servers, so one that does not answer is not an error. Then the first start of a build
    checks this again.

    Args:
        environment: where Temporal is; the process's environment by default.

    Raises:
        WrongNamespace, WrongVersion, NoRowSecurity, LostPayloadKey: says what to do.
    """
    try:
        async with asyncio.timeout(_CHECK_SECONDS), open_sessions(settings.database_url, pool_size=1) as sessions:
            await check_formats(sessions)
            await check_row_security(sessions, settings.api_user, has_issuers=bool(settings.issuers))
            client = await connect_temporal(environment, lazy=True)
            await check_deployment(sessions, BuildWorkflows(client, settings.temporal_task_queue))
    except (WrongNamespace, WrongVersion, NoRowSecurity, LostPayloadKey):
        raise
    except (Misconfigured, RPCError, TimeoutError) as error:
        _log.warning("the API starts without its servers", reason=error)
