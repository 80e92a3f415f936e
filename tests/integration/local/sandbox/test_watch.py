"""Watching directories of local sandboxes with the SDK: as a stream, and by asking for events."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import e2b
import pytest
from e2b import AsyncSandbox, FilesystemEventType, InvalidArgumentException, NotFoundException, SandboxException
from e2b.exceptions import SandboxNotRunningException

from local.sandbox import guest_watch, watcher
from local.sandbox.guest_watch import Watch
from local.sandbox.sandbox import MAX_WATCHERS
from local.sandbox.watcher import WatchEnded, Watcher
from tests.harness.wait import DEADLINE, wait_until
from tests.integration.local.sandbox.sandbox_server import SandboxServer, new_sandbox, sandbox_server

Seen = list[tuple[str, str]]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxServer]:
    async with sandbox_server(tmp_path_factory.mktemp("sandboxes") / "root") as running:
        yield running


@pytest.fixture
async def sandbox(server: SandboxServer) -> AsyncIterator[AsyncSandbox]:
    async with new_sandbox(server) as made:
        yield made


class Watched:
    """What a stream reported."""

    def __init__(self) -> None:
        self.events: list[e2b.FilesystemEvent] = []
        self.ends: list[Exception | None] = []

    @property
    def seen(self) -> Seen:
        return [(event.type.value, event.name) for event in self.events]

    async def until(self, *expected: tuple[str, str]) -> None:
        async def all_seen() -> bool:
            return set(expected) <= set(self.seen)

        await wait_until(all_seen)


async def _watch(
    sandbox: AsyncSandbox, path: str, *, recursive: bool = False, include_entry: bool = False
) -> tuple[Watched, e2b.AsyncWatchHandle]:
    watched = Watched()
    handle = await sandbox.files.watch_dir(
        path,
        on_event=watched.events.append,
        on_exit=watched.ends.append,
        timeout=0,
        recursive=recursive,
        include_entry=include_entry,
    )
    return watched, handle


async def _stop(handle: e2b.AsyncWatchHandle) -> None:
    await handle.stop()  # type: ignore[no-untyped-call]  # the SDK's


class TestStream:
    async def test_every_kind_of_event(self, sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("mkdir -p w/below && echo old > w/old")
        watched, handle = await _watch(sandbox, "w")
        await sandbox.commands.run(
            "cd w && echo 1 > new && chmod 600 new && mv new moved && rm moved old && touch below/unseen && mkdir last"
        )
        await watched.until(("create", "last"))
        seen = [each for index, each in enumerate(watched.seen) if each not in watched.seen[:index]]
        assert seen == [
            ("create", "new"),
            ("write", "new"),
            ("chmod", "new"),
            ("rename", "new"),
            ("create", "moved"),
            ("remove", "moved"),
            ("remove", "old"),
            ("create", "last"),
        ]
        await _stop(handle)
        assert watched.ends == [None]

    async def test_recursion_follows_new_and_moved_directories(self, sandbox: AsyncSandbox) -> None:
        await sandbox.commands.run("mkdir -p w/a/b out/side && echo 1 > out/side/brought")
        watched, _ = await _watch(sandbox, "w", recursive=True)
        await sandbox.commands.run("mkdir -p w/n/e/w && echo 1 > w/n/e/w/file; echo 1 > w/a/b/deep")
        await watched.until(("create", "n"), ("create", "n/e"), ("create", "n/e/w"), ("create", "n/e/w/file"))
        assert len([each for each in watched.seen if each == ("create", "n/e/w/file")]) == 1
        await sandbox.commands.run("mv w/a w/z && touch w/z/b/after; mv w/n . && touch n/gone; mv out/side w/side")
        await watched.until(("rename", "a"), ("create", "z"), ("rename", "n"), ("create", "side"))
        await sandbox.commands.run("echo 1 > w/z/b/later; echo 1 > n/e/gone; echo 1 > w/side/into; mkdir w/last")
        await watched.until(("create", "z/b/later"), ("create", "side/into"), ("create", "last"))
        assert not {name for _, name in watched.seen if "gone" in name or "brought" in name}

    async def test_entries_describe_what_is_there(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.make_dir("w")
        watched, _ = await _watch(sandbox, "w", include_entry=True)
        await sandbox.commands.run("cd w && printf 12345 > sized && ln -s sized link && rm sized && touch last")
        await watched.until(("create", "last"))
        entries = {(event.type.value, event.name): event.entry for event in watched.events}
        assert entries["remove", "sized"] is None
        link = entries["create", "link"]
        assert link is not None
        assert (link.path, link.symlink_target) == ("/home/user/w/link", "/home/user/w/sized")

    async def test_a_pause_ends_the_stream(self, sandbox: AsyncSandbox) -> None:
        watched, _ = await _watch(sandbox, ".")
        await sandbox.pause()

        async def ended() -> bool:
            return bool(watched.ends)

        await wait_until(ended)
        assert isinstance(watched.ends[0], SandboxNotRunningException)

    async def test_a_deadline_ends_the_stream(self, sandbox: AsyncSandbox) -> None:
        ended = asyncio.Event()
        await sandbox.files.watch_dir(".", on_event=lambda _: None, on_exit=lambda _: ended.set(), timeout=1)
        async with asyncio.timeout(DEADLINE):
            await ended.wait()

    async def test_who_leaves_makes_room_at_once(self, sandbox: AsyncSandbox) -> None:
        handles = [(await _watch(sandbox, "."))[1] for _ in range(MAX_WATCHERS)]
        with pytest.raises(SandboxException, match="as many as the local sandbox server allows"):
            await _watch(sandbox, ".")
        for handle in handles:
            await _stop(handle)

        async def room() -> bool:
            try:
                await _watch(sandbox, ".")
            except SandboxException:
                return False
            return True

        await wait_until(room)


class TestPolling:
    @pytest.fixture
    def polled(self, server: SandboxServer, sandbox: AsyncSandbox) -> e2b.Sandbox:
        """The SDK's client without asyncio, which asks for events."""
        return e2b.Sandbox.connect(sandbox.sandbox_id, **server.options)

    async def test_events_wait_until_they_are_asked_for(self, sandbox: AsyncSandbox, polled: e2b.Sandbox) -> None:
        handle = await asyncio.to_thread(polled.files.watch_dir, "/home/user", recursive=True)
        await sandbox.commands.run("mkdir -p d && echo 1 > d/one")
        seen: Seen = []

        async def asked(name: str) -> bool:
            events = await asyncio.to_thread(handle.get_new_events)
            seen.extend((event.type.value, event.name) for event in events)
            return ("create", name) in seen

        await wait_until(lambda: asked("d/one"))
        await sandbox.pause()
        await sandbox.connect()
        await sandbox.commands.run("echo 1 > d/two")
        await wait_until(lambda: asked("d/two"))
        made = [name for kind, name in seen if kind == "create"]
        assert len(made) == len({*made}), seen
        await asyncio.to_thread(handle.stop)
        with pytest.raises(SandboxException, match="stopped"):
            handle.get_new_events()

    async def test_a_boot_forgets_watchers(self, sandbox: AsyncSandbox, polled: e2b.Sandbox) -> None:
        handle = await asyncio.to_thread(polled.files.watch_dir, "/home/user")
        await sandbox.pause(mode="filesystem")
        await sandbox.connect()
        with pytest.raises(NotFoundException, match="not found"):
            await asyncio.to_thread(handle.get_new_events)
        with pytest.raises(NotFoundException, match="not found"):
            await asyncio.to_thread(handle.stop)


