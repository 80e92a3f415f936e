"""Start, cancel and wake builds.

A build's row is committed before its workflow is started. If the process dies in between, or Temporal goes away, the
reaper or a repeat of the request starts the workflow.
"""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from temporalio.service import RPCError

from clients.build_workflows import BuildToStart, BuildWorkflows
from db import access, builds, steering, switches
from db.builds import BuildRequest
from db.models import Build, Snapshot, User
from db.organisations import lock_members
from db.projects import find_project
from db.session import Access, Sessions
from db.transaction import Transaction, request_transaction
from db.users import load_user_with_plan, require_user
from domain.audit import Action
from domain.errors import (
    AccountSuspended,
    BuildClosed,
    DatabaseUnavailable,
    KeyReused,
    KillSwitchOn,
    Misconfigured,
    NotFound,
    OpenBuildExists,
    Refused,
    TemporalUnavailable,
    UnknownModel,
)
from domain.identity import CHANGING_ROLES, Right
from domain.model_choice import CODER, ModelChoice
from domain.switches import SwitchScope, refusal
from services.audit import record
from services.deployment import check_deployment
from services.starts import check_new_build, choose_start, open_build_exists

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StartedBuild:
    """The build of a request. `is_new` is False if an earlier request with the same key made it."""

    build_id: uuid.UUID
    is_new: bool


async def start_build(
    sessions: Sessions, workflows: BuildWorkflows, request: BuildRequest, *, autonomous_agent: bool
) -> StartedBuild:
    """Commit the build's row, then start its workflow.

    Args:
        autonomous_agent: False while the kill switch is on; then only a repeat of an earlier request succeeds.

    Raises:
        NotFound, Refused, Conflict, DependencyUnavailable: refused; no row was made.
    """
    reachable = await workflows.is_reachable()
    async with request_transaction(sessions) as tx:
        project = await find_project(tx, request.user_id, request.project_id)
        if project is None:
            raise NotFound(f"There is no project {request.project_id}.")
        # Until the row is committed: the builds of a member who is removed are cancelled, and this one with them.
        await lock_members(tx, project.org_id, shared=True)
        await require_right(tx, request.user_id, project.id, Right.CHANGE)
        user = await require_user(tx, request.user_id)
        build = await _find_by_key(tx, request)
        is_new = build is None
        if build is None:
            off = await find_switched_off(tx, user.id, autonomous_agent=autonomous_agent)
            _require_startable(user, off, reachable=reachable)
            start = await choose_start(tx, user.id, project.id, request.start_from)
            build, is_new = await _insert_or_find(tx, request, start)
        if is_new:
            await check_new_build(tx, build)
            await record(tx, Action.BUILD_START, project_id=project.id, build_id=build.id)
    if build.started_at is None and build.closed_at is None:
        await _start_or_leave_to_reaper(sessions, workflows, build, user.plan)
    return StartedBuild(build.id, is_new)


async def find_switched_off(tx: Transaction, user_id: str, *, autonomous_agent: bool) -> SwitchScope | None:
    """The scope of a switch that is off for a new build of the user. One of FALLBACK_MODEL holds the build later.

    `autonomous_agent`: False while the kill switch of the settings is on.
    """
    if not autonomous_agent:
        return SwitchScope.FLEET
    user, plan = await load_user_with_plan(tx, user_id)
    models = []
    with suppress(UnknownModel):
        value = user.model_overrides.get(CODER) or plan.default_models.get(CODER)
        models = [] if value is None else [ModelChoice.parse(value).model]
    return await switches.find_off(tx, user_id, plan.name, models)


def _require_startable(user: User, off: SwitchScope | None, *, reachable: bool) -> None:
    if user.suspended:
        raise AccountSuspended("Your account is suspended, so no build was started. Ask the operator of this service.")
    if off is not None:
        raise KillSwitchOn(refusal(off))
    if not reachable:
        raise TemporalUnavailable


async def _insert_or_find(tx: Transaction, request: BuildRequest, start: Snapshot | None) -> tuple[Build, bool]:
    """Insert the build's row; if a concurrent request with the same key was faster, return its row and False.

    Raises:
        OpenBuildExists: the project has an open build.
    """
    build = await builds.insert_build(tx, request, start)
    if build is not None:
        return build, True
    # The row of the faster request is committed by now, and this transaction reads what is committed.
    earlier = await _find_by_key(tx, request)
    if earlier is not None:
        return earlier, False
    open_build = await builds.find_open_build(tx, request.project_id)
    if open_build is None:
        raise OpenBuildExists("Another build of this project ended just now. Send the request again.")
    raise open_build_exists(open_build)


