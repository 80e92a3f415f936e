"""Checks that this machine has what workers and the embedded stack need: Chromium, bubblewrap, disk space."""

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

from checks.check import CheckContext, CheckResult, fail, ok, warn
from clients.browser import find_chromium
from clients.loopback import is_loopback
from local.sandbox.confinement import probe

_GIB = 1024**3
_WARN_BYTES, _FAIL_BYTES = 2 * _GIB, _GIB // 4


async def check_chromium(context: CheckContext) -> CheckResult:
    """Check the browser that takes screenshots of products."""
    path = find_chromium(context.settings.chromium_path)
    version = await _version_of(str(path))
    if version is None:
        return fail(f"{path} does not say its version", "Reinstall Chromium, or set CHROMIUM_PATH to one that starts.")
    return ok(f"{version} at {path}")


async def check_bubblewrap(context: CheckContext) -> CheckResult:
    """Check the program that confines sandboxes on this machine; cloud sandboxes do not need it."""
    confinement = await asyncio.to_thread(probe)  # takes at most 3 seconds
    if confinement.ok:
        return ok(f"{await _version_of('bwrap')} confines a program")
    url = context.settings.e2b_api_url
    detail, remedy = " ".join(confinement.reason.split()), " ".join(confinement.remedy.split())
    if is_loopback(url):
        return fail(detail, remedy)
    return warn(f"{detail} Only sandboxes on this machine need it.", remedy)


async def check_disk(context: CheckContext) -> CheckResult:
    """Check the disk space for the embedded stack's data and for temporary files."""
    free = {path: shutil.disk_usage(path).free for path in (str(Path.cwd()), tempfile.gettempdir())}
    path, least = min(free.items(), key=lambda each: each[1])
    detail = f"{least / _GIB:.1f} GiB free at {path}"
    if least < _FAIL_BYTES:
        return fail(detail, "Free some space there, or set TMPDIR to a directory with more space.")
    if least < _WARN_BYTES:
        return warn(detail, "Builds on this machine may run out of disk space. Keep 2 GiB free.")
    return ok(detail)


async def _version_of(program: str) -> str | None:
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await process.communicate()
    except OSError:
        return None
    finally:
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[0].strip() if process.returncode == 0 and lines else None
