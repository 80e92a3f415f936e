"""The evidence gate: a product passes when its last commit, alone in a fresh sandbox, installs, checks and serves."""

import dataclasses
import hashlib
import json
import uuid
from dataclasses import dataclass, field

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.crash_point import crash_point
from activities.errors import application_errors
from activities.heartbeat import heartbeating
from activities.product import (
    CommittedTree,
    OutcomeUnknown,
    is_served,
    keep_only_the_commit,
    kill_all,
    read_if_there,
    read_log,
    read_product,
    run_step,
    start_product,
    wait_for_page,
)
from activities.snapshot import restore_snapshot
from clients.browser import Browser, PageFailed, is_blank
from clients.object_store import ObjectStore, image_key
from clients.sandbox import Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL
from db import steering
from db.feed import append_events
from db.models import GateRun
from db.session import Sessions
from db.snapshots import latest_snapshot
from domain import evidence
from domain.errors import (
    InvalidInput,
    Misconfigured,
    NeedsPerson,
    SandboxGone,
    SandboxUnavailable,
    SnapshotFailed,
    StaleClaim,
)
from domain.events import EventType, NewEvent
from domain.payloads import GateResult, RunGate
from domain.product import ProductManifest, count_tests

_SAID_MEANWHILE = "The product passes, but you have written meanwhile: that comes first"


@dataclass(frozen=True)
class GatePolicy:
    """How long a product's install and check may each take, and how long its server until it answers; in seconds."""

    command_seconds: float
    start_seconds: float


@dataclass
class _Evidence:
    """What one run of the gate has seen so far. `findings` are sentences for the agent."""

    findings: list[str] = field(default_factory=list)
    tests_run: int = 0
    screenshots: dict[str, str] = field(default_factory=dict)
    url: str | None = None


