"""Answer every error of the API as `application/problem+json` (RFC 9457), with a stable `type`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from domain.errors import (
    AccountSuspended,
    AlreadyAnswered,
    BuildClosed,
    CofounderError,
    Conflict,
    CredentialRefused,
    DependencyUnavailable,
    InvalidInput,
    KeyReused,
    KillSwitchOn,
    LastOwner,
    MessageRead,
    NeedsPerson,
    NoRowSecurity,
    NoSecretsKey,
    NotFound,
    OpenBuildExists,
    ProjectArchived,
    PushFailed,
    Refused,
    RestorePending,
    SignInLinkRefused,
    SnapshotNotStored,
    StoreUnavailable,
    TooManyUnread,
)

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A kind of problem. Programs compare `uri`; it never changes."""

    slug: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """The problem's `type`."""
        return f"urn:cofounder:problem:{self.slug}"


UNAUTHORIZED = Kind("unauthorized", 401, "Valid token required")
SIGN_IN_LINK = Kind("sign-in-link", 401, "Sign-in link not valid")
SUSPENDED = Kind("account-suspended", 403, "Account suspended")
REFUSED = Kind("refused", 403, "Not allowed")
INSUFFICIENT_SCOPE = Kind("insufficient-scope", 403, "Insufficient scope")
NO_SECRETS_KEY = Kind("no-secrets-key", 403, "Secrets not set up")
CROSS_SITE = Kind("cross-site", 403, "Request of another site")
NOT_FOUND = Kind("not-found", 404, "Not found")
CONFLICT = Kind("conflict", 409, "Conflicts with the current state")
OPEN_BUILD = Kind("open-build", 409, "Project has an open build")
PROJECT_ARCHIVED = Kind("project-archived", 409, "Project archived")
KEY_REUSED = Kind("idempotency-key-reused", 409, "Idempotency key used for another request")
VERSION_CONFLICT = Kind("version-conflict", 409, "Changed by someone else")
SNAPSHOT_NOT_STORED = Kind("snapshot-not-stored", 409, "Snapshot not stored")
BUILD_CLOSED = Kind("build-closed", 409, "Build closed")
BUILD_NOT_READY = Kind("build-not-ready", 409, "Build not ready")
MESSAGE_READ = Kind("message-read", 409, "Message already read")
ALREADY_ANSWERED = Kind("already-answered", 409, "Question already answered differently")
RESTORE_WAITS = Kind("restore-waits", 409, "Another restore is pending")
LAST_OWNER = Kind("last-owner", 409, "Organisation needs an owner")
PUSH_FAILED = Kind("push-failed", 409, "Push failed")
TOO_MANY_UNREAD = Kind("too-many-unread", 409, "Too many unread messages")
TOO_LARGE = Kind("body-too-large", 413, "Request body too large")
MALFORMED = Kind("malformed-json", 400, "Not valid JSON")
MALFORMED_HTTP = Kind("malformed-http", 400, "Not a valid HTTP request")
FOREIGN_HOST = Kind("foreign-host", 421, "Host not served here")
INVALID = Kind("invalid-request", 422, "Invalid request")
TOO_MANY_REQUESTS = Kind("too-many-requests", 429, "Too many requests")
KILL_SWITCH = Kind("autonomous-agent-off", 503, "Builds are switched off")
SINGLE_USER = Kind("single-user", 503, "Served for one user only")
UNAVAILABLE = Kind("unavailable", 503, "A server behind the API is unavailable")
INTERNAL = Kind("internal", 500, "Internal error")
METHOD = Kind("method-not-allowed", 405, "Method not allowed")
MEDIA = Kind("unsupported-media-type", 415, "Unsupported media type")

AUTHENTICATE: Mapping[str, str] = {"WWW-Authenticate": 'Bearer realm="cofounder"'}
"""The header of a problem of identity."""

KINDS = [kind for kind in list(vars().values()) if isinstance(kind, Kind)]
"""All of them, for the description of the API."""

