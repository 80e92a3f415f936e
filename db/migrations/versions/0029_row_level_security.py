"""Row-level security on every table with founders' rows, for the API's database role

A transaction says whose rows it may see with the settings `app.user_id` and `app.every_row`; see `db/session.py`. A
role with the privileges of the tables' owner that sets neither sees every row: workers, the command line and programs
of the previous version do that. Any other role sees nothing then. `db/api_role.py` makes the API's role.
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None
kind = "expand"

FUNCTIONS = (
    """
    create function app_user_id() returns text language sql stable parallel safe
    return nullif(current_setting('app.user_id', true), '')
    """,
    """
    create function app_owns_tables() returns boolean language sql stable parallel safe
    return pg_has_role(current_user, (select relowner from pg_class where oid = 'projects'::regclass), 'usage')
    """,
    """
    create function app_every_row() returns boolean language sql stable parallel safe
    return coalesce(current_setting('app.every_row', true), '') = 'on' or (app_user_id() is null and app_owns_tables())
    """,
    """
    create function app_orgs(at_least text) returns uuid[] language sql stable parallel safe security definer
    begin atomic
        select coalesce(array_agg(org_id), '{}') from memberships
        where user_id = app_user_id()
            and array_position(array['viewer', 'member', 'owner'], role)
                >= array_position(array['viewer', 'member', 'owner'], at_least);
    end
    """,
    """
    create function app_founds(org uuid) returns boolean language sql stable security definer
    begin atomic
        select exists (
            select from organisations where id = org and personal_of is null and xmin = pg_current_xact_id()::xid
        );
    end
    """,
)
"""`app_founds`: whether this transaction has inserted the organisation, whose first owner it may then add. `app_orgs`: the organisations in which the user has at least this role. Both run as the owner, to whom the
policies of the tables that they read show all rows, or the policy of `memberships` would ask for itself.
"""


def _orgs(column: str, least: str) -> str:
    return f"{column} = any ((select app_orgs('{least}'))::uuid[])"


def _of_project(table: str, least: str) -> str:
    """One index lookup a row. Reading, the policy of `projects` does the rest."""
    found = "true" if least == "viewer" else _orgs("projects.org_id", least)
    return f"(select {found} from projects where projects.id = {table}.project_id)"


def _of_build(table: str, least: str) -> str:
    if least == "viewer":
        return f"(select true from builds where builds.id = {table}.build_id)"
    return (
        f"(select {_orgs('projects.org_id', least)} from builds join projects on projects.id = builds.project_id "
        f"where builds.id = {table}.build_id)"
    )


_SELF = "user_id = app_user_id()"
_NOBODY = "false"

OF_PROJECTS = ("artifacts", "project_secrets", "understanding_sessions", "builds")
OF_BUILDS = (
    *("prompts", "turns", "compactions", "messages", "tool_calls", "snapshots", "questions", "founder_messages"),
    *("restores", "gate_runs", "previews", "preview_links", "preview_visits", "permits", "push_permits"),
    *("sandbox_runs", "events", "business_events"),
)
OF_USERS = ("api_keys", "sign_in_codes", "sign_ins")


def _policies() -> dict[str, tuple[str, ...]]:
    """By table, which rows a user may read, insert, leave after an update, and delete, besides `app_every_row`.

    An update may lock whatever may be read, so that the API can say why a viewer can't change it.
    """
    policies = {
        "users": (
            "id = app_user_id() or (select true from memberships where memberships.user_id = users.id limit 1)",
            _NOBODY,
            "id = app_user_id()",
            _NOBODY,
        ),
        "organisations": (
            f"(select app_owns_tables()) or {_orgs('id', 'viewer')}",
            "personal_of is null and app_user_id() is not null",
            _orgs("id", "owner"),
            _orgs("id", "owner"),
        ),
        "memberships": (
            f"(select app_owns_tables()) or {_orgs('org_id', 'viewer')}",
            f"{_orgs('org_id', 'owner')} or ({_SELF} and role = 'owner' and app_founds(org_id))",
            _orgs("org_id", "owner"),
            f"{_orgs('org_id', 'owner')} or {_SELF}",
        ),
        "user_identities": (_SELF, _NOBODY, _NOBODY, _SELF),
        "user_days": (_SELF, _NOBODY, _NOBODY, _NOBODY),
        "top_ups": (_SELF, _NOBODY, _NOBODY, _NOBODY),
        "ledger": (f"{_SELF} or {_of_build('ledger', 'viewer')}", _NOBODY, _NOBODY, _NOBODY),
        "audit": (
            f"actor = app_user_id() or {_SELF} or {_orgs('org_id', 'owner')}",
            "true",
            _NOBODY,
            _NOBODY,
        ),
        "projects": (_orgs("org_id", "viewer"), *[_orgs("org_id", "member")] * 3),
    }
    for table in OF_USERS:
        policies[table] = (_SELF, _SELF, _SELF, _SELF)
    for table in OF_PROJECTS:
        policies[table] = (_of_project(table, "viewer"), *[_of_project(table, "member")] * 3)
    for table in OF_BUILDS:
        policies[table] = (_of_build(table, "viewer"), *[_of_build(table, "member")] * 3)
    # A viewer opens previews, too.
    policies["preview_visits"] = (_of_build("preview_visits", "viewer"),) * 4
    return policies


def upgrade() -> None:
    for function in FUNCTIONS:
        op.execute(function)
    for table, conditions in _policies().items():
        read, insert, update, delete = (f"(select app_every_row()) or ({condition})" for condition in conditions)
        op.execute(f"create policy {table}_select on {table} for select using ({read})")
        op.execute(f"create policy {table}_insert on {table} for insert with check ({insert})")
        op.execute(f"create policy {table}_update on {table} for update using ({read}) with check ({update})")
        op.execute(f"create policy {table}_delete on {table} for delete using ({delete})")
        op.execute(f"alter table {table} enable row level security, force row level security")


def downgrade() -> None:
    for table in _policies():
        for command in ("select", "insert", "update", "delete"):
            op.execute(f"drop policy {table}_{command} on {table}")
        op.execute(f"alter table {table} no force row level security, disable row level security")
    op.execute("drop function app_founds(uuid)")
    op.execute("drop function app_orgs(text)")
    op.execute("drop function app_every_row()")
    op.execute("drop function app_owns_tables()")
    op.execute("drop function app_user_id()")
