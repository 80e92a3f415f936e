"""The dependencies of routes: who makes the request and what they may do, resources, a transaction."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol

from fastapi import Depends, Header, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.account_feeds import AccountFeeds
from api.client_address import address_key, client_address
from api.errors import INSUFFICIENT_SCOPE, MEDIA, UNAUTHORIZED, Problem
from api.feeds import Feeds
from api.gateway.previews import Previews
from api.identity import identify
from api.limits import Limits
from api.origins import check_own_page, has_body, is_json
from api.temporal_ui import is_of_temporal_ui
from api.web import Bundle
from checks.run import RecentChecks
from clients.build_workflows import BuildWorkflows
from clients.fleet_workflows import FleetWorkflows
from clients.oidc.provider import IdentityProviders
from clients.sandbox import Sandboxes
from db.session import Access, Sessions
from db.transaction import Transaction, request_transaction
from domain import user_id
from domain.audit import Action, Author
from domain.errors import CredentialRefused
from domain.identity import FOUNDER_SCOPES, How, Identity, Scope
from domain.request_limits import RequestClass
from services.audit import record
from services.push import Pushes
from services.row_security import RowSecurity
from settings import Settings


class ObjectReader(Protocol):
    """What the API needs of the object store."""

    def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """The object's bytes, in pieces."""

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; None if there is no such object."""
        ...


ARCHIVE_SEARCHES = 2
"""So many archives are searched for a file at once in a process. Each takes a thread and a core."""


@dataclass(frozen=True)
class Resources:
    """What the entry point opens once and closes at the end."""

    settings: Settings
    sessions: Sessions
    workflows: BuildWorkflows
    fleet: FleetWorkflows
    feeds: Feeds
    account_feeds: AccountFeeds
    store: ObjectReader
    pushes: Pushes
    sandboxes: Sandboxes | None
    """The sandbox service; None if this process has no key for it."""
    row_security: RowSecurity
    previews: Previews
    limits: Limits
    providers: IdentityProviders
    checks: RecentChecks
    """What the API finds out about the servers behind it, for operators."""
    bundle: Bundle | None
    """The web console; None if it has not been built."""
    archive_searches: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ARCHIVE_SEARCHES))
    """Held while a file is searched for in an archive, which unpacks it."""


def _process_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ProcessResourcesDep = Annotated[Resources, Depends(_process_resources)]
"""The resources of the process, for routes that anyone may use. Their transactions see no founder's rows."""

_bearer = HTTPBearer(
    auto_error=False, description="An API key; or one of the API's two tokens, API_TOKEN and API_OPERATOR_TOKEN."
)


def address_of(request: Request, settings: Settings) -> str:
    """The client's address, as wrong credentials are counted."""
    return address_key(client_address(request.scope, settings.trusted_proxies or ()))


async def _identity(
    request: Request,
    resources: ProcessResourcesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    x_cofounder_user: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=user_id.MAX_CHARACTERS,
            pattern=user_id.PATTERN,
            description="The user for whom an operator makes the request.",
        ),
    ] = None,
) -> Identity:
    token = None if credentials is None else credentials.credentials
    address = address_of(request, resources.settings)
    try:
        identity = await identify(
            request, resources.settings, resources.sessions, resources.providers, token, x_cofounder_user
        )
    except CredentialRefused:
        await resources.limits.note_wrong_credentials(address)
        raise
    except Problem as problem:
        if problem.kind is UNAUTHORIZED and token is not None:
            await resources.limits.note_wrong_credentials(address)
        raise
    if identity.how in (How.API_TOKEN, How.OPERATOR_TOKEN):  # people choose these, so someone may guess them
        resources.limits.check_address(address)
    if identity.how is How.SIGN_IN and not is_of_temporal_ui(request.url.path, request.headers, resources.settings):
        check_own_page(request, resources.settings.public_url)
    request.state.user_id = identity.actor  # for the access log
    return identity


identified = Depends(_identity)
"""A router's dependency: all its routes are for known identities."""

CurrentIdentity = Annotated[Identity, identified]
"""Who makes the request. An unknown one gets a 401."""


def _current_user_id(identity: CurrentIdentity) -> str:
    return identity.user_id


CurrentUserId = Annotated[str, Depends(_current_user_id)]
"""The user for whom the request is made."""


def _is_operator(identity: CurrentIdentity) -> bool:
    return identity.is_operator


IsOperator = Annotated[bool, Depends(_is_operator)]
"""Whether an operator makes the request. Founders see shares of a budget, operators money."""


def _require_operator(identity: CurrentIdentity) -> None:
    if identity.scopes.isdisjoint((Scope.OPS_READ, Scope.OPS_WRITE)):
        raise HTTPException(404)


for_operators = Depends(_require_operator)
"""A router's dependency: for everyone else there is no such address."""