_KIND_OF: Sequence[tuple[type[CofounderError], Kind]] = (  # the first that fits, so subclasses come first
    (SignInLinkRefused, SIGN_IN_LINK),
    (CredentialRefused, UNAUTHORIZED),
    (AccountSuspended, SUSPENDED),
    (KillSwitchOn, KILL_SWITCH),
    (NoSecretsKey, NO_SECRETS_KEY),
    (Refused, REFUSED),
    (NotFound, NOT_FOUND),
    (KeyReused, KEY_REUSED),
    (OpenBuildExists, OPEN_BUILD),
    (ProjectArchived, PROJECT_ARCHIVED),
    (BuildClosed, BUILD_CLOSED),
    (TooManyUnread, TOO_MANY_UNREAD),
    (MessageRead, MESSAGE_READ),
    (AlreadyAnswered, ALREADY_ANSWERED),
    (RestorePending, RESTORE_WAITS),
    (SnapshotNotStored, SNAPSHOT_NOT_STORED),
    (LastOwner, LAST_OWNER),
    (PushFailed, PUSH_FAILED),
    (Conflict, CONFLICT),
    (InvalidInput, INVALID),
    (NoRowSecurity, SINGLE_USER),
    (DependencyUnavailable, UNAVAILABLE),
    (StoreUnavailable, UNAVAILABLE),
    (NeedsPerson, UNAVAILABLE),
)
_KIND_OF_STATUS = {kind.status: kind for kind in (UNAUTHORIZED, NOT_FOUND, METHOD, TOO_LARGE, MALFORMED, INVALID)}


class Problem(Exception):
    """A problem of HTTP itself or of one route; use cases raise domain errors instead.

    `detail` says what to do; `more` has further members for programs.
    """

    def __init__(
        self, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, more: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.more = more or {}


def problem_response(
    kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, more: dict[str, Any] | None = None
) -> Response:
    """The problem as a response."""
    body = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail, **(more or {})}
    # ASCII only: a field's name may contain a lone surrogate, which UTF-8 can't encode.
    return Response(json.dumps(body), kind.status, headers, MEDIA_TYPE)


def _field_name(location: Sequence[int | str]) -> str:
    """`brief.features[0]` for `("body", "brief", "features", 0)`."""
    name = ""
    for part in location[1:] or location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error.kind, error.detail, headers=error.headers, more=error.more)


async def _on_cofounder_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CofounderError)
    kind = next((kind for error_type, kind in _KIND_OF if isinstance(error, error_type)), None)
    if kind is None:
        return await _on_anything_else(request, error)
    more: dict[str, Any] = dict(error.details)
    if isinstance(error, InvalidInput) and error.field:
        more["errors"] = [{"field": error.field, "message": str(error)}]
    headers: Mapping[str, str] | None = None
    if isinstance(error, DependencyUnavailable) and error.retry_after_seconds is not None:
        headers = {"Retry-After": str(error.retry_after_seconds)}
    if kind is UNAUTHORIZED:
        headers = AUTHENTICATE
    return problem_response(kind, str(error), headers=headers, more=more)


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = error.errors()
    if any(each["type"] == "json_invalid" for each in mistakes):
        reason = mistakes[0].get("ctx", {}).get("error", "")
        return problem_response(MALFORMED, f"The body could not be read as JSON: {reason}. Send a JSON object.")
    errors = [
        {"field": _field_name(each["loc"]), "message": each["msg"].removeprefix("Value error, ")} for each in mistakes
    ]
    errors = [each for number, each in enumerate(errors) if each not in errors[:number]]  # a shared dependency's
    listed = "; ".join(f"{each['field']}: {each['message']}" for each in errors[:5])
    return problem_response(
        INVALID, f"Correct these fields and send the request again. {listed}", more={"errors": errors}
    )


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    kind = _KIND_OF_STATUS.get(status, Kind(status.phrase.lower().replace(" ", "-"), status, status.phrase))
    detail = {
        400: "The body could not be read as JSON. Send a JSON object in UTF-8, not too deeply nested.",
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not allowed at {request.url.path}.",
        413: "The request's body is larger than this API accepts. Shorten it.",
    }.get(status, str(error.detail))
    headers = dict(error.headers or {})
    if status == 405:
        headers["Allow"] = ", ".join(_methods_at(request))
    return problem_response(kind, detail, headers=headers)


def _methods_at(request: Request) -> list[str]:
    """The methods of the request's path. The router names only those of the first route that matches."""
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        pattern = re.sub(r"\\{[^/]*?\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, request.url.path):
            methods |= {method.upper() for method in operations}
    return sorted(methods) or ["GET", "HEAD"]  # the pages that describe the API


async def _on_anything_else(request: Request, error: Exception) -> Response:
    log.error(
        "request failed",
        method=request.method,
        request_id=request.state.request_id,
        exc_info=error,
    )
    return problem_response(
        INTERNAL, "An error in the program stopped this request. It was logged. Tell the operator if it occurs again."
    )


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(CofounderError, _on_cofounder_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_anything_else)
