"""`cofounder doctor` shows which dependencies are down, and how many builds wait."""

from datetime import UTC, datetime

from checks.check import CheckContext
from checks.database import check_outages
from db.builds import BuildRequest, insert_build
from db.dependencies import report_down
from db.projects import create_project
from db.session import make_engine, make_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.status import Dependency, Status
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.worker import settings_of


async def test_what_is_down_and_how_many_builds_wait(stack: LocalStack) -> None:
    url = await new_database(stack)
    context = CheckContext(settings_of(stack, database_url=url), None)
    assert (await check_outages(context)).state == "ok"
    engine = make_engine(url, pool_size=1)
    async with transaction(make_sessions(engine)) as tx:
        await report_down(tx, Dependency.STORE, "no answer", datetime.now(UTC))
        await ensure_user(tx, "ada")
        project = await create_project(tx, "ada", "Test", None, None)
        build = await insert_build(tx, BuildRequest(project.id, "ada", "Test it."))
        assert build is not None
        build.status, build.dependency = Status.WAITING, Dependency.STORE
    await engine.dispose()
    result = await check_outages(context)
    assert result.state == "warn"
    assert "the store is down since" in result.detail
    assert "builds: 1 waiting for the store" in result.detail
