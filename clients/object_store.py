"""The object store with snapshots and images, through aioboto3. Its retries are off, because Temporal owns retries."""

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from clients.cancellation import run_to_completion
from clients.loopback import is_loopback
from domain.errors import Misconfigured, NeedsPerson, NotFound, StoreUnavailable
from settings import Settings, secret_text

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

PART_BYTES = 8 * 1024 * 1024
"""Size of a part of a multipart upload, and about the memory that an upload needs. S3 accepts 5 MiB to 5 GiB."""

READ_BYTES = 1024 * 1024

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""Seconds that a server may be silent in the middle of an answer."""

_LIST_PAGE_KEYS = 1000
_LISTS_AT_ONCE = 10
_DELETE_BATCH_KEYS = 1000
_FULL_CODES = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}


@dataclass(frozen=True)
class StoreConfig:
    """Location of the bucket. `endpoint_url` None means AWS; keys None mean the AWS chain (profile, instance role…)."""

    bucket: str
    region: str = "us-east-1"
    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = None


def store_config(settings: Settings) -> StoreConfig:
    """The object store's configuration, from the settings."""
    return StoreConfig(
        bucket=settings.project_snapshot_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.aws_region,
        access_key=settings.aws_access_key_id,
        secret_key=secret_text(settings.aws_secret_access_key),
    )


