"""What must be true of a build when it has closed, whatever has struck it, and of the ground when all have."""

import asyncio
import itertools
import json
import re
import uuid
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import asyncpg
import psutil
from sqlalchemy import func, select, text

from activities.sandbox.snapshot_store import restore_snapshot, stored_manifest
from bench.flat import chain_of, largest_payload, shares_of
from clients.sandbox import Role, Sandbox
from db.models import (
    Base,
    Build,
    BusinessEvent,
    Event,
    FounderMessage,
    LedgerEntry,
    Message,
    Snapshot,
    ToolCall,
    Turn,
    UserDay,
)
from db.money import budget_of
from db.snapshots import SNAPSHOTS_PREFIX
from domain.errors import NotFound, SnapshotFailed
from domain.prompt import founder_message
from domain.status import Status
from tests.faults.sample_build import EFFECT
from tests.harness.faults import SECRET, FaultHarness
from tests.processes import command_line, lives
from tests.wait import DEADLINE

KEPT = 5
"""Snapshots of a build, the final one aside."""

_Sent = tuple[str, dict[str, Any]]
"""A request's id and its body."""

_CLASSES = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
_LARGEST_PAYLOAD = 4096
"""Bytes of one payload in a history: ids, counts and short summaries."""

_LARGEST_TURN = 65_536
"""Bytes of one turn in a history, whatever befell it and however often its founder spoke meanwhile."""

_NOT_RUN = "This call was not run"
_STARTED = re.compile(r"\bstart (toolu_\w+)")


class Damage(AssertionError):
    """What was found, in sentences."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("; ".join(found))
        self.found = found


@dataclass(frozen=True)
class Handed:
    """What a build hands over: the tree of its last commit, every file that is in no commit with its mode and hash, and
    every file of its snapshot. No commit's id or date, which differ from run to run."""

    tree: str
    uncommitted: str
    files: frozenset[tuple[str, str, int, str]]

    def differs_from(self, other: "Handed") -> str | None:
        """How it differs, in words; None if it does not."""
        if self == other:
            return None
        paths = sorted({entry[0] for entry in self.files ^ other.files})
        return (
            f"tree {self.tree[:12]} instead of {other.tree[:12]}, paths that differ: {paths}; in no commit: "
            f"{self.uncommitted or 'nothing'} instead of {other.uncommitted or 'nothing'}"
        )


@asynccontextmanager
async def restored(fault_harness: FaultHarness, snapshot: Snapshot) -> AsyncIterator[Sandbox]:
    """A fresh sandbox, of no build, with the snapshot restored into it and compared with its manifest.

    Raises:
        SnapshotFailed: they differ, or it can't be restored.
    """
    sandbox = await fault_harness.sandboxes.create(str(uuid.uuid4()), Role.GATE)
    try:
        await restore_snapshot(fault_harness.store, sandbox, snapshot)
        yield sandbox
    finally:
        await fault_harness.sandboxes.kill(sandbox.id)


_UNCOMMITTED = """
git status --porcelain --untracked-files=no
git ls-files -z --others --exclude-standard | xargs -0 -r stat --printf '%a '
git ls-files -z --others --exclude-standard | xargs -0 -r sha256sum
"""


async def handed_over(fault_harness: FaultHarness, build_id: uuid.UUID) -> Handed:
    """What a ready build has handed over: its final snapshot, restored."""
    async with fault_harness.sessions() as session:
        final = await session.scalar(select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.final))
    if final is None:
        raise Damage(["a ready build has no final snapshot"])
    async with restored(fault_harness, final) as sandbox:
        tree = await sandbox.run("git rev-parse 'HEAD^{tree}'", timeout_seconds=DEADLINE)
        uncommitted = await sandbox.run(_UNCOMMITTED, timeout_seconds=DEADLINE)
    files = frozenset(
        (entry.path, entry.kind.value, entry.mode, entry.sha256)
        for entry in await stored_manifest(fault_harness.store, final)
        if entry.path != ".git" and not entry.path.startswith(".git/")
    )
    return Handed(tree.stdout.strip(), uncommitted.stdout.strip() + uncommitted.stderr, files)


