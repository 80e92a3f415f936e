"""Checks that sandboxes have the programs that products need, by starting one and asking it."""

import asyncio
import subprocess
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from checks.check import CheckContext, CheckResult, CheckSkipped, fail, ok, warn
from clients.cancellation import run_to_completion
from clients.loopback import is_loopback
from clients.sandbox import Role, Sandbox, Sandboxes, sandbox_config
from domain.errors import CofounderError, Misconfigured, SandboxRefused
from domain.sandbox_tools import PROBE_SECONDS, Lack, how_to_install, lacks, probe_command, versions
from local.sandbox.confinement import find_node, run_confined

_TTL_SECONDS = 120
"""A sandbox that could not be killed pauses after this time."""

_LEFT_AFTER = timedelta(minutes=10)
"""A sandbox of a check that is older than this was left by one that was killed."""


async def check_tools(context: CheckContext) -> CheckResult:
    """Check what sandboxes on this machine have, also if no server runs.

    One in E2B's cloud costs money, and is asked by `doctor --paid`.
    """
    settings = context.settings
    if settings.e2b_api_key is None:
        return _result(await asyncio.to_thread(_what_this_machine_lacks))
    if not is_loopback(settings.e2b_api_url):
        return warn(
            f"not asked what the template {settings.e2b_template} lacks: a sandbox in the cloud costs money",
            "Ask with `cofounder doctor --paid --cap 0.10`, which costs less than a cent for this question.",
        )
    sandboxes = Sandboxes(replace(sandbox_config(settings), ttl_seconds=_TTL_SECONDS))
    run_id = str(uuid.uuid4())
    try:
        lacking = await what_is_lacking(await sandboxes.create(run_id, Role.DOCTOR))
    except SandboxRefused as error:
        return warn(
            f"no sandbox could be asked, since as many run as may: {error}", "Try again when a build has ended."
        )
    except Misconfigured as error:
        return fail(str(error))
    except CofounderError as error:
        raise CheckSkipped(f"skipped, since a sandbox could not be asked: {error}") from error
    finally:
        await run_to_completion(_end(sandboxes, run_id))
    return _result(lacking)


async def what_is_lacking(sandbox: Sandbox) -> list[Lack]:
    """Ask a sandbox for every tool.

    Raises:
        SandboxUnavailable: no answer, or not a useful one.
    """
    done = await sandbox.run(probe_command(), timeout_seconds=2 * PROBE_SECONDS, cwd="/")
    return lacks(versions(done.stdout))


def describe(lacking: list[Lack]) -> str:
    """What is lacking, in one line."""
    return "; ".join(each.text() for each in lacking)


def any_essential(lacking: list[Lack]) -> bool:
    """Whether no build works without what is missing."""
    return any(each.tool.essential and each.found is None for each in lacking)


def _result(lacking: list[Lack]) -> CheckResult:
    if not lacking:
        return ok("a sandbox on this machine has all that products need")
    detail = f"sandboxes on this machine lack something: {describe(lacking)}"
    remedy = f"On Debian or Ubuntu: {how_to_install(lacking)}. Then restart the local sandbox server."
    return fail(detail, remedy) if any_essential(lacking) else warn(detail, remedy)


def _what_this_machine_lacks() -> list[Lack]:
    """Ask a sandbox that no server knows.

    Raises:
        CheckSkipped: no sandbox can run here; the check `bubblewrap` says why.
    """
    try:
        done = run_confined(["bash", "-c", probe_command()], 2 * PROBE_SECONDS, find_node())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckSkipped(f"skipped, since no sandbox runs on this machine: {error}") from error
    if done.returncode != 0:
        raise CheckSkipped("skipped, since no sandbox runs on this machine")
    return lacks(versions(done.stdout))


async def _end(sandboxes: Sandboxes, run_id: str) -> None:
    """Kill this check's sandbox, also one whose creation was not answered, and those of checks that were killed."""
    try:
        mine = await sandboxes.list_of(run_id, Role.DOCTOR)
        left = datetime.now(UTC) - _LEFT_AFTER
        old = [each for each in await sandboxes.list_all() if each.role == Role.DOCTOR and each.started_at < left]
        await asyncio.gather(*(sandboxes.kill(each.id) for each in (*mine, *old)))
    except CofounderError:
        pass  # it pauses by itself, and a later check ends it
    finally:
        await sandboxes.close()
