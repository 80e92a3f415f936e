"""The API's role in the database: what it may do, and how `migrate` makes it.

Row-level security decides which rows the role sees; see migration 0029. Here stands which tables it may use at all. A
new table that the API uses needs a line here, and policies in its migration if it holds founders' rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, select, text
from sqlalchemy.exc import DBAPIError

from db.errors import sqlstate
from db.models import User
from db.transaction import Transaction
from domain.api_role import API_ROLE, scram_verifier

_READ = ("SELECT",)
_ADD = ("SELECT", "INSERT")
_CHANGE = ("SELECT", "INSERT", "UPDATE")
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")

PRIVILEGES: Mapping[str, Sequence[str]] = {
    "plan_tiers": _READ,
    "users": _CHANGE,
    "user_days": _CHANGE,
    "fleet_days": _CHANGE,  # a trigger of `user_days` counts in it
    "limits": _CHANGE,
    "switches": _ALL,
    "top_ups": _ADD,
    "organisations": _ALL,
    "memberships": _ALL,
    "user_identities": (*_ADD, "DELETE"),
    "api_keys": _CHANGE,
    "sign_in_codes": _ALL,
    "sign_in_attempts": (*_ADD, "DELETE"),
    "sign_ins": _ALL,
    "audit": _ADD,
    "request_buckets": _ALL,
    "erasures": _CHANGE,
    "certificates": _READ,
    "exports": _CHANGE,
    "projects": _CHANGE,
    "artifacts": _CHANGE,
    "project_secrets": _ALL,
    "understanding_sessions": _ADD,
    "builds": _CHANGE,
    "sandbox_runs": _READ,
    "ledger": _READ,
    "turns": _READ,
    "messages": _READ,
    "tool_calls": _READ,
    "snapshots": _READ,
    "phase_diffs": _READ,
    "build_archives": _READ,
    "questions": _READ,
    "founder_messages": _CHANGE,
    "restores": _ADD,
    "gate_runs": _READ,
    "previews": _READ,
    "preview_links": _CHANGE,
    "preview_visits": _ALL,
    "permits": _READ,
    "push_permits": (*_ADD, "DELETE"),
    "sandbox_fleet": ("SELECT", "UPDATE"),
    "events": _ADD,
    "webhooks": _ALL,
    "webhook_deliveries": _CHANGE,
    "bulk_runs": _CHANGE,
    "bulk_run_builds": _CHANGE,
    "deployment": _CHANGE,
    "reaper_steps": ("SELECT", "DELETE"),  # deleted when the database is bound to its namespace
    "doomed_objects": _READ,
    "payload_keys": _CHANGE,
    "dependencies": _READ,
    "model_buckets": _READ,
    "alembic_version": _READ,
    "formats": _READ,
    "processes": _ALL,
}
"""What the API's role may do, by table. It has no privileges on a table that is not here."""

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
    if not _role_exists(connection) and not _try(connection, f"create role {API_ROLE} login"):
        return ApiRole([f"create role {API_ROLE} login password '…'"])
    refused = []
    verifier = None if password is None else scram_verifier(password)
    if verifier is not None and not _try(connection, f"alter role {API_ROLE} with login password '{verifier}'"):
        refused.append(f"alter role {API_ROLE} with login password '…'")
    for statement in _differences(connection):
        connection.execute(text(statement))
    return ApiRole(refused)


def _role_exists(connection: Connection) -> bool:
    found = connection.execute(text("select 1 from pg_roles where rolname = :role"), {"role": API_ROLE})
    return found.first() is not None


def _try(connection: Connection, statement: str) -> bool:
    """Run the statement. Return False if the connection's user may not."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(statement)  # `text` takes colons for parameters
    except DBAPIError as error:
        # Another database's migration may have made the role just now.
        if sqlstate(error) not in (*_SAME_NAME, _FORBIDDEN):
            raise
        return sqlstate(error) != _FORBIDDEN
    return True


_GRANTED = text(
    """
    select relname, acl.privilege_type from pg_class cross join lateral aclexplode(relacl) as acl
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')
        and acl.grantee = cast(:role as regrole)
    """
)


def _differences(connection: Connection) -> list[str]:
    """The statements that leave the role just its privileges. None if it has them: each would replan what runs."""
    granted = {(table, privilege) for table, privilege in connection.execute(_GRANTED, {"role": API_ROLE})}
    wanted = {(table, privilege) for table, privileges in PRIVILEGES.items() for privilege in privileges}
    return [
        *(f"revoke {privilege} on {table} from {API_ROLE}" for table, privilege in sorted(granted - wanted)),
        *(f"grant {privilege} on {table} to {API_ROLE}" for table, privilege in sorted(wanted - granted)),
    ]


# ---- what a process asks about its own role

_SEES_EVERY_ROW = text(
    """
    select role.rolsuper or role.rolbypassrls or pg_has_role(role.oid, of_projects.relowner, 'usage')
    from pg_roles as role, pg_class as of_projects
    where role.rolname = current_user and of_projects.oid = 'projects'::regclass
    """
)
"""The owner of tables with forced row-level security is subject to it, and can switch it off."""


async def sees_every_row(tx: Transaction) -> bool:
    """Whether the transaction's role is not bound by row-level security: it owns the tables, or may bypass it."""
    return bool((await tx.execute(_SEES_EVERY_ROW, {})).scalar())


async def has_other_users(tx: Transaction, user_id: str) -> bool:
    """Whether there is another user than this one."""
    return bool(await tx.session.scalar(select(exists().where(User.id != user_id))))
