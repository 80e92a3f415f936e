"""Who makes a request, and what they may do. The API finds this out once per request; see `api/identity.py`."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What an identity may do. Keys and sign-ins hold a set of these; each route needs one of them."""

    BUILDS_READ = "builds:read"
    """Read projects, builds, feeds, snapshots and previews."""
    BUILDS_WRITE = "builds:write"
    """Change projects and builds: start, steer, cancel, restore, push, open previews."""
    ACCOUNT_READ = "account:read"
    """Read one's account, usage, keys, sign-ins and organisations."""
    ACCOUNT_WRITE = "account:write"
    """Change one's keys, sign-ins, organisations and members."""
    OPS_READ = "ops:read"
    """Read what belongs to any user, money included."""
    OPS_WRITE = "ops:write"
    """Change accounts, switches and limits, and act for any user."""


FOUNDER_SCOPES = frozenset({Scope.BUILDS_READ, Scope.BUILDS_WRITE, Scope.ACCOUNT_READ, Scope.ACCOUNT_WRITE})
"""All that a founder may do."""

OPERATOR_SCOPES = frozenset(Scope)
"""All that an operator may do."""


class How(StrEnum):
    """By what a request was identified."""

    API_TOKEN = "api_token"
    OPERATOR_TOKEN = "operator_token"
    API_KEY = "api_key"
    SIGN_IN = "sign_in"
    JWT = "jwt"
    COMMAND_LINE = "cli"
    """A command that works on the database itself, without a request."""


class Role(StrEnum):
    """What a member may do in an organisation."""

    OWNER = "owner"
    """Change members, and all that a member may do."""
    MEMBER = "member"
    """Change projects and builds."""
    VIEWER = "viewer"
    """Read."""


class Right(StrEnum):
    """What a user wants to do with a project or its builds."""

    READ = "read"
    CHANGE = "change"


CHANGING_ROLES = frozenset({Role.OWNER, Role.MEMBER})
"""Roles that may change an organisation's projects and builds."""


@dataclass(frozen=True)
class Identity:
    """Who makes a request.

    - `user_id`: the user for whom the request is made.
    - `actor`: who makes it: the same user, or `operator` if the operators' token acts for a user.
    - `credential_id`: the id of the key or sign-in, for the audit and for limits; never a secret.
    """

    user_id: str
    scopes: frozenset[Scope]
    how: How
    actor: str
    credential_id: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether money is shown, and other users' rows can be read."""
        return Scope.OPS_READ in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether the identity has the scope."""
        return scope in self.scopes
