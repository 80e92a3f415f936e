"""Which builds have seen an image. It is stored once, by the hash of its content, however many have seen it."""

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from db.models import SeenImage
from db.transaction import Transaction

_STORING = "hashtextextended('images', 0)"
_ERASING = "hashtextextended('erased images', 0)"

_NOTED = text("select distinct sha256 from seen_images where build_id = any(:builds)")

_NOTED_BY_OTHERS = text(
    "select distinct sha256 from seen_images where sha256 = any(:hashes) and build_id <> all(:builds)"
)
"""With arrays: an account may have more images than a statement may have parameters."""


async def note_image(tx: Transaction, build_id: uuid.UUID, sha256: str) -> None:
    """Note that the build sees an image, before it is stored. Waits for images that are being deleted."""
    await tx.session.execute(text(f"select pg_advisory_xact_lock_shared({_STORING})"))
    seen = insert(SeenImage).values(build_id=build_id, sha256=sha256)
    await tx.session.execute(seen.on_conflict_do_nothing())


async def lock_images(tx: Transaction) -> None:
    """Let no build note an image until the transaction ends."""
    await tx.session.execute(text(f"select pg_advisory_xact_lock({_STORING})"))


async def lock_erased_images(tx: Transaction) -> None:
    """Let no other erasure delete its notes until the transaction ends: each of two would leave a common image to the
    other."""
    await tx.session.execute(text(f"select pg_advisory_xact_lock({_ERASING})"))


async def images_noted(tx: Transaction, builds: Sequence[uuid.UUID]) -> set[str]:
    """Return the hashes of the images that the builds have noted. Those of earlier versions did not."""
    return set(await tx.session.scalars(_NOTED, {"builds": list(builds)}))


async def noted_by_others(tx: Transaction, hashes: Collection[str], builds: Sequence[uuid.UUID]) -> set[str]:
    """Return those of the images that a build has noted which is none of these."""
    return set(await tx.session.scalars(_NOTED_BY_OTHERS, {"hashes": list(hashes), "builds": list(builds)}))
