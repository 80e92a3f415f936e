"""Hosts that a product's sandbox was not let out to."""

import uuid
from pathlib import Path

from activities.sandbox.product import refused_since_boot, run_step
from activities.sandbox.step_output import step_outcome
from clients.sandbox import Role, SandboxConfig, Sandboxes
from domain import evidence
from domain.egress import hosts_of
from tests.harness.wait import DEADLINE
from tests.integration.local.sandbox.sandbox_server import sandbox_server

_ASK = "curl --silent --max-time 100 https://{}/"


async def test_install_and_start_tell_which_hosts_they_were_refused(tmp_path: Path) -> None:
    async with sandbox_server(tmp_path / "root", "--egress", "proxy", "--allow", "packages") as server:
        sandboxes = Sandboxes(SandboxConfig(**server.options, egress_hosts=hosts_of(["packages"])))
        sandbox = await sandboxes.create(str(uuid.uuid4()), Role.GATE)
        assert await refused_since_boot(sandbox) == []
        failed = await run_step(sandbox, "install", _ASK.format("fonts.gstatic.com"), DEADLINE)
        finding = evidence.install_failed(await step_outcome(sandbox, "npm ci", failed))
        assert "refused to connect to fonts.gstatic.com:" in finding.evidence
        passed = await run_step(sandbox, "check", "true", DEADLINE)
        outcome = await step_outcome(sandbox, "npm test", passed)
        assert outcome.refused_hosts == [], "what was refused before is not told again"
        await sandbox.run(f"{_ASK.format('github.com')} || true", timeout_seconds=DEADLINE)
        assert await refused_since_boot(sandbox) == ["fonts.gstatic.com", "github.com"]
        await sandboxes.close()
    async with sandbox_server(tmp_path / "closed") as server:
        sandboxes = Sandboxes(SandboxConfig(**server.options, egress_hosts=[]))
        sandbox = await sandboxes.create(str(uuid.uuid4()), Role.GATE)
        await sandbox.run(f"{_ASK.format('github.com')} || true", timeout_seconds=DEADLINE)
        assert await refused_since_boot(sandbox) == [], "without a proxy nothing is told"
        await sandboxes.close()