async def _find_by_key(tx: Transaction, request: BuildRequest) -> Build | None:
    if request.idempotency_key is None:
        return None
    earlier = await builds.find_build_by_key(tx, request.user_id, request.idempotency_key)
    if earlier is not None and earlier.body_hash != request.body_hash:
        raise KeyReused(
            "This Idempotency-Key was used for another request. Use a new key for a new build.",
            {"build_id": str(earlier.id)},
        )
    return earlier


# ---- workflows of committed rows


async def start_workflow(sessions: Sessions, workflows: BuildWorkflows, build: Build, plan: str) -> None:
    """Start the workflow of a committed row, then mark the row as started. A repeat starts nothing twice.

    Raises:
        RPCError, RuntimeError: Temporal did not take it.
        Misconfigured: Temporal lacks the search attributes and they can't be registered, or the database is bound to
            another namespace.
        DatabaseUnavailable: the row could not be marked.
    """
    # The API starts without its servers, so this may be the first time that both are reached.
    await check_deployment(sessions, workflows)
    await workflows.start(
        BuildToStart(
            build_id=build.id,
            user_id=build.user_id,
            project_id=build.project_id,
            plan=plan,
        )
    )
    # The user may just have lost the right to change it, and the workflow runs all the same.
    async with request_transaction(sessions.acting(Access.everything())) as tx:
        await builds.mark_started(tx, build.id)


async def start_if_unstarted(sessions: Sessions, workflows: BuildWorkflows, build: Build) -> None:
    """Start the workflow of an open build if a crash left its row without one.

    Raises:
        DatabaseUnavailable: the plan could not be read.
    """
    if build.started_at is not None or build.closed_at is not None:
        return
    # Another member may be the one who pays for the build.
    async with request_transaction(sessions.acting(Access.everything())) as tx:
        user = await require_user(tx, build.user_id)
    await _start_or_leave_to_reaper(sessions, workflows, build, user.plan)


async def _start_or_leave_to_reaper(sessions: Sessions, workflows: BuildWorkflows, build: Build, plan: str) -> None:
    try:
        await start_workflow(sessions, workflows, build, plan)
    except (RPCError, RuntimeError, Misconfigured, DatabaseUnavailable) as error:
        log.warning("the reaper will start the build", build_id=str(build.id), error=error)


# ---- open builds


async def require_build(tx: Transaction, user_id: str, build_id: uuid.UUID, right: Right = Right.READ) -> Build:
    """The build, if it exists and this user has the right to it.

    Raises:
        NotFound: there is no such build, or the user may not see it.
        Refused: the user may see it and not change it.
    """
    build = await builds.find_build(tx, user_id, build_id)
    if build is None:
        raise _no_build(build_id)
    await require_right(tx, user_id, build.project_id, right)
    return build


async def require_right(tx: Transaction, user_id: str, project_id: uuid.UUID, right: Right) -> None:
    """Refuse a user who may see a project without the right to it.

    Raises:
        Refused: the user is a viewer, who can't change the project.
    """
    if right is Right.READ or await access.find_role(tx, user_id, project_id) in CHANGING_ROLES:
        return
    raise Refused(
        "You are a viewer of this project: only owners and members of its organisation can change it. Ask one of its "
        "owners to make you a member."
    )


async def lock_build(tx: Transaction, user_id: str, build_id: uuid.UUID) -> Build:
    """The build's row, locked until the transaction ends.

    Raises:
        NotFound: there is no such build, or the user may not see it.
        Refused: the user may see it and not change it.
    """
    build = await steering.lock_build(tx, build_id, user_id)
    if build is None:
        raise _no_build(build_id)
    await require_right(tx, user_id, build.project_id, Right.CHANGE)
    return build


async def cancel_build(sessions: Sessions, workflows: BuildWorkflows, user_id: str, build_id: uuid.UUID) -> None:
    """Note that the founder wants the build to end, then ask its workflow to. It cleans up first.

    Raises:
        NotFound, BuildClosed, DatabaseUnavailable: nothing was changed.
        TemporalUnavailable: the wish is stored; the reaper asks again.
    """
    async with request_transaction(sessions) as tx:
        build = await require_build(tx, user_id, build_id, Right.CHANGE)
        await note_cancel(tx, build)
    await signal_cancel(sessions, workflows, build)


