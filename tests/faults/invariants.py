"""Checks the invariants of a closed build, whatever faults struck it, and of the stack once all builds have closed."""

import asyncio
import itertools
import json
import re
import uuid
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import date
from time import monotonic
from typing import Any

import asyncpg
import psutil
from sqlalchemy import func, select, text

from activities.sandbox.snapshot_store import restore_snapshot, stored_manifest
from clients.sandbox import Role, Sandbox
from db.drift import find_drift
from db.models import (
    Base,
    Build,
    BusinessEvent,
    Compaction,
    Event,
    FounderMessage,
    GateRun,
    LedgerEntry,
    Message,
    Question,
    Snapshot,
    ToolCall,
    Turn,
    UserDay,
)
from db.money import budget_of
from db.tombstones import doomed_keys
from db.transaction import transaction
from domain.errors import NotFound, SnapshotFailed
from domain.product_secrets import key_texts
from domain.prompt import founder_answer, founder_message
from domain.status import Status
from local.sandbox.record import TRAFFIC_TOKEN_PREFIX
from tests.faults.recovered import Past
from tests.harness.fault_waits import Damage, Request, requests_of
from tests.harness.faults import SECRET, FaultHarness
from tests.harness.history import chain_of, failure_size, largest_payload, shares_of
from tests.harness.planted import PLANTED_KEY
from tests.harness.planted import needles as planted_needles
from tests.harness.processes import command_line, lives
from tests.harness.sample_build import EFFECT
from tests.harness.wait import DEADLINE

KEPT_SNAPSHOTS = 5
"""Snapshots kept for a build, not counting the final one."""

_CLASSES = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
_LARGEST_PAYLOAD = 4096
"""Most bytes of one payload in a history: ids, counts and short summaries."""

_LARGEST_TURN = 65_536
"""Most bytes of one turn in a history, whatever faults struck it and however many messages its founder sent."""

_LARGEST_REST = 12_288
"""Most bytes that a wait for a person or for budget adds to its turn, and a step that fails again after it: 4 KB if it
is the resume, 10 KB if it is a snapshot, of which a second one is tried before the next wait."""

_LARGEST_FAILURE = 3072
"""Most bytes of one failure in a history: what to do, and the innermost frames of where it happened."""

_NOT_RUN = "This call was not run"
LEFT_OBJECT = "belongs to no snapshot and has no tombstone"
_STARTED = re.compile(r"\bstart\W+(toolu_\w+)")


@dataclass(frozen=True)
class Deliverable:
    """What a build delivers: the tree of its last commit, every uncommitted file with its mode and hash, and every
    file of its snapshot. Ids and dates of commits are left out, as they differ from run to run."""

    tree: str
    uncommitted: str
    files: frozenset[tuple[str, str, int, str]]

    def differs_from(self, other: "Deliverable") -> str | None:
        """Describe the difference; None if there is none."""
        if self == other:
            return None
        paths = sorted({entry[0] for entry in self.files ^ other.files})
        return (
            f"tree {self.tree[:12]} instead of {other.tree[:12]}, paths that differ: {paths}; uncommitted: "
            f"{self.uncommitted or 'nothing'} instead of {other.uncommitted or 'nothing'}"
        )


