"""Bind the database to its Temporal namespace, and refuse to work on one that it does not belong to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import deployment
from db import payload_keys as key_rows
from db.session import Access, Sessions, unusable
from db.transaction import Transaction, transaction
from domain.deployment import Binding, BindingVerdict, DatabaseContents, Namespace, judge_binding, refusal
from domain.errors import LostPayloadKey, Misconfigured, WrongNamespace
from domain.names import build_workflow_id
from domain.payload_keys import PayloadKeys, lost_key
from domain.verdicts import WorkflowFate

_PROBES = 50
"""Open builds whose workflows are looked for before the database is bound."""

log = structlog.get_logger(__name__)


async def check_deployment(sessions: Sessions, workflows: BuildWorkflows) -> None:
    """Check that the database belongs to the namespace that `workflows` uses, and bind it if it may be bound.

    Then check that this process can read what Temporal stores, and note the key that it encrypts with.

    Raises:
        WrongNamespace: its builds are in another one. Says what to do.
        LostPayloadKey: PAYLOAD_KEY lacks a key that builds have used. Says what to do.
        Misconfigured: it has not been migrated, or a server does not answer.
    """
    await _check_binding(sessions, workflows)
    await note_payload_keys(sessions, workflows.payload_keys)


async def require_payload_keys(sessions: Sessions, ours: PayloadKeys) -> None:
    """Check that this process can read what Temporal stores.

    Raises:
        LostPayloadKey: PAYLOAD_KEY lacks a key that builds have used. Says what to do.
        Misconfigured: the database has not been migrated, or does not answer.
    """
    async with _readable(sessions) as tx:
        problem = lost_key(ours, await key_rows.used_keys(tx))
    if problem is not None:
        raise LostPayloadKey(problem)


async def note_payload_keys(sessions: Sessions, ours: PayloadKeys) -> None:
    """Check that too, and note the key with which this process encrypts.

    Raises:
        LostPayloadKey, Misconfigured: as `require_payload_keys`.
    """
    async with _readable(sessions) as tx:
        problem = lost_key(ours, await key_rows.used_keys(tx))
        if problem is None and ours.writes is not None:
            await key_rows.note_key(tx, ours.writes, ours.check_values[ours.writes])
            # Another process may have noted another key of this id meanwhile.
            problem = lost_key(ours, await key_rows.used_keys(tx))
    if problem is not None:
        raise LostPayloadKey(problem)


async def _check_binding(sessions: Sessions, workflows: BuildWorkflows) -> None:
    here = await workflows.namespace()
    sessions = sessions.acting(Access.everything())  # a user's builds alone would not say whose namespace it is
    async with _readable(sessions) as tx:
        bound = await deployment.read_binding(tx)
    if bound is not None and bound.is_to(here):
        return
    contents = await _look(sessions, workflows, bound)
    async with _readable(sessions) as tx:
        await deployment.lock_binding(tx)
        bound = await deployment.read_binding(tx)  # another process may have bound it meanwhile
        verdict = judge_binding(bound, here, contents)
        if verdict is BindingVerdict.BIND:
            await deployment.bind(tx, here)
    if verdict is BindingVerdict.REFUSE:
        raise WrongNamespace(refusal(bound, here, contents))
    if verdict is BindingVerdict.BIND:
        log.info("bound the database", database=contents.address, namespace=here.name, temporal=here.address)


async def is_bound_here(sessions: Sessions, workflows: BuildWorkflows) -> bool:
    """Whether the database is bound to the namespace that `workflows` uses. Binds nothing.

    Raises:
        Misconfigured: a server does not answer.
    """
    here = await workflows.namespace()
    async with _readable(sessions) as tx:
        bound = await deployment.read_binding(tx)
    return bound is not None and bound.is_to(here)


async def rebind(sessions: Sessions, namespace: Namespace) -> Binding | None:
    """Bind the database to this namespace, whatever it was bound to. Its open builds must be started there again.

    Returns:
        The binding that it replaces.
    """
    async with _readable(sessions) as tx:
        await deployment.lock_binding(tx)
        before = await deployment.read_binding(tx)
        await deployment.bind(tx, namespace)
    log.warning("bound the database to another namespace", namespace=namespace.name, temporal=namespace.address)
    return before


async def _look(sessions: Sessions, workflows: BuildWorkflows, bound: Binding | None) -> DatabaseContents:
    async with _readable(sessions) as tx:
        has_builds = await deployment.has_builds(tx)
        started = await deployment.count_started(tx)
        # Nothing that is found speaks for a namespace other than the one that the database is bound to.
        probes = await deployment.newest_started(tx, _PROBES) if bound is None else []
    is_one_found = False
    try:
        for build_id in probes:
            if await workflows.fate(build_workflow_id(build_id)) is not WorkflowFate.UNKNOWN:
                is_one_found = True
                break
    except RPCError as error:
        raise Misconfigured(f"Temporal did not say which builds it has ({error}). Start again.") from error
    return DatabaseContents(deployment.database_address(sessions), has_builds, started, is_one_found)


@asynccontextmanager
async def _readable(sessions: Sessions) -> AsyncIterator[Transaction]:
    try:
        async with transaction(sessions) as tx:
            yield tx
    except (OSError, SQLAlchemyError) as error:
        raise unusable(error) from error
