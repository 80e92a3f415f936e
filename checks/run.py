"""Runs checks concurrently, each with its own deadline. Those of servers are the same for everyone who makes them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from checks.check import Check, CheckContext, CheckResult, CheckSkipped, fail, warn
from checks.connections import check_connections
from checks.database import check_database, check_outages
from checks.permits import check_permits
from checks.roles import check_roles
from checks.services import check_model, check_object_store, check_previews, check_sandboxes
from checks.temporal import check_payloads, check_reaper, check_search_attributes, check_temporal, check_worker
from domain.errors import CofounderError
from domain.redaction import redact

DEADLINE_SECONDS = 15.0
"""Fail a check after this many seconds."""

KEPT_SECONDS = 10.0
"""The operators' pages show the same results for this many seconds, however many operators look."""

NamedCheck = tuple[str, Check]

SERVER_CHECKS: Sequence[NamedCheck] = (
    ("settings", CheckContext.check_settings),
    ("database", check_database),
    ("connections", check_connections),
    ("temporal", check_temporal),
    ("payloads", check_payloads),
    ("attributes", check_search_attributes),
    ("reaper", check_reaper),
    ("worker", check_worker),
    ("roles", check_roles),
    ("store", check_object_store),
    ("outages", check_outages),
    ("model", check_model),
    ("sandboxes", check_sandboxes),
    ("permits", check_permits),
    ("previews", check_previews),
)
"""The checks that concern servers. `cofounder doctor` makes them on its machine, the operators' pages on the API's."""


async def run_checks(
    context: CheckContext,
    checks: Sequence[NamedCheck],
    report: Callable[[CheckResult], object] | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> list[CheckResult]:
    """Run checks. Calls `report` with each result in the order of `checks`, as early as possible."""
    tasks = [asyncio.create_task(_run_check(name, check, context, deadline_seconds)) for name, check in checks]
    results = []
    for task in tasks:
        results.append(await task)
        if report is not None:
            report(results[-1])
    return results


async def _run_check(name: str, check: Check, context: CheckContext, deadline_seconds: float) -> CheckResult:
    try:
        async with asyncio.timeout(deadline_seconds):
            result = await check(context)
    except TimeoutError:
        result = fail(
            f"no answer within {deadline_seconds:.0f} seconds", "Check whether the server hangs, and the network."
        )
    except CheckSkipped as reason:
        result = warn(str(reason))
    except CofounderError as error:
        result = fail(str(error))
    except Exception as error:  # a check that crashes must not end the others
        result = fail(f"the check failed ({type(error).__name__}: {error})")
    secrets = context.secrets()
    remedy = None if result.remedy is None else redact(result.remedy, secrets)
    return replace(result, name=name, detail=redact(result.detail, secrets), remedy=remedy)


class RecentChecks:
    """The results of the checks of servers, made again once they are older than `KEPT_SECONDS`."""

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        self._making = asyncio.Lock()
        self._made_at: float | None = None
        self._results: Sequence[CheckResult] = ()

    async def results(self) -> Sequence[CheckResult]:
        """The results. Waits for checks that are being made."""
        async with self._making:
            if self._made_at is None or time.monotonic() - self._made_at > KEPT_SECONDS:
                self._results = await run_checks(self._context, SERVER_CHECKS)
                self._made_at = time.monotonic()
            return self._results
