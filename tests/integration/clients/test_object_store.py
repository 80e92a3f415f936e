"""The object store's client with a real S3 server."""

import asyncio
import dataclasses
import hashlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from clients.object_store import PART_BYTES, ObjectStore
from domain.errors import Misconfigured, NeedsPerson, NotFound, StoreUnavailable
from local.stack import LocalStack
from tests.harness.activities import store_config
from tests.harness.buckets import add_versioned_bucket, set_versioning


@pytest.fixture
async def store(stack: LocalStack) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(store_config(stack.environment)) as opened:
        yield opened


def key() -> str:
    return f"test/{uuid.uuid4()}"


async def pieces(total: int, size: int = 700_001) -> AsyncIterator[bytes]:
    block = bytes(range(256)) * (size // 256 + 1)
    while total > 0:
        yield block[: min(size, total)]
        total -= min(size, total)


@pytest.mark.parametrize("total", [0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 12_345])
async def test_a_streamed_upload_is_read_back(store: ObjectStore, total: int) -> None:
    name = key()
    stored = await store.put_stream(name, pieces(total))
    hashed, size = hashlib.sha256(), 0
    async for piece in store.stream(name):
        hashed.update(piece)
        size += len(piece)
    assert (stored.bytes, stored.sha256) == (total, hashed.hexdigest())
    assert await store.size(name) == size == total
    await store.delete([name])
    assert await store.size(name) is None


async def test_a_failed_stream_leaves_nothing(store: ObjectStore) -> None:
    name = key()

    async def breaks() -> AsyncIterator[bytes]:
        async for piece in pieces(2 * PART_BYTES):
            yield piece
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        await store.put_stream(name, breaks())
    assert await store.unfinished_uploads(name) == []
    assert await store.keys(name) == []


async def test_a_cancelled_upload_leaves_nothing(store: ObjectStore) -> None:
    name, begun = key(), asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        async for piece in pieces(PART_BYTES + 1):
            yield piece
        begun.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.put_stream(name, stalls()))
    await begun.wait()
    assert await store.unfinished_uploads(name) == [name]
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await store.unfinished_uploads(name) == []
    assert await store.keys(name) == []


async def test_uploads_of_a_killed_process_can_be_aborted(store: ObjectStore) -> None:
    prefix = key()
    for name in ("lost", "kept"):
        await store._begin(f"{prefix}/{name}")
    assert await store.abort_uploads(f"{prefix}/", before=datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await store.abort_uploads(f"{prefix}/", only=[f"{prefix}/lost"]) == 1
    assert await store.unfinished_uploads(f"{prefix}/") == [f"{prefix}/kept"]
    assert await store.abort_uploads(f"{prefix}/", before=datetime.now(UTC) + timedelta(hours=1)) == 1


async def test_all_versions_of_objects_are_deleted_for_good(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.object_store._LIST_PAGE_KEYS", 2)
    assert not await store.is_versioned()
    bucket = await add_versioned_bucket(store)
    async with ObjectStore(dataclasses.replace(store.config, bucket=bucket)) as versioned:
        assert await versioned.is_versioned()
        for name in ("p/a", "p/a", "p/a", "p/ab", "p/b"):
            await versioned.put(name, b"x")
        await versioned.delete(["p/a"])
        assert await versioned.keys("p/") == ["p/ab", "p/b"]
        found = await versioned.versions("p/")
        assert (len(found), sum(each.is_marker for each in found)) == (6, 1)
        await versioned.delete_for_good(["p/a", "p/b", "p/never"])
        assert [each.key for each in await versioned.versions("p/")] == ["p/ab"]
        assert await versioned.probe_versions()
        await set_versioning(store, bucket, "Suspended")
        assert await versioned.is_versioned(), "what it kept before is there still"
        await versioned.delete_for_good(["p/ab"])
        assert await versioned.versions("") == []


async def test_get_is_bounded(store: ObjectStore) -> None:
    name = key()
    await store.put(name, b"12345")
    assert await store.get(name, 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        await store.get(name, 4)


async def test_images_are_found_by_their_hash(store: ObjectStore) -> None:
    webp = uuid.uuid4().bytes
    sha256 = hashlib.sha256(webp).hexdigest()
    with pytest.raises(NotFound):
        await store.get_image(sha256)
    await store.put_image(sha256, webp)
    await store.put_image(sha256, webp)
    assert await store.get_image(sha256) == webp
    assert await store.keys(f"images/{sha256}") == [f"images/{sha256}.webp"]


async def test_an_error_names_the_variable_to_fix(stack: LocalStack) -> None:
    right = store_config(stack.environment)
    wrong = {
        "PROJECT_SNAPSHOT_BUCKET": dataclasses.replace(right, bucket="not-there"),
        "AWS_ACCESS_KEY_ID": dataclasses.replace(right, access_key="another"),
        "AWS_SECRET_ACCESS_KEY": dataclasses.replace(right, secret_key="wrong"),
    }
    for variable, config in wrong.items():
        async with ObjectStore(config) as store:
            with pytest.raises(Misconfigured, match=variable):
                await store.check()
    async with ObjectStore(dataclasses.replace(right, endpoint_url="http://127.0.0.1:9")) as store:
        with pytest.raises(StoreUnavailable, match="S3_ENDPOINT_URL"):
            await store.check()
    async with ObjectStore(right) as store:
        await store.check()
        await store.probe()
        assert not await store.keys("check/")


async def test_a_refusal_needs_a_person_and_silence_another_attempt(stack: LocalStack) -> None:
    right = store_config(stack.environment)
    async with ObjectStore(dataclasses.replace(right, secret_key="wrong")) as store:
        with pytest.raises(NeedsPerson) as refused:
            await store.put_stream(key(), pieces(PART_BYTES + 1))
        assert refused.value.waiting_for == "store"
    async with ObjectStore(dataclasses.replace(right, endpoint_url="http://127.0.0.1:9")) as store:
        with pytest.raises(StoreUnavailable):
            await store.put(key(), b"x")
