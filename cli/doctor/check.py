"""What a check of `cofounder doctor` finds, and what all checks share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from temporalio.client import Client

from clients.temporal import connect_temporal
from domain.errors import CofounderError, Misconfigured
from settings import Settings

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class CheckResult:
    """How a check came out. `remedy` says what to do, where the detail does not."""

    state: State
    detail: str
    remedy: str | None = None
    name: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result for scripts."""
        return {"name": self.name, **asdict(self)}


def ok(detail: str) -> CheckResult:
    """Nothing to do."""
    return CheckResult("ok", detail)


def warn(detail: str, remedy: str | None = None) -> CheckResult:
    """Something that may be meant so, or could not be looked at."""
    return CheckResult("warn", detail, remedy)


def fail(detail: str, remedy: str | None = None) -> CheckResult:
    """Something without which builds do not work."""
    return CheckResult("fail", detail, remedy)


class CheckSkipped(Exception):
    """A check could not be made, because of what another one reports."""


class DoctorContext:
    """What the checks look at: the settings, where they could be read, and a connection to Temporal for all of them."""

    def __init__(self, settings: Settings | CofounderError, api_url: str | None) -> None:
        self._settings = settings
        self.api_url = api_url
        self._connecting: asyncio.Task[Client] | None = None

    @property
    def settings(self) -> Settings:
        """The settings.

        Raises:
            CheckSkipped: they are wrong.
        """
        if isinstance(self._settings, CofounderError):
            raise CheckSkipped("not looked at before the settings are right")
        return self._settings

    async def check_settings(self) -> CheckResult:
        """Whether the settings could be read, and let builds be started."""
        if isinstance(self._settings, CofounderError):
            return fail(str(self._settings))
        if not self._settings.autonomous_agent:
            return warn("every variable is right, and AUTONOMOUS_AGENT is false: no build is started, and none goes on")
        return ok("every variable is right")

    async def connect(self) -> Client:
        """The connection to Temporal.

        Raises:
            Misconfigured: there is none.
        """
        if self._connecting is None:
            self._connecting = asyncio.create_task(connect_temporal())
        return await asyncio.shield(self._connecting)

    async def temporal(self) -> Client:
        """The connection to Temporal, for a check that is not about it.

        Raises:
            CheckSkipped: there is none.
        """
        try:
            return await self.connect()
        except Misconfigured:
            raise CheckSkipped("not looked at, since Temporal does not answer") from None


Check = Callable[[DoctorContext], Awaitable[CheckResult]]
