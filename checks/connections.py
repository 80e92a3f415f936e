"""Checks that the database gives as many connections as all processes together may open."""

from checks.check import CheckContext, CheckResult, fail, ok
from db.formats import connection_use


async def check_connections(context: CheckContext) -> CheckResult:
    """Add up the connections of the workers and APIs that run, and compare them with what PostgreSQL gives."""
    async with context.rows() as tx:
        use = await connection_use(tx)
    detail = f"{use.processes} processes may open {use.wanted} connections, of {use.given} that PostgreSQL gives"
    if use.wanted > use.given:
        return fail(
            detail,
            "Lower DATABASE_CONNECTIONS of the workers or APIs, raise max_connections of PostgreSQL, or put a pooler "
            "in front of it.",
        )
    return ok(detail)
