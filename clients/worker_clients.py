"""The clients that a worker's activities share: opened, checked and closed together."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from temporalio.client import Client

from clients.browser import Browser, find_chromium
from clients.build_workflows import BuildWorkflows
from clients.model.protocol import Providers
from clients.model.providers import open_providers
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes, sandbox_config
from domain.errors import NeedsPerson, SandboxUnavailable, StoreUnavailable
from settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WorkerClients:
    """One of each. `workflows` starts and signals builds and previews in Temporal."""

    store: ObjectStore
    providers: Providers
    sandboxes: Sandboxes
    browser: Browser
    workflows: BuildWorkflows


@asynccontextmanager
async def open_worker_clients(
    settings: Settings, temporal: Client, browser: Browser | None = None
) -> AsyncIterator[WorkerClients]:
    """Open the clients and check their servers; close them at the end of the block.

    Args:
        browser: one that the caller shares and closes; None starts one for these clients.

    Raises:
        Misconfigured: a server is missing or wrong; the message says which one, and what to do.
    """
    async with AsyncExitStack() as closing:
        store = await closing.enter_async_context(ObjectStore(store_config(settings)))
        await _check(store.check)
        providers = await closing.enter_async_context(open_providers(settings))
        sandboxes = Sandboxes(sandbox_config(settings))
        closing.push_async_callback(sandboxes.close)
        await _check(sandboxes.check)
        if browser is None:
            browser = Browser(find_chromium(settings.chromium_path))
            closing.push_async_callback(browser.close)
        workflows = BuildWorkflows(temporal, settings.temporal_task_queue)
        yield WorkerClients(store, providers, sandboxes, browser, workflows)


async def _check(check: Callable[[], Awaitable[None]]) -> None:
    """Check a server.

    One that is away is only logged: builds that need it wait for it. A rejected key, too: as with the model's key,
    builds keep their work and wait for an operator, and a worker with a valid key continues them.

    Raises:
        Misconfigured: it is the wrong server, or what it needs is missing there.
    """
    try:
        await check()
    except NeedsPerson as error:
        _log.error("builds will wait for an operator", reason=str(error))
    except (StoreUnavailable, SandboxUnavailable) as error:
        _log.warning("a server is away, and builds will wait for it", reason=str(error))
