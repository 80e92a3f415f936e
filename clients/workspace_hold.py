"""Which attempt may change a sandbox's workspace as a whole: the one that was scheduled last.

An attempt that hung past its heartbeat comes back when another has restored the workspace and the agent works in it
again. Whatever it does then, it does under a lock and only while its name stands in the sandbox, which it does not.
"""

from clients.sandbox import CommandOutput, Sandbox
from clients.sandbox_runner import HOLDER, JOURNAL, LOCK
from domain.errors import SandboxUnavailable, StaleClaim

NOT_HELD = 93
"""Exit code of a guarded command that was not run, as a later attempt holds the workspace."""

_SECONDS = 660.0
"""A command waits for the one before it, which may be unpacking."""


class WorkspaceHold:
    """An attempt's hold on a workspace. Make one with `take`."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        self._sandbox = sandbox
        self.name = name
        """Names compare as the attempts' times of scheduling do."""

    @classmethod
    async def take(cls, sandbox: Sandbox, scheduled_at: float) -> "WorkspaceHold":
        """Hold the workspace, unless an attempt that was scheduled later does.

        Args:
            scheduled_at: when Temporal scheduled this attempt, as a POSIX timestamp.

        Raises:
            StaleClaim: a later one does.
        """
        hold = cls(sandbox, f"{scheduled_at:020.6f}")
        path = f"{JOURNAL}/{HOLDER}"
        command = f"""
{_locked()}
held=$(cat {path} 2>/dev/null)
[[ "$held" > {hold.name} ]] && exit {NOT_HELD}
printf %s {hold.name} >{path}.new && mv {path}.new {path}
"""
        await hold._run(command)
        return hold

    def guarded(self, command: str) -> str:
        """The command, run under the lock and only while this attempt holds the workspace."""
        return f'{_locked()}\n[ "$(cat {JOURNAL}/{HOLDER})" = {self.name} ] || exit {NOT_HELD}\n{command}'

    async def run(self, command: str) -> None:
        """Run a guarded command, which must succeed.

        Raises:
            StaleClaim: a later attempt holds the workspace now; nothing was done.
            SandboxUnavailable: the command failed.
        """
        await self._run(self.guarded(command))

    async def _run(self, command: str) -> None:
        output = await self._sandbox.run(command, timeout_seconds=_SECONDS, cwd="/")
        self.check(output)
        if output.exit_code != 0:
            raise SandboxUnavailable(
                f"Sandbox {self._sandbox.id} could not be prepared (exit code {output.exit_code}): "
                f"{output.stderr[-500:]}"
            )

    def check(self, output: CommandOutput) -> None:
        """Raise StaleClaim where a guarded command was not run."""
        if output.exit_code == NOT_HELD:
            raise StaleClaim(f"A later attempt restores the workspace in sandbox {self._sandbox.id}.")


def _locked() -> str:
    """Waits for the lock, which goes with the shell and what it runs."""
    return f"mkdir -p {JOURNAL} && exec 9>{JOURNAL}/{LOCK} && flock 9 || exit 92"
