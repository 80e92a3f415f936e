"""A lock with a fencing token, inside the sandbox: only the latest attempt may change the workspace as a whole.

An attempt that hung past its heartbeat can come back after its successor has restored the workspace and the agent works
in it again. Every command takes the lock and checks the fencing token first, so a stale attempt can no longer change
anything. See ADR 0003.
"""

from clients.sandbox import CommandOutput, Sandbox
from clients.sandbox_runner import HOLDER, JOURNAL, LOCK
from domain.errors import SandboxUnavailable, StaleClaim

FENCED = 93
"""Exit code of a guarded command that was not run because a later attempt holds the workspace."""

_SECONDS = 660.0
"""How long a command may wait for the one before it, which may be unpacking an archive."""


class WorkspaceLock:
    """One attempt's claim to a workspace. Make one with `acquire`."""

    def __init__(self, sandbox: Sandbox, token: str) -> None:
        self._sandbox = sandbox
        self.token = token
        """The fencing token. Tokens compare as the times at which Temporal scheduled the attempts do."""

    @classmethod
    async def acquire(cls, sandbox: Sandbox, scheduled_at: float, command: str = "") -> "WorkspaceLock":
        """Take the workspace, unless an attempt that was scheduled later has it.

        Args:
            sandbox: where the workspace is.
            scheduled_at: when Temporal scheduled this attempt, as a POSIX timestamp.
            command: runs under the lock, too, and must succeed. It saves a request.

        Raises:
            StaleClaim: a later attempt has it.
            SandboxUnavailable: the command failed.
        """
        lock = cls(sandbox, f"{scheduled_at:020.6f}")
        path = f"{JOURNAL}/{HOLDER}"
        taking = f"""
{_locked()}
holder=$(cat {path} 2>/dev/null)
[[ "$holder" > {lock.token} ]] && exit {FENCED}
printf %s {lock.token} >{path}.new && mv {path}.new {path} || exit 1
"""
        await lock._run(taking + command)
        return lock

    def guarded(self, command: str) -> str:
        """The command, run under the lock and only while this attempt's token is the current one."""
        return f'{_locked()}\n[ "$(cat {JOURNAL}/{HOLDER})" = {self.token} ] || exit {FENCED}\n{command}'

    async def run(self, command: str) -> None:
        """Run a guarded command, which must succeed.

        Raises:
            StaleClaim: a later attempt has the workspace now; nothing was done.
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
        """Raise StaleClaim if a guarded command was not run."""
        if output.exit_code == FENCED:
            raise StaleClaim(f"A later attempt restores the workspace in sandbox {self._sandbox.id}.")


def _locked() -> str:
    """Wait for the lock, which is released when the shell and what it runs have ended."""
    return f"mkdir -p {JOURNAL} && exec 9>{JOURNAL}/{LOCK} && flock 9 || exit 92"