@dataclass(frozen=True)
class StoredObject:
    """An upload: its size in bytes and its SHA-256 in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ListedObject:
    """An object in a listing, and when it was written."""

    key: str
    written_at: datetime


@dataclass(frozen=True)
class ObjectVersion:
    """A version of an object.

    - `id`: None if the store has no versions.
    - `is_marker`: it has no content, and says that the object was deleted.
    """

    key: str
    id: str | None
    is_marker: bool = False


class ObjectStore:
    """One bucket, over one connection pool. Open it once per process and close it when done.

    All methods raise StoreUnavailable if the store fails, NotFound if there is no such object, and NeedsPerson
    (`store`) if the bucket is missing, the key is refused or there is no space.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._exits = contextlib.AsyncExitStack()
        self._opened: S3Client | None = None

    async def open(self) -> Self:
        """Open the connection pool. Nothing is sent yet.

        Raises:
            Misconfigured: the AWS configuration can't be read, for example because AWS_PROFILE names a missing profile.
        """
        config = self.config
        options = AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
            max_pool_connections=20,
            # Servers other than AWS have one host name for all buckets, and don't know the newer checksums.
            s3={"addressing_style": "path" if config.endpoint_url else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={} if is_loopback(config.endpoint_url) else None,
        )
        try:
            session = aioboto3.Session(
                aws_access_key_id=config.access_key,
                aws_secret_access_key=config.secret_key,
                region_name=config.region,
            )
            client = session.client("s3", endpoint_url=config.endpoint_url, config=options)
            self._opened = await self._exits.enter_async_context(client)
        except (BotoCoreError, ValueError) as error:
            raise Misconfigured(
                f"The object store can't be set up: {error}. Check S3_ENDPOINT_URL and the AWS_ variables."
            ) from error
        return self

    async def close(self) -> None:
        """Close the connection pool."""
        self._opened = None
        await self._exits.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def check(self) -> None:
        """Check that the bucket answers.

        Raises:
            Misconfigured: names the variable that is wrong, and what to do.
            StoreUnavailable: it does not answer.
        """
        try:
            await self.keys("check/", limit=1)
        except (NeedsPerson, NotFound) as error:
            raise Misconfigured(str(error)) from error

    async def probe(self) -> None:
        """Store a small object, read it back and delete it."""
        key = f"check/{uuid.uuid4()}"
        await self.put(key, b"probe")
        await self.get(key, 100)
        await self.delete([key])

    async def probe_versions(self) -> bool:
        """Store a small object twice, and whether all versions of it could be deleted."""
        key = f"check/{uuid.uuid4()}"
        for _ in range(2):
            await self.put(key, b"probe")
        await self.delete([key])
        await self.delete_for_good([key])
        return not await self.versions(key)

    async def put_stream(self, key: str, chunks: AsyncIterable[bytes]) -> StoredObject:
        """Upload a stream, part by part; a small one in one request.

        If the stream or the upload fails, or this is cancelled, the multipart upload is aborted, so no part stays.
        """
        digest, total = hashlib.sha256(), 0
        part = bytearray()
        upload: _Upload | None = None
        try:
            async for chunk in chunks:
                digest.update(chunk)
                total += len(chunk)
                part += chunk
                while len(part) >= PART_BYTES:
                    if upload is None:
                        upload = await self._begin(key)
                    with memoryview(part) as whole:  # a slice of the array itself would be one more copy
                        content = bytes(whole[:PART_BYTES])
                    await self._add(upload, content)
                    del part[:PART_BYTES]
            if upload is None:
                await self.put(key, bytes(part))
            else:
                if part:
                    await self._add(upload, bytes(part))
                await self._complete(upload)
        except BaseException:
            if upload is not None:
                await run_to_completion(self._abort(upload))
            raise
        return StoredObject(total, digest.hexdigest())

    async def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """Read an object in pieces of about 1 MiB."""
        with self._errors(f"read {key}"):
            answer = await self._client.get_object(Bucket=self.config.bucket, Key=key)
            async with answer["Body"] as body:
                async for piece in body.content.iter_chunked(READ_BYTES):
                    yield piece

    async def get(self, key: str, limit: int) -> bytes:
        """Read an object of at most `limit` bytes.

        Raises:
            ValueError: it is larger.
        """
        content = bytearray()
        async with contextlib.aclosing(self.stream(key)) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > limit:
                    raise ValueError(f"{key} has more than {limit} bytes")
        return bytes(content)

    async def put(self, key: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Store an object in one request, replacing what was there."""
        with self._errors(f"write {key}"):
            await self._client.put_object(Bucket=self.config.bucket, Key=key, Body=content, ContentType=content_type)

    async def size(self, key: str) -> int | None:
        """An object's size in bytes; None if there is no such object."""
        try:
            with self._errors(f"look at {key}"):
                answer = await self._client.head_object(Bucket=self.config.bucket, Key=key)
        except NotFound:
            return None
        return answer["ContentLength"]

    async def keys(self, prefix: str, limit: int | None = None) -> list[str]:
        """The keys that begin with `prefix`, sorted; at most `limit` of them."""
        return [listed.key for listed in await self.objects(prefix, limit)]

    async def objects(self, prefix: str, limit: int | None = None) -> "list[ListedObject]":
        """The objects whose keys begin with `prefix`, sorted by key; at most `limit` of them."""
        objects: list[ListedObject] = []
        with self._errors("list its bucket"):
            while limit is None or len(objects) < limit:
                answer = await self._client.list_objects_v2(
                    Bucket=self.config.bucket,
                    Prefix=prefix,
                    MaxKeys=min(limit or _LIST_PAGE_KEYS, _LIST_PAGE_KEYS),
                    StartAfter=objects[-1].key if objects else "",
                )
                objects += [
                    ListedObject(content["Key"], content["LastModified"]) for content in answer.get("Contents", [])
                ]
                if not answer["IsTruncated"]:
                    break
        return objects

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. A missing one is not an error."""
        for start in range(0, len(keys), _DELETE_BATCH_KEYS):
            batch = keys[start : start + _DELETE_BATCH_KEYS]
            with self._errors("delete objects"):
                answer = await self._client.delete_objects(
                    Bucket=self.config.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if errors := answer.get("Errors"):
                first = errors[0]
                raise StoreUnavailable(f"The object store did not delete {first.get('Key')}: {first.get('Message')}")

    async def versions(self, prefix: str) -> "list[ObjectVersion]":
        """All versions of the objects whose keys begin with `prefix`, markers of deleted ones too."""
        versions: list[ObjectVersion] = []
        more: dict[str, Any] = {}
        with self._errors("list versions of its objects"):
            while True:
                answer = await self._client.list_object_versions(
                    Bucket=self.config.bucket, Prefix=prefix, MaxKeys=_LIST_PAGE_KEYS, **more
                )
                versions += [ObjectVersion(each["Key"], each.get("VersionId")) for each in answer.get("Versions", [])]
                versions += [
                    ObjectVersion(each["Key"], each.get("VersionId"), is_marker=True)
                    for each in answer.get("DeleteMarkers", [])
                ]
                if not answer.get("IsTruncated"):
                    return versions
                more = {"KeyMarker": answer["NextKeyMarker"]}
                if version := answer.get("NextVersionIdMarker"):
                    more["VersionIdMarker"] = version

    async def delete_versions(self, versions: "Sequence[ObjectVersion]") -> None:
        """Delete these versions for good. A missing one is not an error."""
        for start in range(0, len(versions), _DELETE_BATCH_KEYS):
            batch = versions[start : start + _DELETE_BATCH_KEYS]
            objects: list[ObjectIdentifierTypeDef] = [
                {"Key": each.key} if each.id is None else {"Key": each.key, "VersionId": each.id} for each in batch
            ]
            with self._errors("delete versions of objects"):
                answer = await self._client.delete_objects(
                    Bucket=self.config.bucket, Delete={"Objects": objects, "Quiet": True}
                )
            if errors := answer.get("Errors"):
                first = errors[0]
                raise StoreUnavailable(f"The object store did not delete {first.get('Key')}: {first.get('Message')}")

    async def delete_for_good(self, keys: Sequence[str]) -> None:
        """Delete objects, in a bucket that has versions with all versions of them. A missing one is not an error."""
        if not await self.is_versioned():
            await self.delete(keys)
            return
        slots = asyncio.Semaphore(_LISTS_AT_ONCE)

        async def versions_of(key: str) -> list[ObjectVersion]:
            async with slots:
                return [each for each in await self.versions(key) if each.key == key]

        found = await asyncio.gather(*map(versions_of, keys))
        await self.delete_versions([each for versions in found for each in versions])

    async def is_versioned(self) -> bool | None:
        """Whether the bucket keeps versions of what is overwritten or deleted, or has done so. None if the store does
        not know versions, or does not let us ask."""
        try:
            with self._errors("read whether its bucket has versions"):
                answer = await self._client.get_bucket_versioning(Bucket=self.config.bucket)
        except (NeedsPerson, NotFound):
            return None
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and cause.response["ResponseMetadata"]["HTTPStatusCode"] in (405, 501):
                return None
            raise
        return answer.get("Status") is not None

    async def unfinished_uploads(self, prefix: str) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        return [upload.key for upload in await self._unfinished(prefix)]

    async def abort_uploads(
        self, prefix: str, *, only: Collection[str] | None = None, before: datetime | None = None
    ) -> int:
        """Abort unfinished uploads, which killed processes have left. Returns how many it aborted.

        Args:
            prefix: abort only uploads whose keys begin with this.
            only: abort only the uploads of these keys.
            before: abort only uploads that started before this time.
        """
        aborted = 0
        for upload in await self._unfinished(prefix):
            is_recent = before is not None and (upload.started_at is None or upload.started_at >= before)
            if (only is None or upload.key in only) and not is_recent:
                await self._abort(upload)
                aborted += 1
        return aborted

    async def put_image(self, sha256_hex: str, webp: bytes) -> None:
        """Store a WebP image under the hash of its content."""
        await self.put(image_key(sha256_hex), webp, "image/webp")

    async def get_image(self, sha256_hex: str, limit: int = 20_000_000) -> bytes:
        """A stored WebP image."""
        return await self.get(image_key(sha256_hex), limit)

    # ---- multipart uploads

    async def _begin(self, key: str) -> "_Upload":
        with self._errors(f"write {key}"):
            answer = await self._client.create_multipart_upload(Bucket=self.config.bucket, Key=key)
        return _Upload(key, answer["UploadId"], [])

    async def _add(self, upload: "_Upload", content: bytes) -> None:
        number = len(upload.parts) + 1
        with self._errors(f"write {upload.key}"):
            answer = await self._client.upload_part(
                Bucket=self.config.bucket, Key=upload.key, UploadId=upload.id, PartNumber=number, Body=content
            )
        upload.parts.append({"ETag": answer["ETag"], "PartNumber": number})

    async def _complete(self, upload: "_Upload") -> None:
        with self._errors(f"write {upload.key}"):
            await self._client.complete_multipart_upload(
                Bucket=self.config.bucket,
                Key=upload.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": upload.parts},
            )

    async def _abort(self, upload: "_Upload") -> None:
        with contextlib.suppress(NotFound), self._errors(f"abort the upload of {upload.key}"):
            await self._client.abort_multipart_upload(Bucket=self.config.bucket, Key=upload.key, UploadId=upload.id)

    async def _unfinished(self, prefix: str) -> list["_Upload"]:
        """The first thousand unfinished uploads."""
        with self._errors("list its uploads"):
            answer = await self._client.list_multipart_uploads(Bucket=self.config.bucket, Prefix=prefix)
        return [
            _Upload(upload["Key"], upload["UploadId"], [], upload.get("Initiated"))
            for upload in answer.get("Uploads", [])
        ]

    # ---- errors

    @property
    def _client(self) -> "S3Client":
        if self._opened is None:
            raise RuntimeError("the object store is not open")
        return self._opened

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._translate(what, error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise NeedsPerson(
                "The object store's key is not set. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.", "store"
            ) from error
        except ParamValidationError as error:
            raise NeedsPerson(
                f"{self.config.bucket!r} is not a valid bucket name. Correct PROJECT_SNAPSHOT_BUCKET.",
                "store",
            ) from error
        except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable(
                f"{self._store_name} did not {what}: {str(error) or type(error).__name__}. "
                "Check that it runs and that S3_ENDPOINT_URL points to it."
            ) from error

    def _translate(self, what: str, error: ClientError) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "NoSuchBucket":
            return NeedsPerson(
                f"The bucket {self.config.bucket} does not exist. Create it, or set PROJECT_SNAPSHOT_BUCKET to an "
                "existing one.",
                "store",
            )
        if status in (401, 403):
            return NeedsPerson(
                f"{self._store_name} does not let us {what} ({code or status}). Check AWS_ACCESS_KEY_ID, "
                f"AWS_SECRET_ACCESS_KEY and what that key may do in the bucket {self.config.bucket}.",
                "store",
            )
        if status == 507 or code in _FULL_CODES:
            return NeedsPerson(f"{self._store_name} has no space left to {what} ({code}). Make room.", "store")
        if status == 404:
            return NotFound(f"{self._store_name} can't {what}: there is no such object.")
        return StoreUnavailable(f"{self._store_name} failed to {what}: {error}")

    @property
    def _store_name(self) -> str:
        return f"The object store at {self.config.endpoint_url or 'AWS'}"


@dataclass(frozen=True)
class _Upload:
    key: str
    id: str
    parts: "list[CompletedPartTypeDef]"
    started_at: datetime | None = None


def image_key(sha256_hex: str) -> str:
    """The key of an image, by the hash of its content."""
    return f"images/{sha256_hex}.webp"
