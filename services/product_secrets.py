"""Secrets of products: set, removed, read for the start of a preview, and encrypted again with another key."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clients.cipher import Cipher, Sealed
from db import project_secrets
from db.models import Project, ProjectSecret
from db.projects import lock_project
from db.session import Sessions
from db.transaction import Transaction, transaction
from domain.audit import Action
from domain.errors import Conflict, NoSecretsKey, NotFound, SecretUnreadable
from domain.identity import Right
from domain.product_secrets import MAX_SECRETS, NAME, check_name, check_value
from services.audit import record
from services.builds import require_right

_BATCH = 100
"""Secrets that one transaction of a rotation encrypts again."""


async def set_secret(
    tx: Transaction, cipher: Cipher, user_id: str, project_id: uuid.UUID, name: str, value: str
) -> ProjectSecret:
    """Set a secret of a project, or replace its value.

    Raises:
        NotFound: the user sees no such project.
        Refused: the user may see it and not change it.
        NoSecretsKey: there is no key to encrypt it with.
        InvalidInput: the name or the value can't be used; the message says why, and quotes no value.
        Conflict: the project has as many secrets as it may.
    """
    project = await _lock(tx, user_id, project_id)
    if not cipher.key_id:
        raise NoSecretsKey
    check_name(name)
    check_value(value)
    names = {secret.name for secret in await project_secrets.list_secrets(tx, project.id)}
    if name not in names and len(names) >= MAX_SECRETS:
        raise Conflict(f"The project has {len(names)} secrets already, the most it may have. Remove one first.")
    sealed = cipher.seal(value, _context(project.id, name))
    stored = await project_secrets.store_secret(tx, project.id, name, sealed.ciphertext, sealed.key_id, user_id)
    await record(tx, Action.SECRET_SET, project_id=project.id, org_id=project.org_id)
    return stored


async def remove_secret(tx: Transaction, user_id: str, project_id: uuid.UUID, name: str) -> None:
    """Remove a secret of a project. A preview that is open keeps it until it closes.

    Raises:
        NotFound: there is no such project of the user, or no such secret.
    """
    project = await _lock(tx, user_id, project_id)
    if not NAME.fullmatch(name) or not await project_secrets.remove_secret(tx, project.id, name):
        raise NotFound(f"The project has no secret {name[:80]!r}.")
    await record(tx, Action.SECRET_REMOVE, project_id=project.id, org_id=project.org_id)


async def _lock(tx: Transaction, user_id: str, project_id: uuid.UUID) -> Project:
    project = await lock_project(tx, user_id, project_id)
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    await require_right(tx, user_id, project_id, Right.CHANGE)
    return project


def open_secrets(cipher: Cipher, secrets: Iterable[ProjectSecret]) -> dict[str, str]:
    """Decrypt secrets. Returns their values by name.

    Raises:
        SecretUnreadable: one of them can't be read; the message is a sentence that names them.
    """
    values: dict[str, str] = {}
    problems: dict[str, str] = {}
    for secret in secrets:
        try:
            values[secret.name] = _open(cipher, secret)
        except SecretUnreadable as problem:
            problems[secret.name] = str(problem)
    if problems:
        name, reason = next(iter(problems.items()))
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SecretUnreadable(f"The secret {name}{others} can't be read: {reason}.")
    return values


def readable_values(cipher: Cipher, secrets: Iterable[ProjectSecret]) -> list[str]:
    """The values of the secrets that can be read, to be blanked in text."""
    values = []
    for secret in secrets:
        try:
            values.append(_open(cipher, secret))
        except SecretUnreadable:
            continue
    return values


@dataclass
class Rotation:
    """What a rotation has done. `unreadable`: project and name of what stays as it was, with the reason."""

    key_id: str
    encrypted: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


async def rotate(sessions: Sessions, cipher: Cipher) -> Rotation:
    """Encrypt every secret again that another key than the first one has encrypted. Values stay the same.

    Raises:
        NoSecretsKey: there is no key.
    """
    if not cipher.key_id:
        raise NoSecretsKey
    rotation = Rotation(cipher.key_id)
    after: tuple[uuid.UUID, str] | None = None
    while True:
        async with transaction(sessions) as tx:
            secrets = await project_secrets.lock_sealed_otherwise(tx, cipher.key_id, after, _BATCH)
            await _reseal(tx, cipher, secrets, rotation)
            if secrets:
                await record(tx, Action.SECRETS_ROTATE, secrets=len(secrets))
        if not secrets:
            return rotation
        after = secrets[-1].project_id, secrets[-1].name


async def _reseal(tx: Transaction, cipher: Cipher, secrets: Sequence[ProjectSecret], rotation: Rotation) -> None:
    for secret in secrets:
        try:
            sealed = cipher.seal(_open(cipher, secret), _context(secret.project_id, secret.name))
        except SecretUnreadable as problem:
            rotation.unreadable.append((f"{secret.name} of project {secret.project_id}", str(problem)))
            continue
        await project_secrets.reseal(tx, secret, sealed.ciphertext, sealed.key_id)
        rotation.encrypted += 1


def _open(cipher: Cipher, secret: ProjectSecret) -> str:
    return cipher.open(Sealed(secret.key_id, secret.ciphertext), _context(secret.project_id, secret.name))


def _context(project_id: uuid.UUID, name: str) -> str:
    """Binds a ciphertext to its row: in another row it can't be read."""
    return f"{project_id}\n{name}"
