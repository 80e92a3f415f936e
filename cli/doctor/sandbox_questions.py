"""What `cofounder doctor --paid` asks of the sandbox service. Every sandbox that it creates is killed at the end."""

import asyncio
import contextlib
import json
import shlex
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

from cli.doctor.paid import NotAsked, Purse, Question, Verdict, cannot_ask, held, not_held
from cli.doctor.tools import describe, what_is_lacking
from clients.cancellation import run_to_completion
from clients.sandbox import Role, Sandbox, SandboxConfig, Sandboxes
from domain.errors import CofounderError, SandboxGone

MICRODOLLARS_A_SECOND = 150
"""At least what the largest sandbox (8 CPUs, 8 GB) costs a second: https://e2b.dev/pricing, November 2026."""

TTL_SECONDS = 120
"""A sandbox that could not be killed pauses after this time."""

QUESTION_SECONDS = 120
"""Give up a question after this time."""

_WORST = MICRODOLLARS_A_SECOND * (QUESTION_SECONDS + 2 * TTL_SECONDS)
_PORT = 8765
_FORBIDDEN = "example.com"
_COMMAND_SECONDS = 45.0

_REACH = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        urllib.request.urlopen(url, timeout=10)
        print("yes")
    except urllib.error.HTTPError:
        print("yes")
    except Exception as error:
        print("no", error)
