"""Whether this machine has what workers and the embedded stack need: Chromium, bubblewrap, room on the disk."""

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from cli.doctor.check import CheckResult, DoctorContext, fail, ok, warn
from clients.browser import find_chromium
from local.sandbox.confinement import probe

_GIB = 1024**3
_WARN_BYTES, _FAIL_BYTES = 2 * _GIB, _GIB // 4


async def check_chromium(context: DoctorContext) -> CheckResult:
    """What takes the screenshots of products."""
    path = find_chromium(context.settings.chromium_path)
    version = await _version_of(str(path))
    if version is None:
        return fail(
            f"{path} does not say its version", "Install Chromium anew, or set CHROMIUM_PATH to one that starts."
        )
    return ok(f"{version} at {path}")


async def check_bubblewrap(context: DoctorContext) -> CheckResult:
    """What confines sandboxes on this machine; sandboxes of a cloud do without."""
    found = await asyncio.to_thread(probe)  # takes 3 seconds at the most
    if found.ok:
        return ok(f"{await _version_of('bwrap')} confines a program")
    url = context.settings.e2b_api_url
    needed = url is not None and urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    told, remedy = " ".join(found.reason.split()), " ".join(found.remedy.split())
    if needed:
        return fail(told, remedy)
    return warn(f"{told} Only sandboxes on this machine need it.", remedy)


async def check_disk(context: DoctorContext) -> CheckResult:
    """Room for the data of the embedded stack, and for temporary files."""
    rooms = {place: shutil.disk_usage(place).free for place in (str(Path.cwd()), tempfile.gettempdir())}
    place, least = min(rooms.items(), key=lambda each: each[1])
    told = f"{least / _GIB:.1f} GiB free at {place}"
    if least < _FAIL_BYTES:
        return fail(told, "Make room there, or set TMPDIR to a directory that has some.")
    if least < _WARN_BYTES:
        return warn(told, "Builds on this machine may run out of it; 2 GiB are comfortable.")
    return ok(told)


async def _version_of(program: str) -> str | None:
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        said, _ = await process.communicate()
    except OSError:
        return None
    finally:
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[0].strip() if process.returncode == 0 and lines else None
