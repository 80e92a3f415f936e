"""Buckets of their own for tests."""

import uuid
from typing import Literal

from clients.object_store import ObjectStore
from local.stack import LocalStack
from tests.harness.activities import store_config


async def new_versioned_bucket(stack: LocalStack) -> str:
    """Make a bucket that keeps all versions of its objects, and return its name."""
    async with ObjectStore(store_config(stack.environment)) as store:
        return await add_versioned_bucket(store)


async def add_versioned_bucket(store: ObjectStore) -> str:
    """Make such a bucket beside that of an open store: opening another one takes a second."""
    bucket = f"versioned-{uuid.uuid4()}"
    await store._client.create_bucket(Bucket=bucket)
    await set_versioning(store, bucket, "Enabled")
    return bucket


async def set_versioning(store: ObjectStore, bucket: str, status: Literal["Enabled", "Suspended"]) -> None:
    """Let a bucket keep versions, or no more new ones (`Suspended`)."""
    await store._client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
