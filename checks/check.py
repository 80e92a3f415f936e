"""The result of a check of the servers, and the context that all checks share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import Client
from temporalio.service import RPCError

from clients.temporal import connect_temporal
from db.session import Access, Sessions, make_engine, make_sessions
from db.transaction import Transaction, transaction
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


@dataclass(frozen=True)
class RunningApi:
    """The connections that an API has, for checks that it makes itself."""

    sessions: Sessions
    temporal: Client


class CheckContext:
    """What the checks share: the settings, or the error of reading them, and connections.

    - `api_url`: where our API is, if not at COFOUNDER_API_URL.
    - `api`: the connections of the API that makes the checks; None if a command makes them, which opens its own.
    """

    def __init__(
        self, settings: Settings | CofounderError, api_url: str | None = None, api: RunningApi | None = None
    ) -> None:
        self._settings = settings
        self.api_url = api_url
        self.api = api
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

    def needs_key(self, name: str, key: object | None) -> None:
        """Skip a check for which the API has no key. The workers need it, and the API may do without.

        Raises:
            CheckSkipped: says where the check can be made.
        """
        if key is None and self.api is not None:
            raise CheckSkipped(f"not checked: the API has no {name}. Run `cofounder doctor` on a worker's machine")

    def secrets(self) -> list[str]:
        """What no result may quote."""
        return [] if isinstance(self._settings, CofounderError) else self._settings.secret_values()

    async def check_settings(self) -> CheckResult:
        """Check that the settings are valid and allow builds."""
        if isinstance(self._settings, CofounderError):
            return fail(str(self._settings))
        if not self._settings.autonomous_agent:
            return warn("every variable is valid, but AUTONOMOUS_AGENT is false: builds neither start nor continue")
        return ok("every variable is valid")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Transaction]:
        """A transaction that sees every row.

        Raises:
            OSError, SQLAlchemyError: the database can't be used.
        """
        if self.api is not None:
            async with transaction(self.api.sessions.acting(Access.everything())) as tx:
                yield tx
            return
        engine = make_engine(self.settings.database_url, pool_size=1)
        try:
            async with transaction(make_sessions(engine).acting(Access.everything())) as tx:
                yield tx
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[Transaction]:
        """A transaction, for checks of other things than the database.

        Raises:
            CheckSkipped: the database can't be used.
        """
        try:
            async with self.database() as tx:
                yield tx
        except (OSError, SQLAlchemyError):
            raise CheckSkipped("skipped, since the database can't be used") from None

    async def connect(self) -> Client:
        """The connection to Temporal.

        Raises:
            Misconfigured: Temporal does not answer, or its configuration is wrong.
        """
        if self.api is not None:
            await _reach(self.api.temporal)
            return self.api.temporal
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


async def _reach(client: Client) -> None:
    """Find out whether Temporal answers: a lazy client connects at its first call."""
    try:
        await client.service_client.check_health(timeout=timedelta(seconds=3))
    except (RPCError, RuntimeError) as error:
        address = client.service_client.config.target_host
        raise Misconfigured(
            f"Temporal does not answer at {address}. Start it, or set TEMPORAL_ADDRESS to its address. ({error})"
        ) from error


Check = Callable[[CheckContext], Awaitable[CheckResult]]