async def check_build(fault_harness: FaultHarness, build_id: uuid.UUID, expected: Handed | None) -> None:
    """Everything about one closed build. `expected`: it has to be ready, with this in its hands.

    Raises:
        Damage: something is not as it must be.
    """
    found: list[str] = []
    async with fault_harness.sessions() as session:
        build = await session.get_one(Build, build_id)
    if expected is not None:
        if build.status != Status.READY:
            raise Damage([f"the build is {build.status}: {build.reason}"])
        if difference := (await handed_over(fault_harness, build_id)).differs_from(expected):
            found.append(f"the workspace is another: {difference}")
        found += await _announcements(fault_harness, build_id)
    sent = requests_of(fault_harness, build.goal)
    found += await _ledger(fault_harness, build, sent)
    found += await _conversation(fault_harness, build, sent)
    found += await _messages(fault_harness, build, sent)
    found += await _effects(fault_harness, build_id)
    found += await _snapshots(fault_harness, build)
    found += await _sandboxes(fault_harness, build)
    found += await _feed(fault_harness, build)
    found += await _history(fault_harness, build)
    if found:
        raise Damage(found)


async def check_nothing_left(fault_harness: FaultHarness) -> None:
    """When every build and preview has closed, and every worker has ended.

    Raises:
        Damage: something is left.
    """
    await fault_harness.forget_connections()
    deadline = monotonic() + DEADLINE
    while found := await _left(fault_harness):  # what has been told to end may take a moment for it
        if monotonic() > deadline:
            raise Damage(found)
        await asyncio.sleep(0.2)


async def _left(fault_harness: FaultHarness) -> list[str]:
    found = [f"sandbox {each.id} of build {each.build_id} is left" for each in await fault_harness.sandboxes.list_all()]
    found += [f"upload {key} is left" for key in await fault_harness.store.unfinished_uploads("")]
    found += [
        f"process {' '.join(command_line(process))[:200]} of a sandbox is left"
        for process in psutil.Process(fault_harness.stack.pid("sandbox")).children(recursive=True)
        if lives(process)
    ]
    found += [
        f"process {' '.join(command_line(process))[:200]} of a worker is left"
        for process in psutil.process_iter()
        if _is_of(fault_harness, process)
    ]
    url = fault_harness.settings.database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(url, server_settings={"application_name": "faults"})
    left = await connection.fetch("select state, query from pg_stat_activity where application_name = 'cofounder'")
    await connection.close()
    return found + [f"a database connection is left ({row['state']}): {row['query'][:200]}" for row in left]


