"""The secrets of projects: names, and values that only `clients/cipher.py` can read."""

import uuid
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from db.models import Build, ProjectSecret
from db.transaction import Transaction


async def store_secret(
    tx: Transaction, project_id: uuid.UUID, name: str, ciphertext: bytes, key_id: str, by: str
) -> ProjectSecret:
    """Set a secret, or replace its value."""
    values = {"ciphertext": ciphertext, "key_id": key_id, "set_at": func.now(), "set_by": by}
    rows = await tx.session.scalars(
        insert(ProjectSecret)
        .values(project_id=project_id, name=name, **values)
        .on_conflict_do_update(index_elements=["project_id", "name"], set_=values)
        .returning(ProjectSecret)
        .execution_options(populate_existing=True)
    )
    return rows.one()


async def remove_secret(tx: Transaction, project_id: uuid.UUID, name: str) -> bool:
    """Remove a secret. Returns False if there is none of this name."""
    removed = await tx.session.scalar(
        delete(ProjectSecret)
        .where(ProjectSecret.project_id == project_id, ProjectSecret.name == name)
        .returning(ProjectSecret.name)
    )
    return removed is not None


async def list_secrets(tx: Transaction, project_id: uuid.UUID) -> Sequence[ProjectSecret]:
    """A project's secrets, by name."""
    query = select(ProjectSecret).where(ProjectSecret.project_id == project_id)
    return sorted(await tx.session.scalars(query), key=lambda secret: secret.name)


async def secrets_of_build(tx: Transaction, build_id: uuid.UUID) -> Sequence[ProjectSecret]:
    """The secrets of a build's project, by name."""
    query = select(ProjectSecret).join(Build, Build.project_id == ProjectSecret.project_id).where(Build.id == build_id)
    return sorted(await tx.session.scalars(query), key=lambda secret: secret.name)


async def names_of_build(tx: Transaction, build_id: uuid.UUID) -> list[str]:
    """The names of the secrets of a build's project, sorted."""
    query = (
        select(ProjectSecret.name).join(Build, Build.project_id == ProjectSecret.project_id).where(Build.id == build_id)
    )
    return sorted(await tx.session.scalars(query))


async def note_known(tx: Transaction, build_id: uuid.UUID, names: Sequence[str]) -> None:
    """Note the names that the agent is told. `turns.load_turn_start` compares them with what the project has."""
    await tx.session.execute(update(Build).where(Build.id == build_id).values(known_secrets=list(names)))


async def lock_sealed_otherwise(
    tx: Transaction, key_id: str, after: tuple[uuid.UUID, str] | None, limit: int
) -> Sequence[ProjectSecret]:
    """Up to `limit` secrets that are encrypted with another key than this one, in a fixed order, after the one with
    this project and name. They are locked until the transaction ends."""
    place = tuple_(ProjectSecret.project_id, ProjectSecret.name)
    query = select(ProjectSecret).where(ProjectSecret.key_id != key_id)
    if after is not None:
        query = query.where(place > after)
    rows = await tx.session.scalars(query.order_by(place).limit(limit).with_for_update())
    return rows.all()


async def reseal(tx: Transaction, secret: ProjectSecret, ciphertext: bytes, key_id: str) -> None:
    """Replace how a locked secret is encrypted. Its value, and when it was set, stay."""
    await tx.session.execute(
        update(ProjectSecret)
        .where(ProjectSecret.project_id == secret.project_id, ProjectSecret.name == secret.name)
        .values(ciphertext=ciphertext, key_id=key_id)
    )


async def count_by_key(tx: Transaction) -> Counter[str]:
    """How many secrets are encrypted with each key, by the key's id."""
    rows = await tx.session.execute(select(ProjectSecret.key_id, func.count()).group_by(ProjectSecret.key_id))
    return Counter({key_id: count for key_id, count in rows})
