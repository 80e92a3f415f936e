"""The files of a build's snapshots, read over HTTP."""

import asyncio
import hashlib
import json
import random
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from domain.request_limits import RequestClass
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.stored_files import Member, store_files

PNG = b"\x89PNG\r\n\x1a\n\0picture"
HOSTILE = "<img src=x onerror=alert(1)>\u202e.txt"
RAW = b"raw-\xff".decode("utf-8", "surrogateescape")
LARGE = "ü" * 600_000
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
NOISE = b"\0" + random.Random(1).randbytes(2_000_000)

MEMBERS: list[Member] = [
    (".git", b"", {"type": tarfile.DIRTYPE}),
    (".git/config", b"[remote]", {}),
    ("app", b"", {"type": tarfile.DIRTYPE}),
    ("app/main.py", b"print('h\xc3\xa4llo')\n", {"mode": 0o755}),
    ("static/logo.txt", PNG, {}),
    (HOSTILE, b"<script>alert(1)</script>", {}),
    ("large.txt", LARGE.encode(), {}),
    ("noise.bin", NOISE, {}),
    ("picture.svg", SVG, {}),
    ("passwd", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    ("../../etc/shadow", b"outside", {}),
    ("twice", b"first", {}),
    ("twice", b"second", {}),
    (RAW, b"raw", {}),
]


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack), stack.environment), stack.environment) as running:
        yield running


@pytest.fixture(scope="module")
async def build(api: RunningApi) -> str:
    build = await api.build()
    await store_files(api, build, [("old.txt", b"old", {})], number=3)
    await store_files(api, build, MEMBERS, number=7, commit="c" * 40)
    return build


async def _file(api: RunningApi, build: str, path: str, number: str = "7") -> Any:
    return await api.http.get(f"/v1/builds/{build}/snapshots/{number}/file", params={"path": path})


async def test_the_products_files_are_listed_in_pages(api: RunningApi, build: str) -> None:
    path = f"/v1/builds/{build}/snapshots/7/files"
    answer = await api.http.get(path)
    listed = answer.json()
    assert (listed["snapshot"], listed["commit"], listed["next_after"]) == (7, "c" * 40, None)
    paths = [file["path"] for file in listed["files"]]
    assert paths == [
        "../../etc/shadow",
        HOSTILE,
        "app/main.py",
        "large.txt",
        "noise.bin",
        "passwd",
        "picture.svg",
        "raw-\ufffd",
        "static/logo.txt",
        "twice",
        "twice",
    ]
    by_path = {file["path"]: file for file in listed["files"]}
    main = by_path["app/main.py"]
    assert (main["kind"], main["bytes"], main["executable"]) == ("file", 16, True)
    assert main["sha256"] == hashlib.sha256(b"print('h\xc3\xa4llo')\n").hexdigest()
    assert (by_path["passwd"]["kind"], by_path["large.txt"]["executable"]) == ("link", False)
    assert "immutable" in answer.headers["cache-control"]

    in_pages: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = (await api.http.get(path, params={"limit": 4, "after": after})).json()
        assert len(page["files"]) <= 4
        in_pages += page["files"]
        after = page["next_after"]
    assert in_pages == listed["files"]
    beyond = (await api.http.get(path, params={"after": 10**6})).json()
    assert (beyond["files"], beyond["next_after"]) == ([], None)


@pytest.mark.thorough
async def test_the_latest_snapshot_has_a_number_and_is_not_cached(api: RunningApi, build: str) -> None:
    latest = await api.http.get(f"/v1/builds/{build}/snapshots/latest/files")
    assert (latest.json()["snapshot"], latest.headers["cache-control"]) == (7, "no-store")
    assert (await _file(api, build, "twice", "latest")).json()["snapshot"] == 7
    assert (await _file(api, build, "old.txt", "3")).json()["text"] == "old"


async def test_a_file_is_read_as_text(api: RunningApi, build: str) -> None:
    answer = await _file(api, build, "app/main.py")
    assert answer.headers["content-type"] == "application/json"
    assert "immutable" in answer.headers["cache-control"]
    main = answer.json()
    assert (main["text"], main["binary"], main["truncated"]) == ("print('hällo')\n", False, False)
    assert (main["media_type"], main["snapshot"]) == ("text/plain", 7)
    assert (await _file(api, build, HOSTILE)).json()["text"] == "<script>alert(1)</script>"
    large = (await _file(api, build, "large.txt")).json()
    assert (large["text"], large["truncated"], large["bytes"]) == ("ü" * 500_000, True, 1_200_000)
    noise = (await _file(api, build, "noise.bin")).json()
    assert (noise["text"], noise["binary"], noise["media_type"]) == (None, True, "application/octet-stream")
    picture = (await _file(api, build, "static/logo.txt")).json()
    assert (picture["text"], picture["binary"], picture["media_type"]) == (None, True, "image/png")


