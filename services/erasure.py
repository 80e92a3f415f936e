"""Have a project or a founder erased. The row is committed first; then a workflow does it, step by step."""

import uuid
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import access, erasures
from db.models import Erasure
from db.projects import lock_project
from db.session import Access, Sessions
from db.transaction import Transaction, request_transaction, transaction
from db.users import UserChange, change_user, require_user
from domain.audit import Action
from domain.erasure import ErasureKind
from domain.errors import Conflict, LastOwner, NotFound, Refused
from domain.identity import Role
from services.audit import record

log = structlog.get_logger(__name__)

_YOUNG = timedelta(seconds=15)
"""Leave younger rows alone: the request that made them starts the workflow itself."""

_PERHAPS_GONE = timedelta(hours=1)
"""Start the workflow of an erasure again after this time. One that still runs is left alone."""


async def erase_project(
    sessions: Sessions, workflows: BuildWorkflows, user_id: str, project_id: uuid.UUID, name: str
) -> Erasure:
    """Have a project erased with all that it has. A repeat returns the same erasure.

    Args:
        name: the project's name, as typed by the one who asks.

    Raises:
        NotFound, Refused, Conflict: nothing is erased.
    """
    async with request_transaction(sessions) as tx:
        project = await lock_project(tx, user_id, project_id, against_builds=True)
        if project is None:
            raise NotFound(f"There is no project {project_id}.")
        if await access.find_role(tx, user_id, project_id) is not Role.OWNER:
            raise Refused("Only an owner of the project's organisation can delete it. Ask one of them.")
        if name != project.name:
            raise Conflict("That is not the project's name. Send its name, as a confirmation.")
        requested_by = user_id if tx.author is None else tx.author.actor
        erasure = await erasures.insert_erasure(tx, ErasureKind.PROJECT, user_id, project_id, requested_by)
        if erasure is None:
            erasure = await erasures.find_erasure_of(tx, user_id, project_id)
            if erasure is None:
                raise Conflict("The project is being deleted already. Wait until it is gone.")
        else:
            await erasures.archive_all(tx, [project_id])
            await record(tx, Action.PROJECT_ERASE, project_id=project_id, org_id=project.org_id, erasure_id=erasure.id)
    await _start_or_leave_to_reaper(sessions, workflows, erasure)
    return erasure


async def erase_user(
    sessions: Sessions, workflows: BuildWorkflows, user_id: str, requested_by: str, *, confirmed: str
) -> Erasure:
    """Have a founder erased with all projects that no one else is a member of. A repeat returns the same erasure.

    The founder is suspended at once.

    Args:
        sessions: with access to every row: what a founder has is not only the founder's.
        confirmed: the founder's id, as typed by the one who asks.

    Raises:
        NotFound: there is no such user.
        Conflict: the confirmation is another one.
        LastOwner: an organisation with other members would have no owner.
    """
    async with request_transaction(sessions) as tx:
        await require_user(tx, user_id)
        if confirmed != user_id:
            raise Conflict("That is not the user's id. Send the id of the user who is to be erased, as a confirmation.")
        if names := await erasures.organisations_left_ownerless(tx, user_id):
            raise LastOwner(
                f"{user_id} is the only owner of {', '.join(names)}, which has other members. "
                "Make one of them an owner first."
            )
        erasure = await erasures.insert_erasure(tx, ErasureKind.USER, user_id, None, requested_by)
        if erasure is None:
            erasure = await erasures.find_erasure_of(tx, user_id, None)
            assert erasure is not None, "its insertion was refused because it is there"
        else:
            await change_user(tx, user_id, UserChange(suspended=True), datetime.now(UTC).date())
            await erasures.lock_scope(tx, erasure)
            await record(tx, Action.USER_ERASE, user_id=user_id, erasure_id=erasure.id)
    await _start_or_leave_to_reaper(sessions, workflows, erasure)
    return erasure


async def require_erasure(tx: Transaction, user_id: str, erasure_id: uuid.UUID, *, of_anyone: bool) -> Erasure:
    """The erasure.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    erasure = await erasures.find_erasure(tx, erasure_id, None if of_anyone else user_id)
    if erasure is None:
        raise NotFound(f"There is no erasure {erasure_id}.")
    return erasure


async def require_account_erasure(tx: Transaction, erasure_id: uuid.UUID) -> Erasure:
    """The erasure of an account, for anyone who has its id: no one can sign in as its founder any more.

    Raises:
        NotFound: there is none.
    """
    erasure = await erasures.find_erasure(tx, erasure_id, None)
    if erasure is None or erasure.kind != ErasureKind.USER:
        raise NotFound(f"No account was erased under the id {erasure_id}.")
    return erasure


async def start_unstarted(sessions: Sessions, workflows: BuildWorkflows) -> int:
    """Start the workflows of erasures that have none, because of a crash or a loss of Temporal's namespace. Returns how
    many erasures it looked at."""
    now = datetime.now(UTC)
    async with transaction(sessions) as tx:
        unstarted = await erasures.erasures_to_start(tx, now - _YOUNG, now - _PERHAPS_GONE)
    for erasure_id in unstarted:
        await _start(sessions, workflows, erasure_id)
    return len(unstarted)


async def _start_or_leave_to_reaper(sessions: Sessions, workflows: BuildWorkflows, erasure: Erasure) -> None:
    if erasure.finished_at is not None:
        return
    try:
        await _start(sessions, workflows, erasure.id)
    except (RPCError, RuntimeError) as error:
        log.warning("the reaper will start the erasure", erasure_id=str(erasure.id), error=error)


async def _start(sessions: Sessions, workflows: BuildWorkflows, erasure_id: uuid.UUID) -> None:
    await workflows.start_erasure(erasure_id)
    async with request_transaction(sessions.acting(Access.everything())) as tx:
        await erasures.mark_started(tx, erasure_id)
