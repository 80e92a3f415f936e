"""Checks that the database gives as many connections as all processes together may open."""

from sqlalchemy.exc import SQLAlchemyError

from cli.doctor.check import CheckResult, CheckSkipped, DoctorContext, fail, ok
from db.formats import connection_use
from db.session import make_engine, make_sessions
from db.transaction import transaction


async def check_connections(context: DoctorContext) -> CheckResult:
    """Add up the connections of the workers and APIs that run, and compare them with what PostgreSQL gives."""
    engine = make_engine(context.settings.database_url, pool_size=1)
    try:
        async with transaction(make_sessions(engine)) as tx:
            use = await connection_use(tx)
    except (OSError, SQLAlchemyError):
        raise CheckSkipped("skipped, since the database can't be used") from None
    finally:
        await engine.dispose()
    detail = f"{use.processes} processes may open {use.wanted} connections, of {use.given} that PostgreSQL gives"
    if use.wanted > use.given:
        return fail(
            detail,
            "Lower DATABASE_CONNECTIONS of the workers or APIs, raise max_connections of PostgreSQL, or put a pooler "
            "in front of it.",
        )
    return ok(detail)