class TestRefusals:
    async def test_what_is_not_a_directory_says_so(self, sandbox: AsyncSandbox) -> None:
        await sandbox.files.write("file", "1")
        with pytest.raises(NotFoundException):
            await _watch(sandbox, "missing")
        with pytest.raises(InvalidArgumentException, match="not a directory"):
            await _watch(sandbox, "file")
        with pytest.raises(SandboxException, match="does not serve the user 'root'"):
            await sandbox.files.watch_dir(".", on_event=lambda _: None, user="root")

    async def test_a_link_leads_nowhere_on_the_host(
        self, server: SandboxServer, sandbox: AsyncSandbox, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        outside = tmp_path_factory.mktemp("outside")
        outside.chmod(0o755)
        await sandbox.commands.run(f"mkdir w && ln -s {outside} out && ln -s /home/user/aside w/aside && mkdir aside")
        with pytest.raises(NotFoundException):
            await _watch(sandbox, "out")
        with pytest.raises(NotFoundException):
            await _watch(sandbox, str(server.root))
        watched, _ = await _watch(sandbox, "w", recursive=True)
        await sandbox.commands.run("echo 1 > aside/unseen; ln -s /etc w/etc; echo 1 > w/last")
        await watched.until(("create", "last"))
        assert not {name for _, name in watched.seen if "unseen" in name}


class TestLimits:
    """Both ends of a watch without a sandbox between them."""

    async def test_nothing_is_lost_while_events_wait(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watcher, "MAX_EVENTS", 20)
        reading = Watcher(Watch(str(tmp_path), recursive=False, include_entry=False).start())
        await asyncio.to_thread(_touch_by_turns, tmp_path, 3000)
        names = [(await reading.next()).name for _ in range(3000)]
        assert names == ["a", "b"] * 1500
        reading.end("test")

    async def test_lost_events_are_reported(self, tmp_path: Path) -> None:
        watch = Watch(str(tmp_path), recursive=False, include_entry=False)
        await asyncio.to_thread(_touch_by_turns, tmp_path, _queue_length() + 2)
        reading = Watcher(watch.start())
        with pytest.raises(WatchEnded, match="events were lost"):
            await _until_the_end(reading)

    async def test_too_many_directories_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guest_watch, "MAX_DIRECTORIES", 10)
        reading = Watcher(Watch(str(tmp_path), recursive=True, include_entry=False).start())
        for number in range(10):
            (tmp_path / f"{number}").mkdir()
        with pytest.raises(WatchEnded, match="more than 10 directories"):
            await _until_the_end(reading)
        with pytest.raises(OSError, match="more than 10 directories"):
            Watch(str(tmp_path), recursive=True, include_entry=False)

    @pytest.mark.parametrize("data", [b"no json\n", b'{"type": "create"}\n', b"[]\n", b"x" * (1 << 20)])
    async def test_what_is_not_an_event_ends_the_watch(self, data: bytes) -> None:
        reader, writer = os.pipe()
        reading = Watcher(reader)
        await asyncio.to_thread(_write_until_closed, writer, data)
        with pytest.raises(WatchEnded, match="not an event"):
            await reading.next()


async def _until_the_end(reading: Watcher) -> None:
    while True:
        await reading.next()


def _queue_length() -> int:
    """As many events as the kernel keeps for a watch."""
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def _touch_by_turns(directory: Path, count: int) -> None:
    """Cause this many events. The kernel would merge equal ones that follow each other."""
    for number in range(count):
        path = directory / "ab"[number % 2]
        if number < 2:
            path.mkdir()
        else:
            path.chmod(0o755)


def _write_until_closed(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(descriptor)


def test_the_events_are_those_of_the_sdk() -> None:
    assert {kind.value for kind in FilesystemEventType} == {"create", "write", "remove", "rename", "chmod"}
