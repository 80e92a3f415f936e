"""A ready build's preview: its product, running in a sandbox of its own for a limited time."""

import uuid
from collections.abc import Mapping

import structlog
from temporalio import activity

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.sandbox.product import (
    OutcomeUnknown,
    is_served,
    keep_only_the_commit,
    kill_all,
    read_log,
    read_optional,
    read_product,
    run_step,
    start_product,
    wait_for_page,
)
from activities.sandbox.snapshot_store import restore_snapshot
from activities.sandbox.step_output import step_outcome
from clients.cipher import Cipher
from clients.object_store import ObjectStore
from clients.sandbox import Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL
from db.feed import append_events
from db.previews import find_preview, record_log, record_preview, record_upstream, upstream_of
from db.project_secrets import secrets_of_build
from db.session import Sessions
from db.snapshots import final_snapshot
from db.transaction import transaction
from domain import evidence
from domain.errors import (
    BuildFailed,
    InvalidInput,
    SandboxGone,
    SandboxOverloaded,
    SandboxUnavailable,
    SecretUnreadable,
)
from domain.events import PreviewEvent
from domain.findings import Finding
from domain.payloads import OpenedPreview, PreviewChange, PreviewInput, SandboxInput
from domain.preview_address import preview_address
from domain.product import ProductManifest
from domain.product_secrets import stand_ins
from domain.text import storable
from domain.traffic import port_of
from services.permits import Permits
from services.product_secrets import open_secrets

_RESTORED = f"{JOURNAL}/preview"
"""A file in the sandbox that says that the snapshot is restored and reduced to its commit."""


_NAME = "preview"
"""Of the server, among those that `start_product` starts in a sandbox."""


_SEE_LOG = "The preview's log says more: cofounder preview --log."

_log = structlog.get_logger(__name__)


