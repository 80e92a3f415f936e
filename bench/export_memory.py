"""Measure how much a worker's memory grows while it writes the export of a large project.

    python -m bench.export_memory [--megabytes 300] [--events 200000]

The project has one build with that many events of 1 KB and a workspace of that size, which does not compress. The
servers are other processes, so the figure is this process's resident memory.
"""

import argparse
import asyncio
import os
import sys
import tarfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from sqlalchemy import func, text, update

from bench.snapshot_memory import MEGABYTE, watch_growth
from clients.object_store import ObjectStore, store_config
from db.models import Snapshot
from db.session import make_engine, make_sessions
from db.transaction import transaction
from db.users import ensure_user
from local.stack import LocalStack
from services.export import export_project
from tests.harness.api_server import new_database, settings_for
from tests.harness.founder_texts import plant_rows

_EVENTS = text(
    """
    insert into events (build_id, id, type, data)
    select :build, 1 + number, 'narration', jsonb_build_object('text', repeat(md5(number::text), 32))
    from generate_series(1, :events) number
    """
)


async def _archive(megabytes: int) -> AsyncIterator[bytes]:
    """A tar whose only file is as large."""
    head = tarfile.TarInfo("data")
    head.size = megabytes * MEGABYTE
    yield head.tobuf()
    for _ in range(megabytes):
        yield os.urandom(MEGABYTE)
    yield bytes(2 * tarfile.BLOCKSIZE)


async def _measure(megabytes: int, events: int) -> None:
    async with LocalStack(durable=False, temporal_ui=False) as stack:
        settings = settings_for(await new_database(stack), stack.environment)
        engine = make_engine(settings.database_url)
        sessions = make_sessions(engine)
        async with ObjectStore(store_config(settings)) as store:
            async with transaction(sessions) as tx:
                await ensure_user(tx, "ada")
            projects = [await plant_rows(sessions, "ada", f"word{uuid.uuid4().hex}") for _ in range(2)]
            for (_, build), size, rows in zip(projects, (1, megabytes), (100, events), strict=True):
                key = f"snapshots/{build}/1.tar.gz"
                await store.put_stream(key, _archive(size))
                stored = {"state": "stored", "archive_sha256": "a", "manifest_sha256": "m", "stored_at": func.now()}
                async with transaction(sessions) as tx:
                    await tx.session.execute(update(Snapshot).where(Snapshot.build_id == build).values(**stored))
                    await tx.session.execute(_EVENTS, {"build": build, "events": rows})
            # The small one first, so that imports and first connections do not count as growth.
            for project, _ in projects:
                file = await export_project(sessions, store, "ada", project)
                began = time.monotonic()
                async with watch_growth() as growth, aclosing(file.content) as content:
                    written = await store.put_stream(f"exports/{project}.zip", content)
                seconds = time.monotonic() - began
        await engine.dispose()
    sys.stdout.write(
        f"export of {written.bytes / MEGABYTE:.0f} MiB with {file.summary.counts['events']:,} events\n"
        f"written in {seconds:.1f} s, the worker grew by {growth.bytes / MEGABYTE:.1f} MiB\n"
    )


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=300, help="size of the workspace in MiB")
    parser.add_argument("--events", type=int, default=200_000, help="events of the build, of 1 KB each")
    options = parser.parse_args()
    asyncio.run(_measure(options.megabytes, options.events))
    sys.stdout.flush()
    os._exit(0)  # skip the interpreter's shutdown: the SDKs' native threads sometimes abort it


if __name__ == "__main__":
    main()
