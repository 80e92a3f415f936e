"""Checks that the database answers, is migrated, and that every model of its plans has a price."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

import db
from checks.check import CheckContext, CheckResult, fail, ok, warn
from db.dependencies import count_waiting_builds, dependencies_not_up
from db.schema import models_of_plans, read_schema
from domain.errors import UnknownModel
from domain.model_choice import ModelChoice, check_choice

_MIGRATE = "Run: cofounder migrate"


async def check_database(context: CheckContext) -> CheckResult:
    """Check the PostgreSQL at DATABASE_URL."""
    settings = context.settings
    url = make_url(settings.database_url)
    where = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database}"
    try:
        async with context.database() as tx:
            schema = await read_schema(tx)
            revision = schema.revision
            head, known = _revisions()
            if revision is None:
                return fail(f"the database {where} has no tables yet", _MIGRATE)
            if revision not in known:
                return warn(
                    f"the database {where} is at {revision}, which this version does not know",
                    "Run the newer version that migrated it.",
                )
            if revision != head:
                return fail(f"the database {where} is at migration {revision}, but this version needs {head}", _MIGRATE)
            plans = await models_of_plans(tx)
    except (OSError, SQLAlchemyError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "Start one (`cofounder up` or `cofounder local postgres`), or correct DATABASE_URL."
        return fail(f"can't use a PostgreSQL at {where} ({cause})", remedy)
    for plan, models in plans:
        for model in models.values():
            try:
                check_choice(ModelChoice.parse(model), settings.model_prices, "the default")
            except UnknownModel as error:
                return fail(f"the plan {plan} names a model without a price", str(error))
    return ok(f"PostgreSQL {schema.server_version} at {where}, at migration {revision}, {len(plans)} plans")


async def check_outages(context: CheckContext) -> CheckResult:
    """Check which dependencies are down as far as the workers know, and how many builds wait for one."""
    async with context.rows() as tx:
        rows = await dependencies_not_up(tx)
        waiting = {each.dependency: each.builds for each in await count_waiting_builds(tx)}
    away = [f"the {row.name} is {row.state.replace('_', ' ')} since {row.since:%Y-%m-%d %H:%M} UTC" for row in rows]
    waits = [f"{count} waiting for the {name}" for name, count in waiting.items()]
    if not away and not waits:
        return ok("every dependency answers, and no build waits for one")
    builds = f"builds: {', '.join(waits)}" if waits else "no build waits"
    return warn("; ".join([*away, builds]), "The builds continue by themselves. Errors: cofounder ops fleet")


def _revisions() -> tuple[str | None, set[str]]:
    """This version's newest migration, and the set of all of them."""
    config = Config()
    config.set_main_option("script_location", str(Path(str(db.__file__)).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    return scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}
