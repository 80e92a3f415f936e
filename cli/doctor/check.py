"""The result of a check of `cofounder doctor`, and the context that all checks share."""

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
    """The result of a check. `remedy` says what to do if the detail does not."""

    state: State
    detail: str
    remedy: str | None = None
    name: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        return {"name": self.name, **asdict(self)}


def ok(detail: str) -> CheckResult:
    """A result that needs no action."""
    return CheckResult("ok", detail)


def warn(detail: str, remedy: str | None = None) -> CheckResult:
    """A result that may be intended, or a check that was skipped."""
    return CheckResult("warn", detail, remedy)


def fail(detail: str, remedy: str | None = None) -> CheckResult:
    """A result that keeps builds from working."""
    return CheckResult("fail", detail, remedy)


class CheckSkipped(Exception):
    """A check was skipped because of a problem that another check reports."""


class DoctorContext:
    """What the checks share: the settings, or the error of reading them, and one connection to Temporal."""

    def __init__(self, settings: Settings | CofounderError, api_url: str | None) -> None:
        self._settings = settings
        self.api_url = api_url
        self._connecting: asyncio.Task[Client] | None = None

    @property
    def settings(self) -> Settings:
        """The settings.

        Raises:
            CheckSkipped: the settings are wrong.
        """
        if isinstance(self._settings, CofounderError):
            raise CheckSkipped("skipped until the settings are right")
        return self._settings

    async def check_settings(self) -> CheckResult:
        """Check that the settings are valid and allow builds."""
        if isinstance(self._settings, CofounderError):
            return fail(str(self._settings))
        if not self._settings.autonomous_agent:
            return warn("every variable is valid, but AUTONOMOUS_AGENT is false: builds neither start nor continue")
        return ok("every variable is valid")

    async def connect(self) -> Client:
        """The connection to Temporal.

        Raises:
            Misconfigured: Temporal does not answer, or its configuration is wrong.
        """
        if self._connecting is None:
            self._connecting = asyncio.create_task(connect_temporal())
        return await asyncio.shield(self._connecting)

    async def temporal(self) -> Client:
        """The connection to Temporal, for checks of other things.

        Raises:
            CheckSkipped: Temporal does not answer.
        """
        try:
            return await self.connect()
        except Misconfigured:
            raise CheckSkipped("skipped, since Temporal does not answer") from None


Check = Callable[[DoctorContext], Awaitable[CheckResult]]
