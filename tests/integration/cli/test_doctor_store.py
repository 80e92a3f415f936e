"""`cofounder doctor` says whether a bucket keeps versions, and whether they can be deleted."""

import pytest

from checks.check import CheckContext
from checks.services import check_object_store
from clients.object_store import ObjectStore
from local.stack import LocalStack
from tests.harness.buckets import new_versioned_bucket
from tests.harness.worker import settings_of


async def test_versions_outlive_an_erasure_if_they_can_not_be_deleted(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await check_object_store(CheckContext(settings_of(stack)))
    assert (plain.state, "versions" in plain.detail) == ("ok", False)
    bucket = await new_versioned_bucket(stack)
    versioned = CheckContext(settings_of(stack, project_snapshot_bucket=bucket))
    result = await check_object_store(versioned)
    assert (result.state, "keeps versions, and erasures delete them" in result.detail) == ("ok", True)

    async def keep(self: ObjectStore, versions: object) -> None:
        pass

    monkeypatch.setattr(ObjectStore, "delete_versions", keep)
    locked = await check_object_store(versioned)
    assert (locked.state, "can't be deleted" in locked.detail) == ("warn", True)
    assert "s3:DeleteObjectVersion" in (locked.remedy or "")

    async def unknown(self: ObjectStore) -> None:
        return None

    monkeypatch.setattr(ObjectStore, "is_versioned", unknown)
    asked = await check_object_store(versioned)
    assert (asked.state, "outlive an erasure" in asked.detail) == ("warn", True)
