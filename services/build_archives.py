"""Move the conversation and the feed of a build that has long ended from rows into one object.

The object is a gzip of JSON lines, `{"table": …, "row": …}`. It is verified before the rows go.
"""

import contextlib
import hashlib
import json
import re
import uuid
import zlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import structlog

from clients.object_store import ObjectStore
from db.build_archives import (
    ARCHIVED,
    ARCHIVES_PREFIX,
    StoredArchive,
    builds_to_archive,
    count_rows,
    replace_rows,
)
from db.builds import is_gone
from db.export import PAGE, Key, columns_of, key_of, read_page
from db.reaper import move_cursor, read_cursor
from db.session import Sessions
from db.transaction import transaction
from domain.conversation import IMAGE_MARK

STEP = "archives"
"""The step of the reaper that this is."""

_LATE = timedelta(days=1)
"""The row of a build may be closed this much later than it says."""

log = structlog.get_logger(__name__)

_IMAGES = re.compile(re.escape(json.dumps(IMAGE_MARK)[1:-1]) + "([0-9a-f]{64})")

_GZIP = 16 + zlib.MAX_WBITS


async def due_builds(sessions: Sessions, days: int, limit: int) -> list[uuid.UUID]:
    """Builds that ended more than `days` ago and still have their conversation in rows.

    A cursor notes before which time every build has an archive, so that these are not read again at each look.
    """
    closed_before = datetime.now(UTC) - timedelta(days=days)
    async with transaction(sessions) as tx:
        due = await builds_to_archive(tx, await read_cursor(tx, STEP), closed_before, limit)
        await move_cursor(tx, STEP, due[0][1] if due else closed_before - _LATE)
    return [build_id for build_id, _ in due]


async def archive_build(sessions: Sessions, store: ObjectStore, build_id: uuid.UUID, days: int) -> bool:
    """Archive a closed build's conversation and feed, and delete their rows, with a certificate. A repeat writes the
    object again.

    Args:
        days: the setting CONVERSATION_DAYS, by which the rows may go.

    Returns:
        False if a row came or went meanwhile; then nothing was deleted. If the build was erased meanwhile, neither
        object is left.

    Raises:
        StoreUnavailable, NeedsPerson, NotFound: the store did not take the object, or does not give it back.
    """
    async with transaction(sessions) as tx:
        rows = await count_rows(tx, build_id)
    key, images = f"{ARCHIVES_PREFIX}{build_id}/conversation.jsonl.gz", set[str]()
    async with contextlib.aclosing(_content(sessions, build_id, images)) as content:
        stored = await store.put_stream(key, content)
    read = hashlib.sha256()
    async with contextlib.aclosing(store.stream(key)) as pieces:
        async for piece in pieces:
            read.update(piece)
    if read.hexdigest() != stored.sha256:
        log.error("an archive is not in the store as it was written", build_id=str(build_id))
        return False
    manifest_key = f"{ARCHIVES_PREFIX}{build_id}/manifest.json"
    manifest = json.dumps({"build_id": str(build_id), "bytes": stored.bytes, "sha256": stored.sha256, "rows": rows})
    await store.put(manifest_key, manifest.encode(), "application/json")
    archive = StoredArchive(
        build_id,
        key,
        stored.bytes,
        stored.sha256,
        rows,
        sorted(images),
        manifest_sha256=hashlib.sha256(manifest.encode()).hexdigest(),
        rule=f"CONVERSATION_DAYS={days}",
    )
    async with transaction(sessions) as tx:
        replaced = await replace_rows(tx, archive)
        erased = not replaced and await is_gone(tx, build_id)
    if erased:
        await store.delete_for_good([key, manifest_key])
    return replaced


async def _content(sessions: Sessions, build_id: uuid.UUID, images: set[str]) -> AsyncGenerator[bytes, None]:
    """The rows as a gzip of lines; notes the hashes of the images in them."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    for name, table in ARCHIVED.items():
        last: Key | None = None
        while True:
            async with transaction(sessions) as tx:
                rows = await read_page(tx, table, {"build_id": build_id}, last)
            lines = [json.dumps({"table": name, "row": columns_of(row)}, ensure_ascii=False) + "\n" for row in rows]
            images.update(found for line in lines for found in _IMAGES.findall(line))
            yield packer.compress("".join(lines).encode(errors="replace"))
            if len(rows) < PAGE:
                break
            last = key_of(rows[-1])
    yield packer.flush()
