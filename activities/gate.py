"""The evidence gate: a product passes if its last commit installs, passes its checks and serves in a fresh sandbox."""

import asyncio
import dataclasses
import functools
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from temporalio import activity

from activities.judge import Judge, JudgedGate
from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.sandbox.product import (
    CommittedTree,
    OutcomeUnknown,
    is_served,
    keep_only_the_commit,
    kill_all,
    read_exit_code,
    read_log,
    read_optional,
    read_plan_file,
    read_product,
    refused_since_boot,
    run_step,
    start_product,
    wait_for_page,
)
from activities.sandbox.site import look_at_site
from activities.sandbox.snapshot_store import restore_snapshot
from activities.sandbox.step_output import kept_output, read_reports, step_outcome
from clients.browser import Browser, PageFailed, is_blank
from clients.object_store import ObjectStore, image_key
from clients.sandbox import CallOutcome, Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL
from db import gate_runs, steering
from db.builds import require_open
from db.feed import append_events
from db.models import GateRun
from db.project_secrets import names_of_build
from db.refused_hosts import announce_refused_hosts
from db.session import Sessions
from db.snapshots import latest_snapshot
from db.transaction import transaction
from domain import evidence
from domain.check_summary import read_tally
from domain.egress import refused_hosts
from domain.errors import (
    InvalidInput,
    Misconfigured,
    NeedsPerson,
    SandboxGone,
    SandboxOverloaded,
    SandboxUnavailable,
    SnapshotFailed,
    StaleClaim,
)
from domain.events import GateBouncedEvent, GatePassedEvent, GateStartedEvent, GateStepEvent
from domain.findings import Finding, Output
from domain.judge import Judgement
from domain.page_findings import page_findings, pages_failed
from domain.page_view import VIEWPORTS, PageView
from domain.payloads import GateResult, RunGate
from domain.preview_address import preview_address
from domain.product import ProductManifest
from domain.product_secrets import stand_ins
from domain.traffic import Upstream
from services.images import keep_image
from services.permits import Permits

_FOUNDER_FIRST = "The product passes, but you have written meanwhile: that comes first"


@dataclass(frozen=True)
class GatePolicy:
    """How long a product may take."""

    command_seconds: float
    """For its install, and again for its check."""
    start_seconds: float
    """Until its server answers."""


@dataclass
class _GateReport:
    """What one run of the gate has found out so far."""

    findings: list[str] = field(default_factory=list)
    """What is wrong, as texts for the agent."""
    tests_run: int = 0
    screenshots: dict[str, str] = field(default_factory=dict)
    views: list[PageView] = field(default_factory=list)
    """What a browser saw of the product's pages; the first page comes first, in every viewport."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Outputs that are too long for a finding, by step."""

    def keep(self, number: int, step: str, output: Output) -> Output:
        """Keep an output that is too long for a finding, for the agent to read. Returns it with the path to that."""
        if not output.is_long:
            return output
        self.outputs[step] = output.plain()
        return dataclasses.replace(output, path=kept_output(number, step))

    def add(self, finding: Finding) -> None:
        """Hold something against the product."""
        self.findings.append(finding.text())