"""


class SandboxQuestions:
    """The questions about the sandbox service. Use it as a context, which ends what they have created."""

    def __init__(self, config: SandboxConfig, purse: Purse) -> None:
        self._sandboxes = Sandboxes(replace(config, ttl_seconds=TTL_SECONDS))
        self._hosts = config.egress_hosts
        self._purse = purse
        self._run_id = str(uuid.uuid4())
        """The `build` in the metadata of the sandboxes; no build has it."""
        self._problem: str | None = None
        """Why the sandboxes could not be ended the last time."""

    async def __aenter__(self) -> "SandboxQuestions":
        return self

    async def __aexit__(self, *_: object) -> None:
        await run_to_completion(self._end_all())
        await self._sandboxes.close()

    def all(self) -> list[Question]:
        """The questions."""
        return [
            Question("template", "The template has bash, git, Python 3 and /home/user", self.template),
            Question("tools", "The template has what products of all kinds need", self.tools),
            Question("metadata", "A sandbox is found by its metadata, also while it is paused", self.metadata),
            Question("pause", "A pause keeps files and processes, and connecting resumes it", self.pause),
            Question("egress", "Sandboxes reach the hosts of SANDBOX_EGRESS_HOSTS and no others", self.egress),
            Question("private port", "Only requests with a sandbox's token reach a server in it", self.private_port),
            Question("gone", "A sandbox that was killed is reported as gone", self.gone),
            Question("cleanup", "Nothing that these questions created is left", self.cleanup),
            *_not_askable(),
        ]

    async def template(self) -> Verdict:
        """Whether the template has what builds need."""
        async with self._sandbox() as sandbox:
            done = await sandbox.run(
                "bash --version | head -n 1 && git --version && python3 --version && cd /home/user && touch probe",
                timeout_seconds=_COMMAND_SECONDS,
                cwd="/",
            )
        text = ", ".join(done.stdout.splitlines())
        return held(text) if done.exit_code == 0 else not_held(f"exit code {done.exit_code}: {text} {done.stderr}")

    async def tools(self) -> Verdict:
        """Whether the template lacks something that some products need."""
        async with self._sandbox() as sandbox:
            lacking = await what_is_lacking(sandbox)
        if not lacking:
            return held("all of it")
        remedy = "Build one that has it (deploy/e2b), and set E2B_TEMPLATE to its name"
        return not_held(f"{describe(lacking)}. {remedy}")

    async def metadata(self) -> Verdict:
        """Whether listing by metadata finds the sandbox, running and paused."""
        async with self._sandbox() as sandbox:
            states = []
            for paused in (False, True):
                if paused:
                    await self._sandboxes.pause(sandbox.id)
                listed = {each.id: each.state for each in await self._sandboxes.list_of(self._run_id, Role.WORKSPACE)}
                if sandbox.id not in listed:
                    return not_held(f"a {'paused' if paused else 'running'} sandbox is not listed by its metadata")
                states.append(listed[sandbox.id])
        return held(f"listed as {', then as '.join(states)}")

    async def pause(self) -> Verdict:
        """Whether files and processes are there after a pause."""
        async with self._sandbox() as sandbox:
            await sandbox.write("/home/user/probe.txt", self._run_id)
            before = await sandbox.boot()
            await self._sandboxes.pause(sandbox.id)
            resumed = await self._sandboxes.resume(sandbox.id)
            try:
                kept = await resumed.read("/home/user/probe.txt")
            except FileNotFoundError:
                kept = b""
            after = await resumed.boot()
        if kept != self._run_id.encode():
            return not_held("a file was lost. Builds compare files after every pause, and restore the snapshot")
        if after != before:
            return not_held("files are kept, but processes were restarted. Agents are told that their commands ended")
        return held("files and processes are as before")

    async def egress(self) -> Verdict:
        """Whether the allowed host is reachable, and another one is not."""
        if self._hosts is None:
            raise NotAsked("SANDBOX_EGRESS_HOSTS is all: every host may be reached")
        allowed = self._hosts[:1]
        urls = " ".join(shlex.quote(f"https://{host}/") for host in (*allowed, _FORBIDDEN))
        async with self._sandbox() as sandbox:
            done = await sandbox.run(
                f"python3 -c {shlex.quote(_REACH)} {urls}", timeout_seconds=_COMMAND_SECONDS, cwd="/"
            )
        *reached, forbidden = done.stdout.splitlines() or [f"exit code {done.exit_code}: {done.stderr[-300:]}"]
        if forbidden == "yes":
            return not_held(f"{_FORBIDDEN} is reachable, although it is not among the hosts")
        if not forbidden.startswith("no "):
            return not_held(f"the question failed in the sandbox: {forbidden}")
        if allowed and reached != ["yes"]:
            return not_held(f"{allowed[0]} is not reachable: {' '.join(reached)}")
        return held(f"{allowed[0] if allowed else 'no host'} is reachable, {_FORBIDDEN} is not")

    async def private_port(self) -> Verdict:
        """Whether only we reach a product, through the preview's gateway."""
        async with self._sandbox() as sandbox:
            await _serve(sandbox)
            without = await sandbox.http_get(_PORT, "/", 20, authorized=False)
            answer = await sandbox.http_get(_PORT, "/", 20)
        if without is not None and without.status == 200:
            return not_held("the server answers without the token, too. Anyone who learns its address sees the product")
        if answer is None or answer.status != 200:
            problem = f"the server answers {answer.status if answer else 'nothing'} with the token"
            return not_held(f"{problem}. Previews do not open then")
        return held(f"{without.status if without else 'no answer'} without the token, 200 with it")

    async def gone(self) -> Verdict:
        """Whether the service says of a killed sandbox that it is gone."""
        async with self._sandbox() as sandbox:
            await self._sandboxes.kill(sandbox.id)
            try:
                await self._sandboxes.resume(sandbox.id)
            except SandboxGone:
                return held("connecting to it says so")
        return not_held("a sandbox that was killed could be connected to")

    async def cleanup(self) -> Verdict:
        """Whether the service still lists a sandbox of this run."""
        await run_to_completion(self._end_all())
        if self._problem is None:
            return held("no sandbox is listed")
        return not_held(
            f"Sandboxes may be left, and pause after {TTL_SECONDS} s. End those at the service whose metadata has "
            f"build={self._run_id}. ({self._problem})"
        )

    # ---- one sandbox

    @contextlib.asynccontextmanager
    async def _sandbox(self) -> AsyncIterator[Sandbox]:
        """Create a sandbox for one question, within a deadline; kill it, and book its time as if it were the largest.

        Raises:
            NotAsked: its worst case does not fit under the cap.
        """
        started = time.monotonic()
        with self._purse.reserve(_WORST) as bill:
            try:
                async with asyncio.timeout(QUESTION_SECONDS):
                    yield await self._sandboxes.create(self._run_id, Role.WORKSPACE)
            except TimeoutError as error:
                raise CofounderError(f"no verdict within {QUESTION_SECONDS} s") from error
            finally:
                await run_to_completion(self._end_all())
                if self._problem is None:
                    bill.microdollars = int((time.monotonic() - started + 1) * MICRODOLLARS_A_SECOND)

    async def _end_all(self) -> None:
        """Kill every sandbox of this run, also one whose creation was not answered."""
        self._problem = None
        try:
            for listed in await self._sandboxes.list_of(self._run_id, Role.WORKSPACE):
                await self._sandboxes.kill(listed.id)
        except CofounderError as error:
            self._problem = str(error)


async def _serve(sandbox: Sandbox) -> None:
    """Start a web server that outlives the command, and wait until it answers inside the sandbox."""
    url = json.dumps(f"http://127.0.0.1:{_PORT}/")
    wait = f"import urllib.request; urllib.request.urlopen({url}, timeout=2)"
    server = f"setsid python3 -m http.server {_PORT} >/dev/null 2>&1 </dev/null &"
    await sandbox.run(
        f"mkdir -p /tmp/probe && cd /tmp/probe && ({server}); "
        f"for attempt in $(seq 50); do env -u http_proxy -u HTTP_PROXY python3 -c {shlex.quote(wait)} 2>/dev/null && "
        "break; sleep 0.2; done",
        timeout_seconds=_COMMAND_SECONDS,
        cwd="/",
    )


def _not_askable() -> list[Question]:
    """Assumptions about sandboxes that a few minutes can't show."""
    reasons = {
        "lifetime": (
            "A sandbox ends after SANDBOX_MAX_SECONDS at the latest, pauses not counted",
            "it takes an hour or a day",
        ),
        "time to live": ("When its time to live runs out, a sandbox is paused", "the pause is asked for instead"),
    }
    return [cannot_ask(name, assumption, reason) for name, (assumption, reason) in reasons.items()]
