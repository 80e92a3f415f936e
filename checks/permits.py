"""Checks how many permits to have sandboxes running are held, and how many builds wait for one."""

from checks.check import CheckContext, CheckResult, ok, warn
from db.permits import count_permits


async def check_permits(context: CheckContext) -> CheckResult:
    """Count the permits in the database, and compare them with SANDBOX_QUOTA."""
    settings = context.settings
    async with context.rows() as tx:
        counts = await count_permits(tx)
    limit = f"of {settings.sandbox_quota} permits" if settings.sandbox_quota else "permits, without a limit,"
    detail = f"{counts.held} {limit} are held ({counts.previews} by previews), and {counts.queued} are waited for"
    if settings.sandbox_quota and counts.queued and counts.held >= settings.sandbox_quota:
        return warn(detail, "They go on by themselves. If your E2B plan allows more, raise SANDBOX_QUOTA.")
    if not settings.sandbox_quota and settings.e2b_api_url is None:
        return warn(detail, "Set SANDBOX_QUOTA below the number of sandboxes that your E2B plan runs at once.")
    return ok(detail)