@asynccontextmanager
async def restored_copy(fault_harness: FaultHarness, snapshot: Snapshot) -> AsyncIterator[Sandbox]:
    """Restore the snapshot into a fresh sandbox of its own and compare it with its manifest.

    Raises:
        SnapshotFailed: it can't be restored, or differs from its manifest.
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


async def deliverable_of(fault_harness: FaultHarness, build_id: uuid.UUID) -> Deliverable:
    """Restore the final snapshot of a ready build and read its deliverable.

    Raises:
        Damage: the build has no final snapshot.
    """
    async with transaction(fault_harness.sessions) as tx:
        final = await tx.session.scalar(select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.final))
    if final is None:
        raise Damage(["a ready build has no final snapshot"])
    async with restored_copy(fault_harness, final) as sandbox:
        tree = await sandbox.run("git rev-parse 'HEAD^{tree}'", timeout_seconds=DEADLINE)
        uncommitted = await sandbox.run(_UNCOMMITTED, timeout_seconds=DEADLINE)
    files = frozenset(
        (entry.path, entry.kind.value, entry.mode, entry.sha256)
        for entry in await stored_manifest(fault_harness.store, final)
        if entry.path != ".git" and not entry.path.startswith(".git/")
    )
    return Deliverable(tree.stdout.strip(), uncommitted.stdout.strip() + uncommitted.stderr, files)


async def check_build(
    fault_harness: FaultHarness, build_id: uuid.UUID, expected: Deliverable | None, past: Past | None = None
) -> None:
    """Check every invariant of one closed build. With `expected`, the build must be ready and have this deliverable.
    `past`: what an operator's recoveries may have taken from it.

    Raises:
        Damage: an invariant does not hold.
    """
    damage: list[str] = []
    async with transaction(fault_harness.sessions) as tx:
        build = await tx.session.get_one(Build, build_id)
    if expected is not None:
        if build.status != Status.READY:
            raise Damage([f"the build is {build.status}: {build.reason}"])
        if difference := (await deliverable_of(fault_harness, build_id)).differs_from(expected):
            damage.append(f"the workspace differs: {difference}")
        damage += await _announcements(fault_harness, build_id)
    past = past or Past(build.goal)
    requests = requests_of(fault_harness, past.goal)
    damage += await _ledger(fault_harness, build, requests, past)
    requests = [request for request in requests if not request.is_judge]
    damage += await _conversation(fault_harness, build, requests, past)
    damage += await _messages(fault_harness, build, past.last_course(requests))
    damage += await _effects(fault_harness, build_id, past)
    damage += await _snapshots(fault_harness, build, past)
    damage += await _sandboxes(fault_harness, build)
    damage += await _feed(fault_harness, build, past)
    if past.has_history:
        damage += await _history(fault_harness, build)
    if damage:
        raise Damage(damage)


async def check_nothing_left(fault_harness: FaultHarness) -> None:
    """Check that nothing is left once every build and preview has closed and every worker has ended.

    Raises:
        Damage: something is left.
    """
    await fault_harness.forget_connections()
    deadline = monotonic() + DEADLINE
    while damage := await _left(fault_harness):  # ending may take a moment
        if monotonic() > deadline:
            raise Damage(damage)
        await asyncio.sleep(0.2)


async def _left(fault_harness: FaultHarness) -> list[str]:
    damage = [
        f"sandbox {each.id} of build {each.build_id} is left" for each in await fault_harness.sandboxes.list_all()
    ]
    damage += [f"upload {key} is left" for key in await fault_harness.store.unfinished_uploads("")]
    damage += [
        f"process {' '.join(command_line(process))[:200]} of a sandbox is left"
        for process in psutil.Process(fault_harness.stack.pid("sandbox")).children(recursive=True)
        if lives(process)
    ]
    damage += [
        f"process {' '.join(command_line(process))[:200]} of a worker is left"
        for process in psutil.process_iter()
        if _started_by_worker(fault_harness, process)
    ]
    url = fault_harness.settings.database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(url, server_settings={"application_name": "faults"})
    left = await connection.fetch("select state, query from pg_stat_activity where application_name = 'cofounder'")
    await connection.close()
    return damage + [f"a database connection is left ({row['state']}): {row['query'][:200]}" for row in left]


def _started_by_worker(fault_harness: FaultHarness, process: psutil.Process) -> bool:
    """Whether a worker has started this process, for example Chromium."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("HOME") == str(
            fault_harness.directory
        )
    except psutil.Error:
        return False