async def check_operator(request: Request) -> None:
    """Find out who makes a request whose body can't be read, before the dependencies have been asked.

    Raises:
        HTTPException: the identity is not an operator's; a 404.
        Problem, CredentialRefused: no one known makes it.
    """
    identity = await _identity(request, _process_resources(request), await _bearer(request))
    _require_operator(identity)


@dataclass(frozen=True)
class _Needs:
    """Lets only identities with a scope pass."""

    scope: Scope

    def __call__(self, identity: CurrentIdentity) -> None:
        require_scope(identity, self.scope)


def require_scope(identity: Identity, scope: Scope) -> None:
    """Refuse an identity without the scope.

    Raises:
        Problem: it does not have it.
    """
    if not identity.may(scope):
        raise Problem(INSUFFICIENT_SCOPE, _without(scope), more={"scope": scope})


def limited_as(identity: Identity) -> str:
    """Whose requests are counted together: a user's, with all their keys; or those with the operators' token."""
    return "the operators' token" if identity.how is How.OPERATOR_TOKEN else identity.actor


async def _limit(request: Request, resources: ProcessResourcesDep, identity: CurrentIdentity) -> None:
    kind = RequestClass.READ if request.method in ("GET", "HEAD") else RequestClass.WRITE
    await resources.limits.take(limited_as(identity), kind)


limited = Depends(_limit)
"""A router's dependency: its routes count as reads and writes of the identity."""


async def _limit_expensive(resources: ProcessResourcesDep, identity: CurrentIdentity) -> None:
    await resources.limits.take(limited_as(identity), RequestClass.EXPENSIVE)


expensive = Depends(_limit_expensive)
"""A route's dependency: it also counts as a request that costs much."""


async def _limit_new_project(resources: ProcessResourcesDep, identity: CurrentIdentity) -> None:
    await resources.limits.take(limited_as(identity), RequestClass.NEW_PROJECT)


new_project = Depends(_limit_new_project)
"""A route's dependency: it makes a project."""


def needs(scope: Scope) -> Any:
    """A route's dependency: only identities with this scope may use the route."""
    return Depends(_Needs(scope))


def scope_needed(dependency: Any) -> Scope | None:
    """The scope that a route's dependency lets pass; None if it is another kind of dependency."""
    return dependency.dependency.scope if isinstance(dependency.dependency, _Needs) else None


def _without(scope: Scope) -> str:
    if scope in FOUNDER_SCOPES:
        return f"This needs the scope {scope}, which your key or sign-in does not have. Use one that has it."
    return (
        "Only operators may do this. Send the API's API_OPERATOR_TOKEN as the token, or use `cofounder users` on its "
        "machine."
    )


def _resources(request: Request, resources: ProcessResourcesDep, identity: CurrentIdentity) -> Resources:
    access = Access(identity.user_id, every_row=identity.is_operator)
    author = Author(
        actor=identity.actor,
        how=identity.how,
        user_id=identity.user_id,
        credential_id=identity.credential_id,
        request_id=request.state.request_id,
        ip=client_address(request.scope, resources.settings.trusted_proxies or ()) or None,
    )
    return replace(resources, sessions=resources.sessions.acting(access, author))


ResourcesDep = Annotated[Resources, Depends(_resources)]
"""The resources of the process. Transactions of `sessions` see the rows that the identity may see."""


async def _record_reading(request: Request, resources: ResourcesDep, identity: CurrentIdentity) -> None:
    is_reading = request.method in ("GET", "HEAD") and "X-Cofounder-User" in request.headers
    if not is_reading or identity.actor == identity.user_id:
        return
    async with request_transaction(resources.sessions) as tx:
        await record(tx, Action.USER_READ, operation=request.scope["route"].name)


recorded = Depends(_record_reading)
"""A router's dependency: the audit says when an operator reads something of a user whom they name."""


async def known_identity(request: Request) -> tuple[Identity, Resources] | None:
    """Who makes a request that needs no credentials, with the resources that are theirs; None if no one known does."""
    process, named_user = _process_resources(request), request.headers.get("X-Cofounder-User")
    if named_user is not None and not user_id.is_user_id(named_user):
        return None
    try:
        identity = await _identity(request, process, await _bearer(request), named_user)
    except (Problem, CredentialRefused):
        return None
    resources = _resources(request, process, identity)
    await _record_reading(request, resources, identity)
    return identity, resources


async def _transaction(resources: ResourcesDep) -> AsyncIterator[Transaction]:
    async with request_transaction(resources.sessions) as tx:
        yield tx


TransactionDep = Annotated[Transaction, Depends(_transaction, scope="function")]
"""One transaction a request. `scope="function"` commits it before the response is sent."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern="^[ -~]+$",
        description="Names this request. A repeat with the same key and body makes nothing a second time.",
    ),
]


async def require_json(request: Request) -> None:
    """Refuse bodies of other types with a clear problem. Operations without a body ignore one."""
    if request.scope["route"].body_field is None:
        return
    if has_body(request.headers) and not is_json(request.headers):
        raise Problem(MEDIA, "Send the body as JSON, with the header `Content-Type: application/json`.")