async def test_names_are_only_compared(api: RunningApi, build: str) -> None:
    link = (await _file(api, build, "passwd")).json()
    assert (link["kind"], link["text"], link["media_type"]) == ("link", "/etc/passwd", "inode/symlink")
    assert (await _file(api, build, "../../etc/shadow")).json()["text"] == "outside"
    assert (await _file(api, build, "twice")).json()["text"] == "second"  # what a restore leaves
    assert (await _file(api, build, "raw-\ufffd")).json()["text"] == "raw"
    for missing in ("../../etc/passwd", "/etc/passwd", "app", ".git/config", "app/", "./twice", "a\0b"):
        answer = await _file(api, build, missing)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:cofounder:problem:not-found"), missing


async def test_a_small_archive_that_unpacks_to_a_lot_is_expensive(
    api: RunningApi, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[RequestClass] = []

    async def take(who: str, kind: RequestClass) -> None:
        taken.append(kind)

    monkeypatch.setattr("api.routes.files.CHEAP_UNPACKED_BYTES", 3_000_000)
    await store_files(api, build, [("a.txt", b"a", {}), ("zeros", bytes(3_000_000), {})], number=5)
    monkeypatch.setattr(api.resources.limits, "take", take)
    for number, path, expected in (
        ("5", "a.txt", [RequestClass.READ, RequestClass.EXPENSIVE]),
        ("3", "old.txt", [RequestClass.READ]),
    ):
        taken.clear()
        assert (await _file(api, build, path, number)).status_code == 200
        assert taken == expected


async def test_few_archives_are_searched_at_once(api: RunningApi, build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    now = 0

    async def searched(archive: AsyncGenerator[bytes], name: str, occurrence: int) -> AsyncGenerator[bytes]:
        nonlocal now
        now += 1
        running.append(now)
        await asyncio.sleep(0.05)
        now -= 1
        yield b"old"

    monkeypatch.setattr("services.snapshot_files.read_member", searched)
    answers = await asyncio.gather(*(_file(api, build, "old.txt", "3") for _ in range(8)))
    assert [answer.json()["text"] for answer in answers] == ["old"] * 8
    assert (len(running), max(running) <= 2) == (8, True)


@pytest.mark.thorough
async def test_only_pictures_are_served_as_what_they_are(api: RunningApi, build: str) -> None:
    path = f"/v1/builds/{build}/snapshots/7/file/content"
    picture = await api.http.get(path, params={"path": "static/logo.txt"})
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    assert picture.headers["content-disposition"].startswith("inline")
    for name, content in (("picture.svg", SVG), (HOSTILE, b"<script>alert(1)</script>"), ("noise.bin", NOISE)):
        answer = await api.http.get(path, params={"path": name})
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.thorough
async def test_what_is_not_there_is_said(api: RunningApi, build: str) -> None:
    await store_files(api, build, MEMBERS, number=1, state="deleted")
    await store_files(api, build, MEMBERS, number=2, manifest_key="lost")
    await store_files(api, build, MEMBERS, number=4, archive_key="lost")
    await store_files(api, build, MEMBERS, number=8, state="taking", stored_at=None)
    for which, status in (("1", 404), ("2", 404), ("8", 409), ("9", 404), ("0", 422), ("last", 422)):
        for operation in ("files", "file", "file/content"):
            path = f"/v1/builds/{build}/snapshots/{which}/{operation}"
            answer = await api.http.get(path, params={"path": "twice"})
            assert answer.status_code == status, (which, operation)
    lost = await _file(api, build, "twice", "4")
    assert (lost.status_code, "not in the object store" in lost.json()["detail"]) == (404, True)
    assert "lost" not in json.dumps(lost.json())
    assert (await api.http.get(f"/v1/builds/{await api.build()}/snapshots/latest/files")).status_code == 404
    for operation in ("files", "file", "file/content"):
        path = f"/v1/builds/{build}/snapshots/7/{operation}"
        eve = await api.http.get(path, params={"path": "twice"}, headers=as_user("eve"))
        assert (eve.status_code, eve.json()["type"]) == (404, "urn:cofounder:problem:not-found")