async def check_no_secret(fault_harness: FaultHarness) -> None:
    """Rule 9: no secret appears in a prompt, a log, an event or any other row, a history, a snapshot or an image.

    Those that founders have planted are looked for in base64, hexadecimal and URL form, too. The traffic tokens of open
    previews are in their column, and nowhere else.

    Raises:
        Damage: a secret appears.
    """
    damage: list[str] = []
    environment = fault_harness.environment
    secrets = [SECRET, environment["E2B_API_KEY"], environment["AWS_SECRET_ACCESS_KEY"], *key_texts(PLANTED_KEY)]
    needles = [*(secret.encode() for secret in secrets), *planted_needles(), TRAFFIC_TOKEN_PREFIX.encode()]

    def look(where: str, data: bytes) -> None:
        if any(secret in data for secret in needles):
            damage.append(f"a secret is in {where}")

    logs = [*fault_harness.directory.glob("*.log"), *(fault_harness.stack.data / "logs").glob("*.log")]
    for path in [*fault_harness.bodies.glob("*.json"), *logs, fault_harness.oracle / "started.jsonl"]:
        look(f"{path.parent.name}/{path.name}", path.read_bytes())
    async with transaction(fault_harness.sessions) as tx:
        for table in Base.metadata.sorted_tables:
            rows = await tx.session.scalars(
                text(f"select (to_jsonb(t) - 'traffic_token')::text from \"{table.name}\" t")
            )
            look(f"table {table.name}", "\n".join(rows).encode())
    async for workflow in fault_harness.client.list_workflows():
        handle = fault_harness.client.get_workflow_handle(workflow.id, run_id=workflow.run_id)
        async for event in handle.fetch_history_events():
            look(f"the history of {workflow.id}", event.SerializeToString())
    for key in await fault_harness.store.keys(""):
        unpacked, rest = zlib.decompressobj(wbits=47), b""
        with suppress(NotFound):  # the reaper has deleted it meanwhile
            async for piece in fault_harness.store.stream(key):
                data = unpacked.decompress(piece) if key.endswith(".gz") else piece
                look(key, rest + data)
                rest = data[-64:]
    if damage:
        raise Damage(sorted(set(damage)))


# ---- money


async def check_spending(
    fault_harness: FaultHarness, lost_top_ups: Mapping[tuple[str, date], int] | None = None
) -> None:
    """Rule 2: no user has spent more than 110 % of a day's allowance, and the days' totals are the ledger's sums.

    `lost_top_ups`: what was added to a user's day and lost when the database was put back, in microdollars. It may
    have been spent before.

    Raises:
        Damage: a user has, or they are not.
    """
    damage = []
    async with transaction(fault_harness.sessions) as tx:
        damage += [str(drift) for drift in await find_drift(tx, date.min)]
        for day in await tx.session.scalars(select(UserDay)):
            state = await budget_of(tx, day.user_id, day.day)
            lost = (lost_top_ups or {}).get((day.user_id, day.day), 0)
            if state.ceiling is not None and state.spent > state.ceiling + lost:
                damage.append(f"{day.user_id} has spent {state.spent} of {state.allowance} on {day.day}")
    if damage:
        raise Damage(damage)


async def _ledger(fault_harness: FaultHarness, build: Build, requests: list[Request], past: Past) -> list[str]:
    """Rule 1: the ledger equals what the model server says it served; calls lost in a crash are marked as estimated."""
    async with transaction(fault_harness.sessions) as tx:
        entries = (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build.id))).all()
        answered = set((await tx.session.scalars(select(Turn.claim).where(Turn.build_id == build.id))).all())
        answered |= set(
            (await tx.session.scalars(select(Compaction.claim).where(Compaction.build_id == build.id))).all()
        )
        judged = select(GateRun.judge_claim).where(GateRun.build_id == build.id, GateRun.judgement["model"].astext > "")
        answered |= {claim for claim in await tx.session.scalars(judged) if claim is not None}
    damage = [f"ledger entry of turn {entry.turn} is still open" for entry in entries if entry.state == "open"]
    settled = {entry.request_id: entry for entry in entries if entry.state == "settled"}
    request_ids = {request.id for request in requests}
    served = {line["request_id"]: line for line in fault_harness.served() if line["request_id"] in request_ids}
    billed = {request_id for request_id, line in served.items() if line["status"] == 200}
    damage += [f"the ledger has request {request_id}, which was not served" for request_id in settled.keys() - billed]
    unrecorded = billed - settled.keys()
    estimated = [entry for entry in entries if entry.state == "estimated"]
    if past.calls_to_book([request for request in requests if request.id in unrecorded]) > len(estimated):
        states = Counter(entry.state for entry in entries)
        damage.append(
            f"{len(unrecorded)} served calls are not in the ledger, {len(estimated)} are estimated ({dict(states)})"
        )
    for request_id in settled.keys() & billed:
        entry, usage = settled[request_id], served[request_id]["usage"]
        tokens = {
            "input": entry.input_tokens,
            "cache_write_5m": entry.cache_write_5m_tokens,
            "cache_write_1h": entry.cache_write_1h_tokens,
            "cache_read": entry.cache_read_tokens,
            "output": entry.output_tokens,
        }
        # A broken stream is settled with the tokens seen until then.
        complete = entry.id in answered
        if any(tokens[name] != usage[name] if complete else tokens[name] > usage[name] for name in _CLASSES):
            damage.append(f"turn {entry.turn}: the ledger has {tokens}, the server {usage} for request {request_id}")
    return damage


