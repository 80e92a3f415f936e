"""Change settings for builds that run: each keeps those that it began with, unless an operator changes them."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence

import structlog
from pydantic import ValidationError
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import builds
from db.models import Build
from db.session import Sessions
from db.transaction import transaction
from domain.audit import Action
from domain.build_settings import BuildSettings
from domain.errors import InvalidInput, NotFound
from services.audit import record

_SIGNALS_AT_ONCE = 20

log = structlog.get_logger(__name__)

Changes = Mapping[str, int | str | None]
"""Values by the setting's name in lower case; None is unset."""


def parse_changes(assignments: Iterable[str]) -> Changes:
    """Parse `NAME=VALUE`; an empty value is unset, as in the environment.

    Raises:
        InvalidInput: a name is not a setting of builds, or a value is not valid.
    """
    changes: dict[str, str | None] = {}
    for each in assignments:
        name, equals, value = (part.strip() for part in each.partition("="))
        if not equals or name.lower() not in BuildSettings.model_fields:
            names = ", ".join(field.upper() for field in BuildSettings.model_fields)
            raise InvalidInput(f"{each} is not valid. Use NAME=VALUE with one of these names: {names}.")
        changes[name.lower()] = value or None
    try:
        checked = BuildSettings.model_validate(changes)
    except ValidationError as error:
        problems = "; ".join(f"{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise InvalidInput(f"{problems}.") from None
    return {name: getattr(checked, name) for name in changes}


async def change_settings(sessions: Sessions, build_id: uuid.UUID | None, changes: Changes) -> Sequence[Build]:
    """Change settings of an open build, or of every one if there is no id; returns the builds.

    Raises:
        NotFound: there is no such build, or it has ended.
    """
    async with transaction(sessions) as tx:
        changed = await builds.change_settings(tx, build_id, changes)
        if changed:
            await record(tx, Action.BUILD_SETTINGS, build_id=build_id, changed=list(changes), builds=len(changed))
    if not changed and build_id is not None:
        raise NotFound(f"There is no open build {build_id}.")
    return changed


async def notify_of_settings(workflows: BuildWorkflows, changed: Sequence[Build]) -> int:
    """Tell builds of their changed settings; returns how many were told. The others read them later."""
    at_once = asyncio.Semaphore(_SIGNALS_AT_ONCE)

    async def notify(build: Build) -> bool:
        async with at_once:
            try:
                await workflows.signal_settings(build.id, build.settings_version)
            except (NotFound, RPCError, RuntimeError) as error:
                log.info("a build was not told of its settings", build_id=str(build.id), error=error)
                return False
        return True

    return sum(await asyncio.gather(*map(notify, changed)))
