"""Checks that every kind of work has a worker."""

from checks.check import CheckContext, CheckResult, fail, ok
from db.formats import workers_by_role
from domain.worker_roles import needed_roles, queue_of


async def check_roles(context: CheckContext) -> CheckResult:
    """Check that a worker runs for each role whose work has a task queue of its own."""
    settings = context.settings
    roles = needed_roles(settings.separate_roles)
    if len(roles) == 1:
        return ok("all work is on one task queue")
    async with context.rows() as tx:
        workers = await workers_by_role(tx)
    if missing := [role for role in roles if not workers.get(role)]:
        queues = " and ".join(queue_of(settings.temporal_task_queue, role) for role in missing)
        return fail(
            f"no worker polls {queues}, or it was not seen in the last two minutes; builds wait there",
            f"Start a worker with WORKER_ROLES={','.join(missing)}, or without; builds go on by themselves.",
        )
    return ok(", ".join(f"{role}: {workers[role]}" for role in roles))