# ---- the conversation


async def _conversation(fault_harness: FaultHarness, build: Build, requests: list[Request], past: Past) -> list[str]:
    """Rule 3: one result per tool call, right after it; no answer follows another; messages sent once never change."""
    damage: list[str] = []
    async with transaction(fault_harness.sessions) as tx:
        calls = (await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == build.id))).all()
        answers = (
            await tx.session.scalars(
                select(Message.content).where(Message.build_id == build.id, Message.role == "assistant")
            )
        ).all()
    call_ids = [block["id"] for content in answers for block in json.loads(content) if block["type"] == "tool_use"]
    if sorted(call_ids) != sorted(call.tool_use_id for call in calls):
        damage.append("the tool calls in the answers differ from those in the table")
    damage += [f"call {call.tool_use_id} has no result" for call in calls if call.state != "done"]

    bodies = [request.body for request in requests]
    for body in bodies:
        damage += _ill_formed(body["messages"])
    if len({json.dumps([body["system"], body["tools"]]) for body in bodies}) > 1:
        damage.append("the system prompt or the tools have changed")
    for course in past.courses(requests):
        damage += _changed([request.body for request in course])
    return damage


def _changed(requested: Sequence[dict[str, Any]]) -> list[str]:
    damage = []
    prefixes: dict[str, list[dict[str, Any]]] = {}
    for body in sorted(requested, key=lambda body: len(body["messages"])):
        prefixes.setdefault(json.dumps(body["messages"][0]), []).append(body)
    # Each prefix of the conversation has an opening of its own.
    for shorter, longer in itertools.chain.from_iterable(map(itertools.pairwise, prefixes.values())):
        sent = shorter["messages"]
        if sent[-1]["role"] == "system" and longer["messages"][len(sent) - 1 :][:1] != sent[-1:]:
            # The answer was declined, so the next user message came first.
            damage += _lost_notices(sent[-1], longer["messages"][len(sent) - 1 :])
            sent = sent[:-1]
        if json.dumps(longer["messages"][: len(sent)]) != json.dumps(sent):
            damage.append(f"the first {len(sent)} messages have changed between requests")
    return damage


def _lost_notices(notices: dict[str, Any], following: list[dict[str, Any]]) -> list[str]:
    later: dict[str, Any] = next((each for each in following if each["role"] == "system"), {"content": []})
    if following[0]["role"] != "user" or later["content"][: len(notices["content"])] != notices["content"]:
        return [f"the notices {notices['content']} are not in later requests"]
    return []


def _ill_formed(messages: list[dict[str, Any]]) -> list[str]:
    damage = []
    # After an answer that was declined, two messages of the user follow each other; the API reads them as one. An
    # answer may follow the summary that opens a prefix.
    summary = messages[0]["role"] == "assistant"
    turns = [(role, list(run)) for role, run in itertools.groupby(messages[summary:], key=lambda each: each["role"])]
    if messages[-1]["role"] == "assistant" or any(role != "user" and len(run) > 1 for role, run in turns):
        damage.append("roles do not alternate")
    roles = ["", *(role for role, _ in turns), "assistant"]
    if any(roles[at - 1 : at + 2] != ["user", role, "assistant"] for at, role in enumerate(roles) if role == "system"):
        damage.append("a message of the role system does not stand between the user and an answer")
    for (role, message), (_, following) in itertools.pairwise(turns):
        uses = [block["id"] for each in message for block in each["content"] if block["type"] == "tool_use"]
        results = [block["tool_use_id"] for each in following for block in each["content"] if "tool_use_id" in block]
        if role == "assistant" and uses != results:
            damage.append(f"the calls {uses} are followed by the results {results}")
    return damage