class GateActivities:
    """`run_evidence_gate`."""

    def __init__(
        self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore, browser: Browser, policy: GatePolicy
    ) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._browser = browser
        self._policy = policy

    @activity.defn
    @application_errors
    async def run_evidence_gate(self, request: RunGate) -> GateResult:
        """Restore a snapshot into a fresh sandbox and look whether its last commit is a product that works.

        A retry goes on in the sandbox of the attempt before, where install and check are attached to, not run again.
        Only the attempt that holds the claim writes and lets go of sandboxes: an older one that wakes up ends.
        On findings the sandbox is killed; on a pass it keeps running, for the preview. Nothing is passed while the
        founder has said or asked for something that is not done; and from the pass on, nothing more can be said.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed. Never a finding.
            NeedsPerson: the store refuses, or Chromium is missing.
            StaleClaim: another attempt has taken over.
        """
        async with heartbeating():
            held = _Held(uuid.UUID(request.build_id), request.number, request.snapshot_number, uuid.uuid4())
            run = await self._claim(held)
            if isinstance(run, GateResult):
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
                return run
            if run.findings:
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
                return GateResult(findings=len(run.findings))
            sandbox: Sandbox | None = None
            try:
                sandbox = await self._sandbox(held, run.sandbox_id)
                seen = await self._look(held, sandbox)
            except SandboxGone as error:
                raise SandboxUnavailable("The gate's sandbox went away; the gate runs again.") from error
            except OutcomeUnknown:
                if sandbox is not None:
                    await self._sandboxes.kill(sandbox.id)
                raise
            except Misconfigured as error:
                raise NeedsPerson(str(error), "operator") from error
            result = await self._record(held, seen)
            await crash_point("gate.recorded")
            if not result.passed:
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
                return result
            return GateResult(findings=0, sandbox_id=sandbox.id, preview_url=seen.url)

    # ---- the evidence, in order

    async def _look(self, held: "_Held", sandbox: Sandbox) -> _Evidence:
        """Stops where what follows would only repeat the finding before."""
        tree = await self._prepare(held, sandbox)
        seen = _Evidence(findings=tree.findings)
        if not tree.usable:
            return seen
        try:
            product = await read_product(sandbox)
        except InvalidInput as problem:
            seen.findings.append(evidence.bad_product_file(str(problem)))
            return seen
        if await self._install(held, sandbox, product, seen):
            await self._check(held, sandbox, product, seen)
            await self._serve(held, sandbox, product, seen)
        return seen

    async def _prepare(self, held: "_Held", sandbox: Sandbox) -> CommittedTree:
        """Restore the snapshot and keep only its commit. Done once per sandbox: a second time, all is committed.

        A snapshot that failed since, as the gate waited for a person, holds nothing else than the one before.
        """
        marker = _marker(held)
        if (seen := await read_if_there(sandbox, marker)) is not None:
            return CommittedTree(**json.loads(seen))
        async with self._sessions.begin() as session:
            snapshot = await latest_snapshot(session, held.build_id, held.snapshot_number)
        if snapshot is None:
            raise SnapshotFailed(f"Snapshot {held.snapshot_number} is not stored, so the gate can't look at it.")
        await self._tell(held, f"Restoring snapshot {snapshot.number} into a fresh sandbox")
        await restore_snapshot(self._store, sandbox, snapshot)
        tree = await keep_only_the_commit(sandbox)
        await sandbox.write(marker, json.dumps(dataclasses.asdict(tree)))
        return tree

    async def _install(self, held: "_Held", sandbox: Sandbox, product: ProductManifest, seen: _Evidence) -> bool:
        await self._tell(held, f"install: {product.install}")
        outcome = await run_step(sandbox, f"gate-{held.number}-install", product.install, self._policy.command_seconds)
        if outcome.exit_code == 0 and not outcome.timed_out:
            return True
        output = outcome.text + outcome.tail
        seen.findings.append(evidence.install_failed(product.install, outcome.exit_code, outcome.timed_out, output))
        return False

    async def _check(self, held: "_Held", sandbox: Sandbox, product: ProductManifest, seen: _Evidence) -> None:
        await self._tell(held, f"check: {product.check}")
        outcome = await run_step(sandbox, f"gate-{held.number}-check", product.check, self._policy.command_seconds)
        output = outcome.text + outcome.tail
        seen.tests_run = count_tests(output)
        seen.findings += evidence.check_findings(product.check, outcome.exit_code, outcome.timed_out, output)

    async def _serve(self, held: "_Held", sandbox: Sandbox, product: ProductManifest, seen: _Evidence) -> None:
        name = f"gate-{held.number}"
        await self._tell(held, f"start: {product.start}")
        await start_product(sandbox, name, product.start)
        if trouble := await wait_for_page(sandbox, name, product, self._policy.start_seconds):
            seen.findings.append(trouble)
            return
        await self._tell(held, "Looking at the page, desktop and mobile")
        seen.url = sandbox.url(product.port)
        try:
            shots = await self._browser.screenshots(seen.url)
        except PageFailed as error:
            seen.findings.append(f"The page at / could not be shown in a browser. {error}")
            return
        for shot in shots:
            sha256 = hashlib.sha256(shot.webp).hexdigest()
            await self._store.put_image(sha256, shot.webp)
            seen.screenshots[shot.viewport] = image_key(sha256)
        if empty := [shot.viewport for shot in shots if is_blank(shot.webp)]:
            seen.findings.append(evidence.blank(empty))
        if not await is_served(sandbox, product):
            seen.findings.append(evidence.did_not_stay_up(await read_log(sandbox, name)))

    # ---- the row and the feed

    async def _claim(self, held: "_Held") -> GateRun | GateResult:
        """Take the gate's row for this attempt, unless the gate has ended; the first attempt makes it.

        While the founder has said or asked for something that is not done there is no gate, and no row: an older
        attempt that wakes up ends, and the founder comes first.
        """
        async with self._sessions.begin() as session:
            before = await session.get(GateRun, (held.build_id, held.number), with_for_update=True)
            unended = before is None or before.ended_at is None
            if unended and (pending := await steering.pending_input(session, held.build_id)):
                if before is not None:
                    await session.delete(before)
                return GateResult(findings=0, message=pending.message, restore=pending.restore)
            made = await session.scalar(
                insert(GateRun)
                .values(
                    build_id=held.build_id, number=held.number, snapshot_number=held.snapshot_number, claim=held.claim
                )
                .on_conflict_do_nothing(index_elements=["build_id", "number"])
                .returning(GateRun.number)
            )
            if made is not None:
                started = NewEvent(EventType.GATE_STARTED, {"number": held.number})
                await append_events(session, held.build_id, [started])
            run = await session.get_one(GateRun, (held.build_id, held.number), with_for_update=True)
            run.claim = held.claim
            return run

    async def _record(self, held: "_Held", seen: _Evidence) -> GateResult:
        """Write what was found, unless an earlier attempt has. With the pass, the build is closed to its founder."""
        async with self._sessions.begin() as session:
            run = await _hold(session, held)
            if run.ended_at is not None:
                return GateResult(findings=len(run.findings or []))
            if not seen.findings and (pending := await steering.close_input(session, held.build_id)):
                await session.delete(run)
                await append_events(session, held.build_id, [NewEvent(EventType.GATE_STEP, {"text": _SAID_MEANWHILE})])
                return GateResult(findings=0, message=pending.message, restore=pending.restore)
            run.findings, run.tests_run, run.screenshots = seen.findings, seen.tests_run, seen.screenshots
            run.ended_at = func.now()
            event = (
                NewEvent(EventType.GATE_BOUNCED, {"number": held.number, "findings": seen.findings})
                if seen.findings
                else NewEvent(
                    EventType.GATE_PASSED,
                    {"number": held.number, "tests_run": seen.tests_run, "screenshots": seen.screenshots},
                )
            )
            await append_events(session, held.build_id, [event])
            return GateResult(findings=len(seen.findings))

    async def _tell(self, held: "_Held", text: str) -> None:
        async with self._sessions.begin() as session:
            await _hold(session, held)
            step = NewEvent(EventType.GATE_STEP, {"text": evidence.tail_of(text)})
            await append_events(session, held.build_id, [step])

    # ---- the sandbox

    async def _sandbox(self, held: "_Held", known: str | None) -> Sandbox:
        """The sandbox of this gate's attempt before, if that had restored the snapshot in it; else a fresh one."""
        adopted: Sandbox | None = None
        found = await self._sandboxes.find(str(held.build_id), Role.GATE)
        async with self._sessions.begin() as session:
            await _hold(session, held)
        for sandbox_id in found:
            if sandbox_id == known and adopted is None:
                sandbox = await self._sandboxes.resume(sandbox_id)
                if await read_if_there(sandbox, _marker(held)) is not None:
                    adopted = sandbox
                    continue
            await self._sandboxes.kill(sandbox_id)
        sandbox = adopted or await self._sandboxes.create(str(held.build_id), Role.GATE)
        try:
            async with self._sessions.begin() as session:
                (await _hold(session, held)).sandbox_id = sandbox.id
        except StaleClaim:
            if adopted is None:
                await self._sandboxes.kill(sandbox.id)
            raise
        return sandbox


@dataclass(frozen=True)
class _Held:
    """A gate, and the claim of this attempt on its row."""

    build_id: uuid.UUID
    number: int
    snapshot_number: int
    claim: uuid.UUID


async def _hold(session: AsyncSession, held: _Held) -> GateRun:
    """The gate's row, kept from other attempts until the transaction ends.

    Raises:
        StaleClaim: another attempt has taken it.
    """
    run = await session.get(GateRun, (held.build_id, held.number), with_for_update=True)
    if run is None or run.claim != held.claim:
        raise StaleClaim(f"Another attempt runs evidence gate {held.number} now.")
    return run


def _marker(held: _Held) -> str:
    """In the sandbox: the snapshot is restored and reduced to its commit. Holds the findings of that."""
    return f"{JOURNAL}/gate-{held.number}.json"