async def wake_build(sessions: Sessions, workflows: BuildWorkflows, user_id: str, build_id: uuid.UUID) -> None:
    """Have a build that sleeps or waits check again whether it can continue.

    Raises:
        NotFound, BuildClosed, DependencyUnavailable: nothing was changed.
    """
    async with request_transaction(sessions) as tx:
        build = await require_build(tx, user_id, build_id, Right.CHANGE)
        await note_wake(tx, build)
    await signal_wake(sessions, workflows, build)


async def finish_build(sessions: Sessions, workflows: BuildWorkflows, user_id: str, build_id: uuid.UUID) -> None:
    """Have a build's product checked as it is, instead of going on. It becomes ready if it passes.

    Raises:
        NotFound, Refused, BuildClosed, DependencyUnavailable: nothing was changed.
    """
    async with request_transaction(sessions) as tx:
        build = await require_build(tx, user_id, build_id, Right.CHANGE)
        await note_finish(tx, build)
    await signal_finish(sessions, workflows, build)


# ---- the parts of these acts: in a transaction, and after it


async def note_cancel(tx: Transaction, build: Build, bulk_run: uuid.UUID | None = None) -> None:
    """Write down that a build is to end. Signal it once this is committed.

    Args:
        bulk_run: the act on many builds of which this is a part.

    Raises:
        BuildClosed: it has ended.
    """
    if not await builds.request_cancel(tx, build.id):
        raise _closed(build)
    await _record(tx, Action.BUILD_CANCEL, build, bulk_run)


async def note_wake(tx: Transaction, build: Build, bulk_run: uuid.UUID | None = None) -> None:
    """Write down that a build is woken, as `note_cancel` does.

    Raises:
        BuildClosed: it has ended.
    """
    if build.closed_at is not None:
        raise _closed(build)
    await _record(tx, Action.BUILD_WAKE, build, bulk_run)


async def note_finish(tx: Transaction, build: Build, bulk_run: uuid.UUID | None = None) -> None:
    """Write down that a build's product is to be checked as it is, as `note_cancel` does.

    Raises:
        BuildClosed: it has ended.
    """
    if build.closed_at is not None:
        raise _closed(build)
    await _record(tx, Action.BUILD_FINISH, build, bulk_run)


async def _record(tx: Transaction, action: Action, build: Build, bulk_run: uuid.UUID | None) -> None:
    user_id = None if bulk_run is None else build.user_id
    await record(tx, action, user_id=user_id, project_id=build.project_id, build_id=build.id, bulk_run=bulk_run)


async def signal_cancel(sessions: Sessions, workflows: BuildWorkflows, build: Build) -> bool:
    """Ask the workflow of a build whose cancel is committed to end. Return False if there is no running workflow.

    Raises:
        TemporalUnavailable: the reaper asks again.
    """
    return await _signal(sessions, workflows, build, workflows.cancel)


async def signal_wake(
    sessions: Sessions, workflows: BuildWorkflows, build: Build, request_id: str | None = None
) -> bool:
    """Have the workflow of a build check whether it can continue. Return False if there is no running workflow.

    Args:
        request_id: Temporal takes the signal once, however often it is sent with this id.

    Raises:
        TemporalUnavailable: it may not have received it.
    """
    return await _signal(sessions, workflows, build, partial(workflows.wake, request_id=request_id))


async def signal_finish(
    sessions: Sessions, workflows: BuildWorkflows, build: Build, request_id: str | None = None
) -> bool:
    """Have the workflow of a build check the product as it is, as `signal_wake` does.

    Raises:
        TemporalUnavailable: it may not have received it.
    """
    return await _signal(sessions, workflows, build, partial(workflows.finish, request_id=request_id))


async def _signal(
    sessions: Sessions, workflows: BuildWorkflows, build: Build, send: Callable[[uuid.UUID], Awaitable[None]]
) -> bool:
    await start_if_unstarted(sessions, workflows, build)
    try:
        await send(build.id)
    except NotFound:
        # The workflow ends just now, or was terminated. The row follows by itself.
        log.info("there is no running workflow to signal", build_id=str(build.id))
        return False
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable from error
    return True


def _no_build(build_id: uuid.UUID) -> NotFound:
    return NotFound(f"There is no build {build_id}.")


def _closed(build: Build) -> BuildClosed:
    return BuildClosed(f"Build {build.id} has ended: it is {build.status}.")