class PreviewActivities:
    """`open_preview`, `keep_preview`, `record_preview` and `close_preview`."""

    def __init__(
        self,
        sessions: Sessions,
        sandboxes: Sandboxes,
        store: ObjectStore,
        permits: Permits,
        cipher: Cipher,
        *,
        preview_url: str,
        command_seconds: float,
        start_seconds: float,
    ) -> None:
        """
        Args:
            preview_url: the setting PREVIEW_URL.
        """
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._permits = permits
        self._cipher = cipher
        self._preview_url = preview_url
        self._command_seconds = command_seconds
        self._start_seconds = start_seconds

    @activity.defn
    @application_errors
    async def open_preview(self, request: PreviewInput) -> OpenedPreview:
        """Take over the sandbox that the gate left running, if the product in it still answers.

        Otherwise start the product from the build's last snapshot, in a sandbox of its own. A product with secrets is
        started again in either case: in the gate it had stand-ins.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            NoPermit: no further sandbox may run now.
            BuildFailed: there is no snapshot, its secrets can't be read, or it does not start.
        """
        async with heartbeating(), self._permits.running(request.build_id, Role.PREVIEW):
            build_id = uuid.UUID(request.build_id)
            secrets = await self._read_secrets(build_id)
            if request.sandbox_id and (opened := await self._take_over(build_id, request.sandbox_id, secrets)):
                return opened
            try:
                return await self._start(build_id, request, secrets)
            except SandboxGone as error:
                raise SandboxUnavailable("The preview's sandbox went away; the preview opens again.") from error
            except (OutcomeUnknown, SandboxOverloaded) as error:
                await kill_all(self._sandboxes, request.build_id, Role.PREVIEW)
                raise OutcomeUnknown(str(error)) from error

    @activity.defn
    @application_errors
    async def keep_preview(self, request: SandboxInput) -> None:
        """Extend the sandbox's time to live. Note its traffic token if that is new: a worker of the previous version
        has opened the preview, or the sandbox service has changed it.

        Raises:
            SandboxGone: it does not exist any more.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating():
            sandbox = await self._sandboxes.connect(request.sandbox_id)
            async with transaction(self._sessions) as tx:
                preview = await find_preview(tx, build_id)
                known = None if preview is None else upstream_of(preview)
                if known is not None and sandbox.id in known.url:
                    upstream = sandbox.upstream(port_of(known.url))
                    if upstream != known:
                        await record_upstream(tx, build_id, upstream)

    @activity.defn
    @application_errors
    async def record_preview(self, request: PreviewChange) -> None:
        """Project the preview's state to its row and the feed. A change older than the row's is ignored.

        Raises:
            NotFound: the build was erased.
        """
        build_id = uuid.UUID(request.build_id)
        reason = None if request.reason is None else storable(request.reason)
        async with transaction(self._sessions) as tx:
            if not await record_preview(tx, request, reason):
                return
            expires_at = request.expires_at.isoformat() if request.expires_at else None
            event = PreviewEvent(state=request.state, url=request.url, expires_at=expires_at, reason=reason)
            await append_events(tx, build_id, [event])

    @activity.defn
    @application_errors
    async def close_preview(self, request: SandboxInput) -> None:
        """Kill the preview's sandbox, whether its own or taken over from the gate, and any that failed attempts left.
        Then give its permit back.

        Raises:
            SandboxUnavailable: another attempt may succeed.
        """
        async with heartbeating():
            killed = await kill_all(self._sandboxes, request.build_id, Role.PREVIEW, Role.GATE)
            if request.sandbox_id not in ("", *killed):
                await self._sandboxes.kill(request.sandbox_id)
            await self._permits.give_back(request.build_id)

    # ---- parts

    async def _read_secrets(self, build_id: uuid.UUID) -> dict[str, str]:
        """The product's secrets. They go into the environment of its `start`, and nowhere else.

        Raises:
            BuildFailed: one of them can't be decrypted; for the founder.
        """
        async with transaction(self._sessions) as tx:
            stored = await secrets_of_build(tx, build_id)
        try:
            return open_secrets(self._cipher, stored)
        except SecretUnreadable as problem:
            _log.error("a preview can't read its product's secrets", build_id=str(build_id), reason=problem)
            raise BuildFailed(
                f"{problem} The product is kept. Ask the operator to put the key back, or set the secret again; then "
                "open the preview."
            ) from problem

    async def _take_over(
        self, build_id: uuid.UUID, sandbox_id: str, secrets: Mapping[str, str]
    ) -> OpenedPreview | None:
        try:
            sandbox = await self._sandboxes.resume(sandbox_id)
            product = await read_product(sandbox)
            if secrets:
                served = await self._serve(build_id, sandbox, product, secrets) is None
            else:
                served = await is_served(sandbox, product)
        except (InvalidInput, SandboxGone, SandboxOverloaded):
            return None
        return await self._opened(build_id, sandbox, product) if served else None

    async def _start(self, build_id: uuid.UUID, request: PreviewInput, secrets: Mapping[str, str]) -> OpenedPreview:
        sandbox = await self._adopt_or_create(request)
        if await read_optional(sandbox, _RESTORED) is None:
            await self._restore(build_id, sandbox)
        try:
            product = await read_product(sandbox)
        except InvalidInput as problem:
            raise BuildFailed(str(problem)) from problem
        await self._install(build_id, sandbox, product, stand_ins(secrets))
        if failure := await self._serve(build_id, sandbox, product, secrets):
            raise BuildFailed(f"{failure.cause} {_SEE_LOG}")
        return await self._opened(build_id, sandbox, product)

    async def _opened(self, build_id: uuid.UUID, sandbox: Sandbox, product: ProductManifest) -> OpenedPreview:
        """Note where the product is reached, with its token, which must be in no history and so not in the result."""
        async with transaction(self._sessions) as tx:
            await record_upstream(tx, build_id, sandbox.upstream(product.port))
        return OpenedPreview(sandbox_id=sandbox.id, url=preview_address(self._preview_url, build_id))

    async def _serve(
        self, build_id: uuid.UUID, sandbox: Sandbox, product: ProductManifest, secrets: Mapping[str, str]
    ) -> Finding | None:
        """Start the product with its secrets and wait until it answers. Returns what is wrong if it does not.

        Its log goes into the preview's row, blanked, for the founder alone: not into an event, an error or a history.
        """
        values = list(secrets.values())
        await start_product(sandbox, _NAME, product.start, secrets)
        failure = await wait_for_page(sandbox, _NAME, product, self._start_seconds, secrets=values)
        log = failure.evidence if failure else (await read_log(sandbox, _NAME, values)).quoted("The log of `start`")
        await self._keep_log(build_id, log)
        return failure

    async def _keep_log(self, build_id: uuid.UUID, log: str) -> None:
        async with transaction(self._sessions) as tx:
            await record_log(tx, build_id, storable(log))

    async def _adopt_or_create(self, request: PreviewInput) -> Sandbox:
        """The sandbox that an earlier attempt created, else a new one. The gate's sandbox, which no longer serves, is
        killed."""
        existing = await self._sandboxes.find(request.build_id, Role.PREVIEW)
        if request.sandbox_id and request.sandbox_id not in existing:
            await self._sandboxes.kill(request.sandbox_id)
        for surplus in existing[1:]:
            await self._sandboxes.kill(surplus)
        if existing:
            return await self._sandboxes.resume(existing[0])
        return await self._sandboxes.create(request.build_id, Role.PREVIEW)

    async def _restore(self, build_id: uuid.UUID, sandbox: Sandbox) -> None:
        async with transaction(self._sessions) as tx:
            snapshot = await final_snapshot(tx, build_id)
        if snapshot is None:
            raise BuildFailed("This build has no snapshot to start a preview from.")
        await restore_snapshot(self._store, sandbox, snapshot)
        tree = await keep_only_the_commit(sandbox)
        if not tree.usable:
            raise BuildFailed(" ".join(tree.findings))
        await sandbox.write(_RESTORED, str(snapshot.number))

    async def _install(
        self, build_id: uuid.UUID, sandbox: Sandbox, product: ProductManifest, env: Mapping[str, str]
    ) -> None:
        outcome = await run_step(sandbox, "preview-install", product.install, self._command_seconds, env)
        if outcome.exit_code != 0:
            failure = evidence.install_failed(await step_outcome(sandbox, product.install, outcome))
            await self._keep_log(build_id, failure.evidence)
            raise BuildFailed(f"{failure.cause} {_SEE_LOG}")
