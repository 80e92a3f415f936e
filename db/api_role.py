"""The API's role in the database: what it may do, and how `migrate` makes it.

Row-level security decides which rows the role sees; see migration 0029. Here stands which tables it may use at all. A
new table that the API uses needs a line here, and policies in its migration if it holds founders' rows.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.errors import sqlstate
from db.models import Base

API_ROLE = "cofounder_api"
"""Roles belong to a whole PostgreSQL server, so all databases of one server share it. Privileges are each database's
own."""

_READ = ("SELECT",)
_ADD = ("SELECT", "INSERT")
_CHANGE = ("SELECT", "INSERT", "UPDATE")
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")

PRIVILEGES: dict[str, Sequence[str]] = {}
"""What the API's role may do, by table. It has no privileges on a table that is not here."""

_SCRAM_ROUNDS = 4096

_SAME_NAME = {"42710", "23505"}
"""PostgreSQL's codes for a role that another transaction has just made."""

_FORBIDDEN = "42501"


@dataclass(frozen=True)
class ApiRole:
    """What `migrate` could not do for the API's role. `statements` is the SQL with which someone else can do it."""

    statements: Sequence[str] = ()


def make_api_role(connection: Connection, password: str | None = None) -> ApiRole:
    """Make the API's role unless it exists, and give it just its privileges, in the transaction of the connection.

    Args:
        password: the role's password; None leaves it as it is. The server gets a verifier, so that no log has it.

    Returns:
        What the connection's user may not do; nothing is wrong with the rest.
    """
    refused = [] if _role_exists(connection) else _try(connection, f"create role {API_ROLE} login")
    if password is not None:
        refused += _try(connection, f"alter role {API_ROLE} with login password '{scram_verifier(password)}'")
    if refused:
        # The verifier is as good as the password for whoever reads it on a screen.
        return ApiRole([statement for statement in refused if "password" not in statement])
    for statement in _differences(connection):
        connection.execute(text(statement))
    return ApiRole()


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What PostgreSQL stores of a password (RFC 5803). ASCII passwords only: others would have to be normalized."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${_SCRAM_ROUNDS}:{parts[0]}${parts[1]}:{parts[2]}"
