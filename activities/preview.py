"""A ready build's preview: the product running in a sandbox of its own, for a while."""

import uuid

from sqlalchemy.dialects.postgresql import insert
from temporalio import activity

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.sandbox.product import (
    OutcomeUnknown,
    is_served,
    keep_only_the_commit,
    kill_all,
    read_if_there,
    read_product,
    run_step,
    start_product,
    wait_for_page,
)
from activities.sandbox.snapshot_store import restore_snapshot
from clients.object_store import ObjectStore
from clients.sandbox import Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL
from db.feed import append_events
from db.models import Preview
from db.session import Sessions
from db.snapshots import final_snapshot
from domain.errors import BuildFailed, InvalidInput, SandboxGone, SandboxUnavailable
from domain.events import EventType, NewEvent
from domain.payloads import OpenedPreview, PreviewChange, PreviewInput, SandboxInput
from domain.product import ProductManifest
from domain.text import storable

_RESTORED = f"{JOURNAL}/preview"
"""In the sandbox: the snapshot is restored and reduced to its commit."""

_NAME = "preview"


class PreviewActivities:
    """`open_preview`, `keep_preview`, `record_preview` and `close_preview`."""

    def __init__(
        self,
        sessions: Sessions,
        sandboxes: Sandboxes,
        store: ObjectStore,
        *,
        command_seconds: float,
        start_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._command_seconds = command_seconds
        self._start_seconds = start_seconds

    @activity.defn
    @application_errors
    async def open_preview(self, request: PreviewInput) -> OpenedPreview:
        """Take over the sandbox that the gate has left running, if its product still answers; else start the product
        again from the build's last snapshot, in a sandbox of its own.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            BuildFailed: there is no snapshot, or the product does not start; for the founder.
        """
        async with heartbeating():
            if request.sandbox_id and (taken := await self._take_over(request.sandbox_id)):
                return taken
            try:
                return await self._start(uuid.UUID(request.build_id), request)
            except SandboxGone as error:
                raise SandboxUnavailable("The preview's sandbox went away; it is opened again.") from error
            except OutcomeUnknown:
                await kill_all(self._sandboxes, request.build_id, Role.PREVIEW)
                raise

    @activity.defn
    @application_errors
    async def keep_preview(self, request: SandboxInput) -> None:
        """Extend the sandbox's time to live.

        Raises:
            SandboxGone: it is not there any more.
        """
        async with heartbeating():
            await self._sandboxes.connect(request.sandbox_id)

    @activity.defn
    @application_errors
    async def record_preview(self, request: PreviewChange) -> None:
        """Project the preview's state to its row and the feed. An older change than the row's changes nothing."""
        build_id = uuid.UUID(request.build_id)
        reason = None if request.reason is None else storable(request.reason)
        values = {
            "state": request.state,
            "seq": request.seq,
            "sandbox_id": request.sandbox_id,
            "url": request.url,
            "reason": reason,
            "expires_at": request.expires_at,
        }
        async with self._sessions.begin() as session:
            written = await session.scalar(
                insert(Preview)
                .values(build_id=build_id, **values)
                .on_conflict_do_update(index_elements=["build_id"], set_=values, where=Preview.seq < request.seq)
                .returning(Preview.seq)
            )
            if written is None:
                return
            expires_at = request.expires_at.isoformat() if request.expires_at else None
            data = {"state": request.state, "url": request.url, "expires_at": expires_at, "reason": reason}
            await append_events(session, build_id, [NewEvent(EventType.PREVIEW, data)])

    @activity.defn
    @application_errors
    async def close_preview(self, request: SandboxInput) -> None:
        """Kill the preview's sandbox, the gate's that it took over, and any that a failed attempt has left.

        Raises:
            SandboxUnavailable: another attempt may succeed.
        """
        async with heartbeating():
            killed = await kill_all(self._sandboxes, request.build_id, Role.PREVIEW, Role.GATE)
            if request.sandbox_id not in ("", *killed):
                await self._sandboxes.kill(request.sandbox_id)

    # ---- parts

    async def _take_over(self, sandbox_id: str) -> OpenedPreview | None:
        try:
            sandbox = await self._sandboxes.resume(sandbox_id)
            product = await read_product(sandbox)
            if await is_served(sandbox, product):
                return OpenedPreview(sandbox_id=sandbox.id, url=sandbox.url(product.port))
        except (InvalidInput, SandboxGone):
            pass
        return None

    async def _start(self, build_id: uuid.UUID, request: PreviewInput) -> OpenedPreview:
        sandbox = await self._adopt_or_create(request)
        if await read_if_there(sandbox, _RESTORED) is None:
            await self._restore(build_id, sandbox)
        try:
            product = await read_product(sandbox)
        except InvalidInput as problem:
            raise BuildFailed(str(problem)) from problem
        await self._install(sandbox, product)
        await start_product(sandbox, _NAME, product.start)
        if trouble := await wait_for_page(sandbox, _NAME, product, self._start_seconds):
            raise BuildFailed(trouble)
        return OpenedPreview(sandbox_id=sandbox.id, url=sandbox.url(product.port))

    async def _adopt_or_create(self, request: PreviewInput) -> Sandbox:
        """The preview's sandbox of an attempt before, else a new one. A gate's that does not answer any more goes."""
        found = await self._sandboxes.find(request.build_id, Role.PREVIEW)
        if request.sandbox_id and request.sandbox_id not in found:
            await self._sandboxes.kill(request.sandbox_id)
        for surplus in found[1:]:
            await self._sandboxes.kill(surplus)
        if found:
            return await self._sandboxes.resume(found[0])
        return await self._sandboxes.create(request.build_id, Role.PREVIEW)

    async def _restore(self, build_id: uuid.UUID, sandbox: Sandbox) -> None:
        async with self._sessions.begin() as session:
            snapshot = await final_snapshot(session, build_id)
        if snapshot is None:
            raise BuildFailed("This build has no snapshot that a preview could be started from.")
        await restore_snapshot(self._store, sandbox, snapshot)
        tree = await keep_only_the_commit(sandbox)
        if not tree.usable:
            raise BuildFailed(" ".join(tree.findings))
        await sandbox.write(_RESTORED, str(snapshot.number))

    async def _install(self, sandbox: Sandbox, product: ProductManifest) -> None:
        outcome = await run_step(sandbox, "preview-install", product.install, self._command_seconds)
        if outcome.exit_code != 0:
            raise BuildFailed(f"The product's install ended with exit code {outcome.exit_code}: {outcome.tail[-1000:]}")
