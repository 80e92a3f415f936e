"""The dependencies of routes: who makes the request and what they may do, resources, a transaction."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import INSUFFICIENT_SCOPE, MEDIA, Problem
from api.feeds import Feeds
from api.identity import identify
from api.origins import has_body, is_json
from clients.build_workflows import BuildWorkflows
from db.session import Access, Sessions
from db.transaction import Transaction, request_transaction
from domain import user_id
from domain.identity import FOUNDER_SCOPES, Identity, Scope
from services.push import Pushes
from services.row_security import RowSecurity
from settings import Settings


class ObjectReader(Protocol):
    """What the API needs of the object store."""

    def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """The object's bytes, in pieces."""


@dataclass(frozen=True)
class Resources:
    """What the entry point opens once and closes at the end."""

    settings: Settings
    sessions: Sessions
    workflows: BuildWorkflows
    feeds: Feeds
    store: ObjectReader
    pushes: Pushes
    row_security: RowSecurity


def _process_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ProcessResourcesDep = Annotated[Resources, Depends(_process_resources)]
"""The resources of the process, for routes that anyone may use. Their transactions see no founder's rows."""

_bearer = HTTPBearer(
    auto_error=False, description="An API key; or one of the API's two tokens, API_TOKEN and API_OPERATOR_TOKEN."
)


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
    identity = await identify(request, resources.settings, resources.sessions, token, x_cofounder_user)
    await resources.row_security.require(identity.user_id)
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


@dataclass(frozen=True)
class _Needs:
    """Lets only identities with a scope pass."""

    scope: Scope

    def __call__(self, identity: CurrentIdentity) -> None:
        if not identity.may(self.scope):
            raise Problem(INSUFFICIENT_SCOPE, _without(self.scope), more={"scope": self.scope})


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


def _resources(resources: ProcessResourcesDep, identity: CurrentIdentity) -> Resources:
    access = Access(identity.user_id, every_row=identity.is_operator)
    return replace(resources, sessions=resources.sessions.acting(access))


ResourcesDep = Annotated[Resources, Depends(_resources)]
"""The resources of the process. Transactions of `sessions` see the rows that the identity may see."""


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
        description="Names this request. A repeat with the same key and body returns the same build.",
    ),
]


async def require_json(request: Request) -> None:
    """Refuse bodies of other types with a clear problem. Operations without a body ignore one."""
    if request.scope["route"].body_field is None:
        return
    if has_body(request.headers) and not is_json(request.headers):
        raise Problem(MEDIA, "Send the body as JSON, with the header `Content-Type: application/json`.")
