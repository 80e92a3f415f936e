"""The dependencies of routes: resources of the process, a transaction, the token and the user."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from api.errors import MEDIA, REFUSED, UNAUTHORIZED, Problem
from api.feeds import Feeds
from api.origins import has_body, is_json
from clients.build_workflows import BuildWorkflows
from db.session import Sessions
from db.transaction import Transaction, request_transaction
from domain import user_id
from services.push import Pushes
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


def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(_resources)]


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

_bearer = HTTPBearer(auto_error=False, description="The API's token, API_TOKEN; or the operators', API_OPERATOR_TOKEN.")

_Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


async def require_token(resources: ResourcesDep, credentials: _Credentials) -> None:
    """Let only holders of one of the API's tokens pass."""
    settings = resources.settings
    assert settings.api_token is not None, "the API does not start without a token"
    if not _is(credentials, settings.api_token) and not _is(credentials, settings.api_operator_token):
        raise Problem(
            UNAUTHORIZED,
            "Send the API's token in the header `Authorization: Bearer …`.",
            headers={"WWW-Authenticate": 'Bearer realm="cofounder"'},
        )


async def _is_operator(resources: ResourcesDep, credentials: _Credentials) -> bool:
    return _is(credentials, resources.settings.api_operator_token)


IsOperator = Annotated[bool, Depends(_is_operator)]
"""Whether the request has the operators' token. Founders see shares of a budget, operators money."""


async def require_operator(resources: ResourcesDep, operator: IsOperator) -> None:
    """Let only operators pass."""
    if resources.settings.api_operator_token is None:
        raise Problem(
            REFUSED,
            "Only operators may do this, and this API has no token for them. Set API_OPERATOR_TOKEN on its machine, or "
            "use `cofounder users` there.",
        )
    if not operator:
        raise Problem(REFUSED, "Only operators may do this. Send the API's API_OPERATOR_TOKEN as the token.")


def _is(credentials: HTTPAuthorizationCredentials | None, token: SecretStr | None) -> bool:
    if credentials is None or token is None:
        return False
    return secrets.compare_digest(credentials.credentials.encode(), token.get_secret_value().encode())


async def require_json(request: Request) -> None:
    """Refuse bodies of other types with a clear problem. Operations without a body ignore one."""
    if request.scope["route"].body_field is None:
        return
    if has_body(request.headers) and not is_json(request.headers):
        raise Problem(MEDIA, "Send the body as JSON, with the header `Content-Type: application/json`.")


async def _current_user_id(
    resources: ResourcesDep,
    x_cofounder_user: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=user_id.MAX_CHARACTERS,
            pattern=user_id.PATTERN,
            description="The user for whom the request is made. The API trusts the token's holder to act for users.",
        ),
    ] = None,
) -> str:
    return x_cofounder_user or resources.settings.api_user


CurrentUserId = Annotated[str, Depends(_current_user_id)]
"""The user of the request. The place where real identities will be checked."""
