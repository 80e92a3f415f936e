"""Buckets of their own for tests."""

import uuid
from dataclasses import replace

from clients.object_store import ObjectStore
from local.stack import LocalStack
from tests.harness.activities import store_config


async def new_versioned_bucket(stack: LocalStack) -> str:
    """Make a bucket that keeps all versions of its objects, and return its name."""
    bucket = f"versioned-{uuid.uuid4()}"
    async with ObjectStore(replace(store_config(stack.environment), bucket=bucket)) as store:
        await store._client.create_bucket(Bucket=bucket)
    await set_versioning(stack, bucket, "Enabled")
    return bucket


async def set_versioning(stack: LocalStack, bucket: str, status: str) -> None:
    """Let a bucket keep versions (`Enabled`), or no more new ones (`Suspended`)."""
    async with ObjectStore(replace(store_config(stack.environment), bucket=bucket)) as store:
        await store._client.put_bucket_versioning(
            Bucket=bucket,
            VersioningConfiguration={"Status": "Enabled" if status == "Enabled" else "Suspended"},
        )
