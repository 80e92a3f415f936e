"""The steps of an erasure. Each may run again: it finds what is left, and says how much that is."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore, ObjectVersion, image_key
from clients.sandbox import Role, Sandboxes
from db import builds, erasures, stored_exports
from db.images import images_noted, lock_erased_images, lock_images, noted_by_others
from db.models import Erasure
from db.session import Sessions
from db.transaction import transaction
from domain.errors import NotFound, TemporalUnavailable
from domain.names import build_workflow_id, delivery_workflow_id, export_workflow_id, preview_workflow_id
from domain.payloads import ErasureRef, ErasureStep
from services.builds import signal_cancel

_IMAGES_AT_ONCE = 50
"""Images deleted while no build can keep one, in a second or so."""

_DELETED = "What it was to have, or a part of that, is being deleted."


class ErasureActivities:
    """`stop_builds`, `end_sandboxes`, `erase_objects`, `erase_executions`, `erase_rows`, in this order: the rows say
    what else there is, so they go last."""

    def __init__(self, sessions: Sessions, workflows: BuildWorkflows, sandboxes: Sandboxes, store: ObjectStore) -> None:
        self._sessions = sessions
        self._workflows = workflows
        self._sandboxes = sandboxes
        self._store = store

    @activity.defn
    @application_errors
    async def stop_builds(self, request: ErasureRef) -> ErasureStep:
        """Cancel open builds, previews and exports. They clean up first, so some may be left for a while."""
        async with heartbeating():
            erasure, scope = await self._read(request)
            async with transaction(self._sessions) as tx:
                await stored_exports.fail_exports(tx, scope.exports, _DELETED)
                unwritten = await stored_exports.unwritten_exports(tx, scope.exports)
                opened = await erasures.open_builds(tx, erasure, scope)
                previews = await erasures.open_previews(tx, scope.builds)
                for build in opened:
                    await builds.request_cancel(tx, build.id)
            for build in opened:
                await signal_cancel(self._sessions, self._workflows, build)
            left = len(opened)
            for build_id in previews:
                try:
                    await self._workflows.cancel_preview(build_id)
                    left += 1
                except NotFound:
                    continue  # its workflow has ended, so nothing keeps the product running
            for export_id in unwritten:
                left += await self._workflows.stop_export(export_id)
            return ErasureStep(left=left)

    @activity.defn
    @application_errors
    async def end_sandboxes(self, request: ErasureRef) -> ErasureStep:
        """End the sandboxes of the builds, paused ones too."""
        async with heartbeating():
            _, scope = await self._read(request)
            found = await self._find_sandboxes(scope.builds)
            await self._note(request, sandboxes=len(found))
            for sandbox in found:
                await self._sandboxes.kill(sandbox)
            return ErasureStep()

    async def _find_sandboxes(self, of_builds: Sequence[uuid.UUID]) -> list[str]:
        return [
            sandbox
            for build_id in of_builds
            for role in Role
            for sandbox in await self._sandboxes.find(str(build_id), role)
        ]

    @activity.defn
    @application_errors
    async def erase_objects(self, request: ErasureRef) -> ErasureStep:
        """Delete the builds' objects with all versions of them, and unfinished uploads; also images that no other
        build has seen."""
        async with heartbeating():
            _, scope = await self._read(request)
            uploads, objects = await self._uploads(scope), await self._objects(scope)
            images = await self._images(scope)
            found = [*objects, *await self._versions_of(images)]
            await self._note(request, objects=len(found), uploads=len(uploads))
            for prefix in scope.prefixes:
                await self._store.abort_uploads(prefix)
            await self._store.delete_versions(objects)
            for start in range(0, len(images), _IMAGES_AT_ONCE):
                await self._delete_images(scope, images[start : start + _IMAGES_AT_ONCE])
            return ErasureStep()

    async def _objects(self, scope: erasures.Scope) -> list[ObjectVersion]:
        return [version for prefix in scope.prefixes for version in await self._store.versions(prefix)]

    async def _images(self, scope: erasures.Scope) -> Sequence[str]:
        async with transaction(self._sessions) as tx:
            return sorted(await erasures.images_of(tx, scope.builds))

    async def _versions_of(self, images: Sequence[str]) -> list[ObjectVersion]:
        return [version for image in images for version in await self._store.versions(image_key(image))]

    async def _delete_images(self, scope: erasures.Scope, images: Sequence[str]) -> None:
        """Delete images that no other build has seen since. One that sees one of them now stores it again."""
        async with transaction(self._sessions) as tx:
            await lock_images(tx)
            seen = await noted_by_others(tx, images, scope.builds)
            await self._store.delete_versions(await self._versions_of([each for each in images if each not in seen]))

    async def _uploads(self, scope: erasures.Scope) -> list[str]:
        return [key for prefix in scope.prefixes for key in await self._store.unfinished_uploads(prefix)]

    @activity.defn
    @application_errors
    async def erase_executions(self, request: ErasureRef) -> ErasureStep:
        """Have Temporal delete the histories of builds, previews, deliveries and exports. It does so soon after."""
        async with heartbeating():
            _, scope = await self._read(request)
            runs = await self._executions(scope)
            await self._note(request, executions=len(runs))
            with _temporal_errors():
                for workflow_id, run_id in runs:
                    await self._workflows.delete_execution(workflow_id, run_id)
            return ErasureStep(left=len(runs))

    async def _executions(self, scope: erasures.Scope) -> list[tuple[str, str]]:
        """The runs that Temporal still has, by the ids of their workflows."""
        async with transaction(self._sessions) as tx:
            deliveries = await erasures.deliveries_of(tx, scope.builds)
        ids = [delivery_workflow_id(each) for each in deliveries]
        ids += [name(each) for each in scope.builds for name in (build_workflow_id, preview_workflow_id)]
        ids += [export_workflow_id(each) for each in scope.exports]
        with _temporal_errors():
            return [(each, run) for each in ids for run in await self._workflows.executions_of(each)]

    @activity.defn
    @application_errors
    async def erase_rows(self, request: ErasureRef) -> ErasureStep:
        """Delete the rows and close the erasure with its certificate, in one transaction; if something is left
        elsewhere, do nothing and say so."""
        async with heartbeating():
            erasure, scope = await self._read(request)
            if erasure.finished_at is not None:
                return ErasureStep()
            # A store may keep the last marker of a bucket whose versions are suspended; it has no content.
            images = await self._images(scope)
            found = [*await self._objects(scope), *await self._versions_of(images)]
            contents = [each for each in found if not each.is_marker]
            uploads = await self._uploads(scope)
            left = len(contents) + len(uploads) + len(await self._find_sandboxes(scope.builds))
            left += len(await self._executions(scope))
            if left:
                return ErasureStep(left=left)
            async with transaction(self._sessions) as tx:
                await lock_erased_images(tx)
                now = await erasures.lock_scope(tx, erasure)
                opened = await erasures.open_builds(tx, erasure, now)
                noted = await images_noted(tx, now.builds)
                further_images = noted - await noted_by_others(tx, noted, now.builds) - {*images}
                if further := len(opened) + now.beyond(scope) + len(further_images):
                    return ErasureStep(left=further)
                await erasures.erase_rows(tx, erasure, now)
                await erasures.finish(tx, erasure.id)
            return ErasureStep()

    async def _read(self, request: ErasureRef) -> tuple[Erasure, erasures.Scope]:
        async with transaction(self._sessions) as tx:
            erasure = await erasures.find_erasure(tx, uuid.UUID(request.erasure_id), None)
            if erasure is None:
                raise NotFound(f"There is no erasure {request.erasure_id}.")
            return erasure, await erasures.read_scope(tx, erasure)

    async def _note(self, request: ErasureRef, **counts: int) -> None:
        async with transaction(self._sessions) as tx:
            await erasures.note_counts(tx, uuid.UUID(request.erasure_id), counts)


@contextmanager
def _temporal_errors() -> Iterator[None]:
    """Turns Temporal's not answering into an error of ours, after which the step waits."""
    try:
        yield
    except RPCError as error:
        if error.status is RPCStatusCode.UNAVAILABLE:
            raise TemporalUnavailable from error
        raise