def _is_of(fault_harness: FaultHarness, process: psutil.Process) -> bool:
    """Whether a worker has started this process, such as Chromium."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("HOME") == str(
            fault_harness.directory
        )
    except psutil.Error:
        return False


async def check_no_secret(fault_harness: FaultHarness) -> None:
    """Rule 9: no secret in a prompt, a log, an event or any other row, a history or a snapshot.

    Raises:
        Damage: there is one.
    """
    found: list[str] = []
    environment = fault_harness.environment
    secrets = [SECRET, environment["E2B_API_KEY"], environment["AWS_SECRET_ACCESS_KEY"]]
    wanted = [secret.encode() for secret in secrets]

    def look(where: str, data: bytes) -> None:
        if any(secret in data for secret in wanted):
            found.append(f"a secret is in {where}")

    for path in [*fault_harness.bodies.glob("*.json"), *(worker.log for worker in fault_harness.workers)]:
        look(f"{path.parent.name}/{path.name}", path.read_bytes())
    async with fault_harness.sessions() as session:
        for table in Base.metadata.sorted_tables:
            rows = await session.scalars(text(f'select t::text from "{table.name}" t'))
            look(f"table {table.name}", "\n".join(rows).encode())
    async for workflow in fault_harness.client.list_workflows():
        handle = fault_harness.client.get_workflow_handle(workflow.id, run_id=workflow.run_id)
        async for event in handle.fetch_history_events():
            look(f"the history of {workflow.id}", event.SerializeToString())
    for key in await fault_harness.store.keys(SNAPSHOTS_PREFIX):
        unpacked, rest = zlib.decompressobj(wbits=47), b""
        with suppress(NotFound):  # the reaper has swept it up meanwhile
            async for piece in fault_harness.store.stream(key):
                data = unpacked.decompress(piece) if key.endswith(".gz") else piece
                look(key, rest + data)
                rest = data[-64:]
    if found:
        raise Damage(sorted(set(found)))


# ---- money


async def check_spending(fault_harness: FaultHarness) -> None:
    """Rule 2: no user has spent more than 110 % of a day's allowance.

    Raises:
        Damage: somebody has.
    """
    found = []
    async with fault_harness.sessions() as session:
        for day in await session.scalars(select(UserDay)):
            state = await budget_of(session, day.user_id, day.day)
            if state.ceiling is not None and state.spent > state.ceiling:
                found.append(f"{day.user_id} has spent {state.spent} of {state.allowance} on {day.day}")
    if found:
        raise Damage(found)


async def _ledger(fault_harness: FaultHarness, build: Build, sent: list[_Sent]) -> list[str]:
    """Rule 1: the ledger equals what the model server says it served; what a crash lost is marked as estimated."""
    async with fault_harness.sessions() as session:
        entries = (await session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build.id))).all()
        answered = set((await session.scalars(select(Turn.claim).where(Turn.build_id == build.id))).all())
    found = [f"ledger entry of turn {entry.turn} is still open" for entry in entries if entry.state == "open"]
    settled = {entry.request_id: entry for entry in entries if entry.state == "settled"}
    ours = {request_id for request_id, _ in sent}
    served = {line["request_id"]: line for line in fault_harness.served() if line["request_id"] in ours}
    billed = {request_id for request_id, line in served.items() if line["status"] == 200}
    found += [f"the ledger has request {request_id}, which was not served" for request_id in settled.keys() - billed]
    lost = billed - settled.keys()
    estimated = [entry for entry in entries if entry.state == "estimated"]
    if len(lost) > len(estimated):
        states = Counter(entry.state for entry in entries)
        found.append(f"{len(lost)} served calls are in nobody's books, {len(estimated)} are estimated ({dict(states)})")
    for request_id in settled.keys() & billed:
        entry, usage = settled[request_id], served[request_id]["usage"]
        noted = {
            "input": entry.input_tokens,
            "cache_write_5m": entry.cache_write_5m_tokens,
            "cache_write_1h": entry.cache_write_1h_tokens,
            "cache_read": entry.cache_read_tokens,
            "output": entry.output_tokens,
        }
        # A stream that broke is settled on what was seen of it.
        whole = entry.id in answered
        if any(noted[name] != usage[name] if whole else noted[name] > usage[name] for name in _CLASSES):
            found.append(f"turn {entry.turn}: the ledger has {noted}, the server {usage} for request {request_id}")
    return found


# ---- the conversation


def requests_of(fault_harness: FaultHarness, goal: str) -> list[_Sent]:
    """Request ids and bodies of what was sent for a build, in the order of arrival."""
    found = []
    for path in sorted(fault_harness.bodies.glob("*.json")):
        text = path.read_text(errors="replace")
        with suppress(json.JSONDecodeError):  # half written: it arrives at this moment
            if goal in text:
                found.append((path.stem.partition("-")[2], json.loads(text)))
    return found


async def _conversation(fault_harness: FaultHarness, build: Build, sent: list[_Sent]) -> list[str]:
    """Rule 3: one result per tool call, right after it; roles alternate; what was sent never changes."""
    found: list[str] = []
    async with fault_harness.sessions() as session:
        calls = (await session.scalars(select(ToolCall).where(ToolCall.build_id == build.id))).all()
        spoken = (
            await session.scalars(
                select(Message.content).where(Message.build_id == build.id, Message.role == "assistant")
            )
        ).all()
    asked = [block["id"] for content in spoken for block in json.loads(content) if block["type"] == "tool_use"]
    if sorted(asked) != sorted(call.tool_use_id for call in calls):
        found.append("the tool calls in the answers are not those in the table")
    found += [f"call {call.tool_use_id} has no result" for call in calls if call.state != "done"]

    bodies = sorted((body for _, body in sent), key=lambda body: len(body["messages"]))
    for body in bodies:
        found += _ill_formed(body["messages"])
    for shorter, longer in itertools.pairwise(bodies):
        if (shorter["system"], shorter["tools"]) != (longer["system"], longer["tools"]):
            found.append("the system prompt or the tools have changed")
        if json.dumps(longer["messages"][: len(shorter["messages"])]) != json.dumps(shorter["messages"]):
            found.append(f"what was sent in {len(shorter['messages'])} messages has changed")
    return found


def _ill_formed(messages: list[dict[str, Any]]) -> list[str]:
    found = []
    if any(message["role"] != ("user", "assistant")[index % 2] for index, message in enumerate(messages)):
        found.append("roles do not alternate")
    for said, next_said in itertools.pairwise(messages):
        uses = [block["id"] for block in said["content"] if block["type"] == "tool_use"]
        results = [block["tool_use_id"] for block in next_said["content"] if block["type"] == "tool_result"]
        if said["role"] == "assistant" and uses != results:
            found.append(f"the calls {uses} are followed by the results {results}")
    return found


async def _messages(fault_harness: FaultHarness, build: Build, sent: list[_Sent]) -> list[str]:
    """Rule 5: what a founder got an acknowledgement for reaches the agent once, in order."""
    async with fault_harness.sessions() as session:
        rows = await session.scalars(
            select(FounderMessage).where(FounderMessage.build_id == build.id).order_by(FounderMessage.number)
        )
        said = [row.text for row in rows]
    if not said or build.status != Status.READY:
        return []
    longest = max((body["messages"] for _, body in sent), key=len)
    told = [
        block["text"]
        for message in longest
        if message["role"] == "user"
        for block in message["content"]
        if block["type"] == "text"
    ]
    heard = [text for block in told for text in said if founder_message(text) == block]
    return [] if heard == said else [f"the founder has said {said}, the agent has heard {heard}"]


# ---- side effects


async def _effects(fault_harness: FaultHarness, build_id: uuid.UUID) -> list[str]:
    """Rule 4: a side effect happens at most once per tool call; and what the agent is told of it is true."""
    found: list[str] = []
    happened = Counter(fault_harness.effects())
    started: dict[str, set[str]] = {}
    for line in fault_harness.started():
        for call_id in _STARTED.findall(" ".join(line["arguments"])):
            started.setdefault(call_id, set()).add(line["sandbox"])
    async with fault_harness.sessions() as session:
        calls = (await session.scalars(select(ToolCall).where(ToolCall.build_id == build_id))).all()
    for call in calls:
        times, told = happened[call.tool_use_id], call.result or ""
        if times > 1:
            found.append(f"call {call.tool_use_id} took effect {times} times")
        if times and _NOT_RUN in told:
            found.append(f"the agent is told that call {call.tool_use_id} was not run, but it was")
        if call.name == "bash" and call.summary.startswith(f"bash: {EFFECT}"[:40]) and not call.is_error and not times:
            found.append(f"the agent is told that call {call.tool_use_id} succeeded, but it did not run")
        if len(started.get(call.tool_use_id, ())) > 1:
            found.append(f"call {call.tool_use_id} was started in {len(started[call.tool_use_id])} sandboxes")
    return found


# ---- snapshots


async def _snapshots(fault_harness: FaultHarness, build: Build) -> list[str]:
    """Rule 6: the current snapshot restores to its manifest, at most five stay, and nothing else is in the store."""
    found: list[str] = []
    async with fault_harness.sessions() as session:
        rows = (
            await session.scalars(
                select(Snapshot).where(Snapshot.build_id == build.id).order_by(Snapshot.number.desc())
            )
        ).all()
    stored = [row for row in rows if row.state == "stored"]
    found += [f"snapshot {row.number} is still being taken" for row in rows if row.state == "taking"]
    if len([row for row in stored if not row.final]) > KEPT:
        found.append(f"{len(stored)} snapshots are kept")
    for row in stored:
        if await fault_harness.store.size(row.archive_key) != row.archive_bytes:
            found.append(f"the archive of snapshot {row.number} is not what its row says")
    if stored and not stored[0].final:  # what a ready build hands over has been restored before
        try:
            async with restored(fault_harness, stored[0]):
                pass
        except SnapshotFailed as error:
            found.append(f"the current snapshot {stored[0].number} does not restore to its manifest: {error}")
    elif not stored and any(row.state == "deleted" for row in rows):
        found.append("no snapshot is left")
    needed = {key for row in stored for key in (row.archive_key, row.manifest_key)}
    prefix = f"snapshots/{build.id}/"
    found += [f"{key} belongs to no snapshot" for key in await fault_harness.store.keys(prefix) if key not in needed]
    found += [f"upload {key} is left" for key in await fault_harness.store.unfinished_uploads(prefix)]
    return found


async def _sandboxes(fault_harness: FaultHarness, build: Build) -> list[str]:
    """Rule 7: a ready build has at most its preview's sandbox, any other closed one has none."""
    if build.status == Status.FAILED:
        return []  # by an operator, perhaps, who has terminated its workflow: then the reaper ends its sandbox
    living = [each for each in await fault_harness.sandboxes.list_all() if each.build_id == str(build.id)]
    most = 1 if build.status == Status.READY else 0
    return [] if len(living) <= most else [f"{len(living)} sandboxes of a {build.status} build live"]