async def _messages(fault_harness: FaultHarness, build: Build, requests: list[Request]) -> list[str]:
    """Rule 5: every acknowledged message of the founder reaches the agent once, in order."""
    async with transaction(fault_harness.sessions) as tx:
        rows = await tx.session.execute(
            select(FounderMessage.text, Question.problem)
            .outerjoin(Question, Question.id == FounderMessage.question_id)
            .where(FounderMessage.build_id == build.id)
            .order_by(FounderMessage.number)
        )
        quoted = {
            text: founder_message(text) if problem is None else founder_answer(problem, text) for text, problem in rows
        }
    texts = list(quoted)
    if not texts or build.status != Status.READY:
        return []
    bodies = [request.body for request in requests]
    # A message stands in each request of its prefix, and in the last turns that the next prefix keeps.
    own = dict.fromkeys(json.dumps(message) for body in bodies for message in body["messages"])
    blocks = [
        block["text"]
        for message in map(json.loads, own)
        if message["role"] == "user"
        for block in message["content"]
        if block["type"] == "text"
    ]
    received = [text for block in blocks for text in texts if quoted[text] == block]
    # A prefix may begin with what the agent is told now, in one text.
    told = [text for text in texts if any(quoted[text] in block for block in blocks)]
    if told == texts and received == [text for text in texts if text in received]:
        return []
    return [f"the founder sent {texts}, the agent received {received}"]


# ---- side effects


async def _effects(fault_harness: FaultHarness, build_id: uuid.UUID, past: Past) -> list[str]:
    """Rule 4: a side effect happens at most once per tool call, and the result that the agent sees is true.

    A call that was run in a lost time is unknown to its rows.
    """
    damage: list[str] = []
    happened = Counter(fault_harness.effects())
    started: dict[str, set[str]] = {}
    started_at: dict[str, list[float]] = {}
    for line in fault_harness.started():
        for call_id in _STARTED.findall(" ".join(line["arguments"])):
            started.setdefault(call_id, set()).add(line["sandbox"])
            started_at.setdefault(call_id, []).append(line["time"])
    async with transaction(fault_harness.sessions) as tx:
        calls = (await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == build_id))).all()
    for call in calls:
        if past.was_lost(call, started_at.get(call.tool_use_id, ())):
            continue
        times, result = happened[call.tool_use_id], call.result or ""
        if times > 1:
            damage.append(f"call {call.tool_use_id} took effect {times} times")
        if times and _NOT_RUN in result:
            damage.append(f"the agent is told that call {call.tool_use_id} was not run, but it was")
        if call.name == "bash" and call.summary.startswith(f"bash: {EFFECT}"[:40]) and not call.is_error and not times:
            damage.append(f"the agent is told that call {call.tool_use_id} succeeded, but it did not run")
        if len(started.get(call.tool_use_id, ())) > 1:
            damage.append(f"call {call.tool_use_id} was started in {len(started[call.tool_use_id])} sandboxes")
    return damage


# ---- snapshots