class GateActivities:
    """`run_evidence_gate`."""

    def __init__(
        self,
        sessions: Sessions,
        sandboxes: Sandboxes,
        store: ObjectStore,
        browser: Browser,
        policy: GatePolicy,
        permits: Permits,
        judge: Judge | None = None,
        *,
        preview_url: str,
    ) -> None:
        """
        Args:
            judge: None if products are not judged.
            preview_url: the setting PREVIEW_URL.
        """
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._browser = browser
        self._policy = policy
        self._permits = permits
        self._judge = judge
        self._preview_url = preview_url

    @activity.defn
    @application_errors
    async def run_evidence_gate(self, request: RunGate) -> GateResult:
        """Restore a snapshot into a fresh sandbox and check that its last commit is a product that works.

        A retry continues in the sandbox of the attempt before: it attaches to install and check and does not run them
        again. Only the attempt that holds the claim writes and kills sandboxes; an older one that wakes up ends.

        On findings the sandbox is killed; on a pass it keeps running, for the preview. A build does not pass while it
        has pending input from its founder. After the pass it accepts no more.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed. Never a finding.
            NoPermit: no further sandbox may run now. The build's own one is paused before, for one permit is enough.
            NeedsPerson: the store refuses, or Chromium is missing.
            StaleClaim: another attempt has taken over.
            RowsAreAhead: the build has ended.
        """
        async with heartbeating(), self._permits.running(request.build_id, Role.GATE):
            gate = await self._new_claim(request)
            run = await self._claim(gate)
            if isinstance(run, GateResult):
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
                return run
            if run.findings:
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
                return _result_of(run)
            sandbox: Sandbox | None = None
            try:
                sandbox = await self._sandbox(gate, run.sandbox_id)
                report = await self._collect(gate, sandbox)
                if not report.findings:
                    await self._ask_judge(gate, sandbox, report)
            except SandboxGone as error:
                raise SandboxUnavailable("The gate's sandbox went away; the gate runs again.") from error
            except (OutcomeUnknown, SandboxOverloaded) as error:
                if sandbox is not None:
                    await self._sandboxes.kill(sandbox.id)
                raise OutcomeUnknown(str(error)) from error
            except Misconfigured as error:
                raise NeedsPerson(str(error), "operator") from error
            result = await self._record(gate, report)
            await crash_point("gate.recorded")
            if not result.passed:
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
                return result
            url = preview_address(self._preview_url, gate.build_id)
            return result.model_copy(update={"sandbox_id": sandbox.id, "preview_url": url})

    # ---- the evidence, in order

    async def _collect(self, gate: "_ClaimedGate", sandbox: Sandbox) -> _GateReport:
        """Collect the evidence. Stop early if the next step could only repeat the finding before."""
        tree = await self._prepare(gate, sandbox)
        report = _GateReport(findings=tree.findings)
        if not tree.usable:
            return report
        try:
            product = await read_product(sandbox)
        except InvalidInput as problem:
            report.add(evidence.bad_product_file(str(problem)))
            return report
        if await self._install(gate, sandbox, product, report):
            await self._check(gate, sandbox, product, report)
            await self._serve(gate, sandbox, product, report)
        return report

    async def _prepare(self, gate: "_ClaimedGate", sandbox: Sandbox) -> CommittedTree:
        """Restore the snapshot and keep only its commit.

        This happens once per sandbox, since the second time nothing uncommitted would be left to find. If the snapshot
        has failed since, while the gate waited for a person, the one before has the same content.
        """
        marker = _marker(gate)
        if (stored := await read_optional(sandbox, marker)) is not None:
            return CommittedTree(**json.loads(stored))
        async with transaction(self._sessions) as tx:
            snapshot = await latest_snapshot(tx, gate.build_id, gate.snapshot_number)
        if snapshot is None:
            raise SnapshotFailed(f"Snapshot {gate.snapshot_number} is not stored, so the gate can't check it.")
        await self._announce(gate, f"Restoring snapshot {snapshot.number} into a fresh sandbox")
        await restore_snapshot(self._store, sandbox, snapshot)
        tree = await keep_only_the_commit(sandbox)
        if gate.wants_plan and tree.usable and (finding := evidence.plan_finding(await read_plan_file(sandbox))):
            tree.findings.append(finding.text())
        await sandbox.write(marker, json.dumps(dataclasses.asdict(tree)))
        return tree

    async def _install(
        self, gate: "_ClaimedGate", sandbox: Sandbox, product: ProductManifest, report: _GateReport
    ) -> bool:
        outcome = await self._run(gate, sandbox, "install", product.install)
        if outcome.exit_code == 0 and not outcome.timed_out:
            return True
        failed = await step_outcome(sandbox, product.install, outcome)
        output = report.keep(gate.number, "install", failed.output)
        report.add(evidence.install_failed(dataclasses.replace(failed, output=output)))
        return False

    async def _check(
        self, gate: "_ClaimedGate", sandbox: Sandbox, product: ProductManifest, report: _GateReport
    ) -> None:
        outcome = await self._run(gate, sandbox, "check", product.check)
        ended = await step_outcome(sandbox, product.check, outcome)
        # In a thread: a long output takes seconds, and heartbeats go on meanwhile.
        tally = await asyncio.to_thread(read_tally, ended.output.head + "\n" + ended.output.tail)
        reported = await read_reports(sandbox, f"gate-{gate.number}-check")
        if reported.failed or not tally.passed:
            tally += reported
        report.tests_run = tally.passed
        output = report.keep(gate.number, "check", ended.output)
        for finding in evidence.check_findings(dataclasses.replace(ended, output=output), tally):
            report.add(finding)

    async def _serve(
        self, gate: "_ClaimedGate", sandbox: Sandbox, product: ProductManifest, report: _GateReport
    ) -> None:
        name = f"gate-{gate.number}"
        keep_log = functools.partial(report.keep, gate.number, "start")
        await self._announce(gate, f"start: {product.start}")
        await start_product(sandbox, name, product.start, gate.stand_ins)
        failure = await wait_for_page(sandbox, name, product, self._policy.start_seconds, keep_log)
        hosts = await refused_since_boot(sandbox)
        await self._tell_refused(gate, hosts)
        if failure:
            report.add(evidence.with_refused(failure, hosts))
            return
        seen = await self._look(gate, sandbox.upstream(product.port), report)
        if not await is_served(sandbox, product):
            # What a browser did not get from a server that had ended says nothing about the pages.
            log = keep_log(await read_log(sandbox, name))
            seen = [evidence.did_not_stay_up(await read_exit_code(sandbox, name), log)]
        for finding in seen:
            report.add(finding)

    async def _look(self, gate: "_ClaimedGate", upstream: Upstream, report: _GateReport) -> list[Finding]:
        """Look at the product's pages. Returns what is wrong with them."""
        await self._announce(gate, "Looking at the page, desktop and mobile")

        async def on_links(pages: int) -> None:
            await self._announce(gate, f"Looking at {pages} linked page{'s' if pages > 1 else ''}, desktop and mobile")

        try:
            site = await look_at_site(self._browser, upstream, on_links)
        except PageFailed as error:
            return [evidence.page_failed(str(error))]
        # If this attempt is stale, the preview may have taken over the sandbox, and the pages may know real secrets.
        await self._require_claim(gate)
        report.views = site.views
        first = site.views[: len(VIEWPORTS)]
        for view in first:
            sha256 = await keep_image(self._sessions, self._store, gate.build_id, view.webp)
            report.screenshots[view.viewport] = image_key(sha256)
        empty = [view.viewport for view in first if is_blank(view.webp)]
        blank = [evidence.blank(empty)] if empty else []
        return [*blank, *page_findings(site.views), *pages_failed(site.problems)]

    async def _require_claim(self, gate: "_ClaimedGate") -> None:
        async with transaction(self._sessions) as tx:
            await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)

    async def _ask_judge(self, gate: "_ClaimedGate", sandbox: Sandbox, report: _GateReport) -> None:
        """Add what the judge finds. It is asked last, and only about a product that has passed the other checks: the
        agent has to repair what they found anyway, and is then judged."""
        if self._judge is None:
            return
        await self._announce(gate, "Comparing the product with the brief")
        judged = JudgedGate(gate.build_id, gate.number, gate.claim, gate.turn)
        judgement = await self._judge.judge(judged, sandbox, report.views)
        if judgement is not None and judgement.returned:
            for finding in judgement.findings:
                report.add(finding.as_finding())

    # ---- the row and the feed

    async def _new_claim(self, request: RunGate) -> "_ClaimedGate":
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            environment = stand_ins(await names_of_build(tx, build_id))
        return _ClaimedGate(
            build_id,
            request.number,
            request.snapshot_number,
            uuid.uuid4(),
            request.wants_plan,
            request.turn,
            environment,
        )

    async def _claim(self, gate: "_ClaimedGate") -> GateRun | GateResult:
        """Claim the gate's row for this attempt, unless the gate has ended. The first attempt makes the row.

        If the build has pending input from its founder, that comes first: there is no gate then, and its row is
        deleted, so that an older attempt that wakes up ends.
        """
        async with transaction(self._sessions) as tx:
            await require_open(tx, gate.build_id)
            earlier = await gate_runs.lock_run(tx, gate.build_id, gate.number)
            is_open = earlier is None or earlier.ended_at is None
            if is_open and (pending := await steering.pending_input(tx, gate.build_id)):
                if earlier is not None:
                    await gate_runs.delete_run(tx, earlier)
                return GateResult(findings=0, message=pending.message, restore=pending.restore)
            if await gate_runs.insert_run(tx, gate.build_id, gate.number, gate.snapshot_number, gate.claim):
                await append_events(tx, gate.build_id, [GateStartedEvent(number=gate.number)])
            return await gate_runs.claim_run(tx, gate.build_id, gate.number, gate.claim)

    async def _record(self, gate: "_ClaimedGate", report: _GateReport) -> GateResult:
        """Write the result, unless an earlier attempt has. A pass also closes the build to its founder."""
        async with transaction(self._sessions) as tx:
            run = await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)
            if run.ended_at is not None:
                return _result_of(run)
            if not report.findings and (pending := await steering.close_input(tx, gate.build_id)):
                await gate_runs.delete_run(tx, run)
                await append_events(tx, gate.build_id, [GateStepEvent(text=_FOUNDER_FIRST)])
                return GateResult(findings=0, message=pending.message, restore=pending.restore)
            await gate_runs.record_result(
                tx, run, report.findings, report.tests_run, report.screenshots, report.outputs
            )
            event = (
                GateBouncedEvent(number=gate.number, findings=report.findings)
                if report.findings
                else GatePassedEvent(number=gate.number, tests_run=report.tests_run, screenshots=report.screenshots)
            )
            await append_events(tx, gate.build_id, [event])
            return _result_of(run)

    async def _run(self, gate: "_ClaimedGate", sandbox: Sandbox, step: str, command: str) -> CallOutcome:
        """Run install or check, and tell the founder of the hosts that it was refused."""
        await self._announce(gate, f"{step}: {command}")
        name = f"gate-{gate.number}-{step}"
        outcome = await run_step(sandbox, name, command, self._policy.command_seconds, gate.stand_ins)
        await self._tell_refused(gate, refused_hosts(outcome.refused_hosts))
        return outcome

    async def _tell_refused(self, gate: "_ClaimedGate", hosts: Sequence[str]) -> None:
        if hosts:
            async with transaction(self._sessions) as tx:
                await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)
                await announce_refused_hosts(tx, gate.build_id, hosts)

    async def _announce(self, gate: "_ClaimedGate", text: str) -> None:
        async with transaction(self._sessions) as tx:
            await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)
            await append_events(tx, gate.build_id, [GateStepEvent(text=evidence.announcement(text))])

    # ---- the sandbox

    async def _sandbox(self, gate: "_ClaimedGate", recorded: str | None) -> Sandbox:
        """The sandbox in which an earlier attempt restored the snapshot, if there is one; else a fresh one."""
        adopted: Sandbox | None = None
        existing = await self._sandboxes.find(str(gate.build_id), Role.GATE)
        async with transaction(self._sessions) as tx:
            await gate_runs.lock_claimed_run(tx, gate.build_id, gate.number, gate.claim)
        for sandbox_id in existing:
            if sandbox_id == recorded and adopted is None:
                sandbox = await self._sandboxes.resume(sandbox_id)
                if await read_optional(sandbox, _marker(gate)) is not None:
                    adopted = sandbox
                    continue
            await self._sandboxes.kill(sandbox_id)
        sandbox = adopted or await self._sandboxes.create(str(gate.build_id), Role.GATE)
        try:
            async with transaction(self._sessions) as tx:
                await gate_runs.record_sandbox(tx, gate.build_id, gate.number, gate.claim, sandbox.id)
        except StaleClaim:
            if adopted is None:
                await self._sandboxes.kill(sandbox.id)
            raise
        return sandbox


@dataclass(frozen=True)
class _ClaimedGate:
    """A gate, and this attempt's claim on its row."""

    build_id: uuid.UUID
    number: int
    snapshot_number: int
    claim: uuid.UUID
    wants_plan: bool
    turn: int
    stand_ins: Mapping[str, str]
    """For the product's secrets: the gate has no real ones."""


def _result_of(run: GateRun) -> GateResult:
    """The result of a run that has ended, without its sandbox."""
    judgement = Judgement.model_validate(run.judgement or {})
    return GateResult.sparse(findings=len(run.findings or []), judged=judgement.returned, paid=judgement.called)


def _marker(gate: _ClaimedGate) -> str:
    """A file in the sandbox that says that the snapshot is restored and reduced to its commit. Holds the findings."""
    return f"{JOURNAL}/gate-{gate.number}.json"