# ---- what is told


async def _feed(fault_harness: FaultHarness, build: Build) -> list[str]:
    """The feed has no gap, and shows no line of an attempt that died."""
    found: list[str] = []
    async with fault_harness.sessions() as session:
        events = (await session.scalars(select(Event).where(Event.build_id == build.id).order_by(Event.id))).all()
        answered = {str(claim) for claim in await session.scalars(select(Turn.claim).where(Turn.build_id == build.id))}
    # The preview may have told something since the row was read.
    if [event.id for event in events] != list(range(1, len(events) + 1)) or len(events) < build.last_event_id:
        found.append("the feed has gaps")
    shown = {event.data["claim"] for event in events if event.type == "narration"}
    withdrawn = {event.data["claim"] for event in events if event.type == "turn_withdrawn"}
    if build.status == Status.READY and (wrong := shown - answered - withdrawn):
        found.append(f"the feed shows lines of {len(wrong)} attempts that died")
    done = Counter(event.data["tool_use_id"] for event in events if event.type == "tool_done")
    found += [
        f"the feed says {times} times that call {call_id} is done" for call_id, times in done.items() if times > 1
    ]
    return found


async def _announcements(fault_harness: FaultHarness, build_id: uuid.UUID) -> list[str]:
    async with fault_harness.sessions() as session:
        told = await session.scalar(select(func.count()).where(BusinessEvent.build_id == build_id))
    return [] if told == 1 else [f"the rest of the business has heard {told} times of the build"]


async def _history(fault_harness: FaultHarness, build: Build) -> list[str]:
    """Rule 10: a turn adds ids, counts and short summaries to history, and no more for having gone wrong."""
    found: list[str] = []
    for events in await chain_of(fault_harness.client, str(build.id)):
        found += [
            f"a turn takes {share.bytes} bytes of history" for share in shares_of(events) if share.bytes > _LARGEST_TURN
        ]
        if (largest := max(map(largest_payload, events), default=0)) > _LARGEST_PAYLOAD:
            found.append(f"a payload in history has {largest} bytes")
    return found