async def _snapshots(fault_harness: FaultHarness, build: Build, past: Past) -> list[str]:
    """Rule 6: the current snapshot restores to its manifest, at most five stay, and other objects have tombstones.
    After the database was put back, an object without a row of its number is spared until it is a day old."""
    damage: list[str] = []
    async with transaction(fault_harness.sessions) as tx:
        rows = (
            await tx.session.scalars(
                select(Snapshot).where(Snapshot.build_id == build.id).order_by(Snapshot.number.desc())
            )
        ).all()
    stored = [row for row in rows if row.state == "stored"]
    damage += [f"snapshot {row.number} is still being taken" for row in rows if row.state == "taking"]
    if len([row for row in stored if not row.final and not row.kept]) > KEPT_SNAPSHOTS:
        damage.append(f"{len(stored)} snapshots are kept")
    for row in stored:
        if await fault_harness.store.size(row.archive_key) != row.archive_bytes:
            damage.append(f"the archive of snapshot {row.number} does not have the size in its row")
    if stored and not stored[0].final:  # the final one of a ready build has been restored before
        try:
            async with restored_copy(fault_harness, stored[0]):
                pass
        except SnapshotFailed as error:
            damage.append(f"the current snapshot {stored[0].number} does not restore to its manifest: {error}")
    elif not stored and any(row.state == "deleted" for row in rows):
        damage.append("no snapshot is left")
    needed = {key for row in stored for key in (row.archive_key, row.manifest_key)}
    prefix = f"snapshots/{build.id}/"
    async with transaction(fault_harness.sessions) as tx:
        doomed = await doomed_keys(tx, build.id)
    spared = {f"{prefix}{number:06}-" for number in range(1, 100)} if past.lost else set()
    spared -= {f"{prefix}{row.number:06}-" for row in rows}
    left = [key for key in await fault_harness.store.keys(prefix) if key not in needed | doomed]
    damage += [f"{key} {LEFT_OBJECT}" for key in left if not key.startswith(tuple(spared))]
    damage += [f"{key} is needed and has a tombstone" for key in needed & doomed]
    damage += [f"upload {key} {LEFT_OBJECT}" for key in await fault_harness.store.unfinished_uploads(prefix)]
    return damage


async def _sandboxes(fault_harness: FaultHarness, build: Build) -> list[str]:
    """Rule 7: a ready build has at most its preview's sandbox; any other closed build has none."""
    if build.status == Status.FAILED:
        return []  # an operator may have terminated its workflow: then the reaper ends its sandbox
    living = [each for each in await fault_harness.sandboxes.list_all() if each.build_id == str(build.id)]
    most = 1 if build.status == Status.READY else 0
    return [] if len(living) <= most else [f"{len(living)} sandboxes of a {build.status} build live"]


# ---- the feed, announcements and history


async def _feed(fault_harness: FaultHarness, build: Build, past: Past) -> list[str]:
    """The feed has no gaps, and shows no narration of an attempt that died."""
    damage: list[str] = []
    async with transaction(fault_harness.sessions) as tx:
        events = (await tx.session.scalars(select(Event).where(Event.build_id == build.id).order_by(Event.id))).all()
        answered = {
            str(claim) for claim in await tx.session.scalars(select(Turn.claim).where(Turn.build_id == build.id))
        }
    if not past.is_complete(events, build.last_event_id):
        damage.append("the feed has gaps")
    shown = {event.data["claim"] for event in events if event.type == "narration"}
    withdrawn = {event.data["claim"] for event in events if event.type == "turn_withdrawn"}
    if build.status == Status.READY and (wrong := shown - answered - withdrawn):
        damage.append(f"the feed shows lines of {len(wrong)} attempts that died")
    done = Counter(event.data["tool_use_id"] for event in events if event.type == "tool_done")
    damage += [
        f"the feed reports {times} times that call {call_id} is done" for call_id, times in done.items() if times > 1
    ]
    return damage


async def _announcements(fault_harness: FaultHarness, build_id: uuid.UUID) -> list[str]:
    async with transaction(fault_harness.sessions) as tx:
        announced = await tx.session.scalar(select(func.count()).where(BusinessEvent.build_id == build_id))
    return [] if announced == 1 else [f"the build was announced to the rest of the business {announced} times"]


async def _history(fault_harness: FaultHarness, build: Build) -> list[str]:
    """Rule 10: a turn adds only ids, counts and short summaries to history, even if faults struck it."""
    damage: list[str] = []
    for events in await chain_of(fault_harness.client, str(build.id)):
        damage += [
            f"a turn with {share.rests} waits for help takes {share.bytes} bytes of history"
            for share in shares_of(events)
            if share.bytes > _LARGEST_TURN + share.rests * _LARGEST_REST
        ]
        if (largest := max(map(failure_size, events), default=0)) > _LARGEST_FAILURE:
            damage.append(f"a failure in history has {largest} bytes")
        if (largest := max(map(largest_payload, events), default=0)) > _LARGEST_PAYLOAD:
            damage.append(f"a payload in history has {largest} bytes")
    return damage
