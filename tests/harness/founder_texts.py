"""Writes a founder's words wherever the program keeps some, and finds them again in every place."""

import gzip
import hashlib
import io
import json
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text, update
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from clients.object_store import ObjectStore, image_key
from db import models
from db.build_archives import ARCHIVES_PREFIX
from db.models import Base
from db.phase_diffs import DIFFS_PREFIX
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX
from db.stored_exports import EXPORTS_PREFIX
from db.transaction import Transaction, transaction
from db.users import ensure_user
from domain.audit import Action
from domain.bulk import BulkAct, BulkState
from domain.conversation import image_mark
from domain.identity import How

PLACES: Mapping[str, tuple[str, ...]] = {
    "projects": ("name", "idempotency_key"),
    "artifacts": ("body",),
    "understanding_sessions": ("questions", "answers"),
    "project_secrets": ("ciphertext",),
    "builds": ("goal", "reason", "idempotency_key", "model_label"),
    "prompts": ("system", "opening"),
    "turns": ("details",),
    "messages": ("content",),
    "tool_calls": ("summary", "result"),
    "questions": ("problem", "tried", "options", "default_option"),
    "founder_messages": ("text", "idempotency_key"),
    "restores": ("error", "idempotency_key"),
    "gate_runs": ("findings", "outputs", "judgement"),
    "previews": ("reason", "log"),
    "events": ("data",),
    "webhook_deliveries": ("error",),
    "business_events": ("data",),
    "snapshots": ("commit",),
    "phase_diffs": ("commit",),
    "doomed_objects": ("why",),
    "exports": ("idempotency_key",),
}
"""By table, the columns that get a founder's words. With the objects, the histories and the sandbox: forty places."""

PLACES_OF_ACCOUNT: Mapping[str, tuple[str, ...]] = {
    "users": ("name", "email"),
    "user_identities": ("subject",),
    "organisations": ("name",),
    "api_keys": ("name",),
    "webhooks": ("url", "description", "disabled_reason"),
    "top_ups": ("note", "idempotency_key"),
    "audit": ("credential_id", "fields"),
    "bulk_runs": ("credential_id",),
}
"""The same for what belongs to a founder and to no project."""

OBJECTS = (
    *("an archive", "a manifest", "an earlier version of it", "a diff", "an image", "an unfinished upload"),
    *("an archived conversation", "a deleted object", "an export"),
)
ELSEWHERE = ("a command in a sandbox", "a history")


def place_count() -> int:
    """How many places there are."""
    return sum(map(len, PLACES.values())) + len(OBJECTS) + len(ELSEWHERE)


async def plant_rows(sessions: Sessions, user_id: str, word: str) -> tuple[uuid.UUID, uuid.UUID]:
    """Insert a project with a closed build whose every text has the word. Returns the ids of both."""
    project, build, session, question = (uuid.uuid4() for _ in range(4))
    of, of_project = {"build_id": build}, {"project_id": project}
    said = {"says": word}
    rows: list[Any] = [
        models.Project(id=project, user_id=user_id, name=word, idempotency_key=word),
        models.Artifact(id=uuid.uuid4(), type="idea_brief", body=said, **of_project),
        models.UnderstandingSession(id=session, number=1, questions=[said], answers={"a": word}, **of_project),
        models.ProjectSecret(name="KEY", ciphertext=word.encode(), key_id="main", set_by=user_id, **of_project),
        models.Build(
            id=build,
            user_id=user_id,
            goal=word,
            reason=word,
            idempotency_key=word,
            model_label=word,
            body_hash="b",
            status="failed",
            started_at=func.now(),
            closed_at=func.now(),
            session_id=session,
            last_event_id=1,
            **of_project,
        ),
    ]
    of_build: list[Any] = [
        models.Prompt(system=word, tools="[]", opening=word, **of),
        models.Turn(number=1, run_id="r", claim=uuid.uuid4(), details=said, **of),
        models.Message(turn=1, role="user", content=json.dumps([{"type": "text", "text": word}]), **of),
        models.ToolCall(
            tool_use_id="t", turn=1, position=0, name="bash", summary=word, state="done", is_error=False, **of
        ),
        models.Question(
            id=question,
            problem=word,
            tried=[word],
            options=[word],
            default_option=word,
            tool_use_id="t",
            closed_at=func.now(),
            **of,
        ),
        models.FounderMessage(number=1, text=word, idempotency_key=word, **of),
        models.Restore(
            number=1, commit="c", error=word, idempotency_key=word, state="failed", ended_at=func.now(), **of
        ),
        models.GateRun(
            number=1,
            snapshot_number=1,
            findings=[word],
            outputs=said,
            judgement=said,
            ended_at=func.now(),
            screenshots={"desktop": image_key(image_of(word))},
            **of,
        ),
        models.Preview(state="failed", reason=word, log=word, **of),
        models.BusinessEvent(id=uuid.uuid4(), type="artifact_generated", data=said, **of, **of_project),
        models.Snapshot(
            id=uuid.uuid4(),
            number=1,
            state="deleted",
            claim=uuid.uuid4(),
            reason="end",
            archive_key=f"{SNAPSHOTS_PREFIX}{build}/1.tar.gz",
            manifest_key=f"{SNAPSHOTS_PREFIX}{build}/1.manifest.jsonl",
            commit=word,
            **of,
            **of_project,
        ),
        models.PhaseDiff(
            phase=1, commit=word, files=1, additions=1, deletions=0, object_key=f"{DIFFS_PREFIX}{build}/1", **of
        ),
        models.DoomedObject(key=f"{SNAPSHOTS_PREFIX}{build}/0", due_at=func.now() + timedelta(days=1), why=word, **of),
        models.StoredExport(
            id=export_of(build),
            user_id=user_id,
            requested_by=user_id,
            idempotency_key=word,
            started_at=func.now(),
            stored_at=func.now(),
            object_key=f"{EXPORTS_PREFIX}{export_of(build)}/1.zip",
            bytes=1,
            sha256="a",
            expires_at=func.now() + timedelta(days=7),
            **of_project,
        ),
        models.LedgerEntry(
            id=uuid.uuid4(),
            user_id=user_id,
            turn=1,
            day=func.current_date(),
            model="claude-sonnet-5-5",
            state="settled",
            closed_at=func.now(),
            cost=1000,
            **of,
        ),
    ]
    of_build[3].result = f'{{"text":"{word}",{image_mark(image_of(word))}}}'
    async with transaction(sessions) as tx:
        for row in (*rows, *of_build):
            tx.session.add(row)
            await tx.session.flush()
        tx.session.add(models.Event(id=1, type="narration", data=said, **of))
        org_id = await tx.session.scalar(select(models.Project.org_id).where(models.Project.id == project))
        webhook = models.Webhook(
            id=uuid.uuid4(),
            org_id=org_id,
            url="https://example.com",
            topics=["build.ready"],
            description="",
            ciphertext=b"c",
            key_id="main",
            created_by=user_id,
        )
        tx.session.add(webhook)
        await tx.session.flush()
        tx.session.add(
            models.WebhookDelivery(
                webhook_id=webhook.id,
                topic="build.ready",
                event_id=1,
                error=word,
                state="dead",
                ended_at=func.now(),
                **of,
            )
        )
    return project, build


async def plant_account(sessions: Sessions, user_id: str, word: str) -> None:
    """Write the word wherever a founder, or an operator about them, writes apart from projects."""
    organisation = models.Organisation(id=uuid.uuid4(), name=f"{word} Ltd")
    async with transaction(sessions) as tx:
        await ensure_user(tx, user_id)
        user = await tx.session.get_one(models.User, user_id)
        user.name, user.email = word, f"{word}@example.com"
        own = await tx.session.scalar(select(models.Organisation.id).where(models.Organisation.personal_of == user_id))
        assert own is not None
        await tx.session.execute(
            update(models.Organisation).where(models.Organisation.id == own).values(name=f"{word}'s")
        )
        tx.session.add(organisation)
        await tx.session.flush()
        tx.session.add(models.Membership(org_id=organisation.id, user_id=user_id, role="owner"))
        for org_id in (own, organisation.id):
            tx.session.add(
                models.Webhook(
                    id=uuid.uuid4(),
                    org_id=org_id,
                    url=f"https://example.com/{word}",
                    topics=["build.ready"],
                    description=word,
                    ciphertext=b"c",
                    key_id="main",
                    created_by=user_id,
                    disabled_at=func.now(),
                    disabled_reason=word,
                )
            )
        key = models.ApiKey(
            id=uuid.uuid4().hex, user_id=user_id, name=word, secret_hash=b"s", scopes=[], created_by=user_id
        )
        tx.session.add(key)
        await tx.session.flush()
        await _sign_in_another(tx, key)
        by_token = {"actor": user_id, "how": How.JWT, "credential_id": f"provider:{word}"}
        linked = {"issuer": "https://id.example.com", "subject": word}
        tx.session.add(models.AuditEntry(action=Action.PROJECT_ERASE, ip="192.0.2.1", **by_token))
        tx.session.add(
            models.AuditEntry(
                action=Action.IDENTITY_LINK, actor="operator", how=How.OPERATOR_TOKEN, user_id=user_id, fields=linked
            )
        )
        bulk_run = {"filter": "", "rate": 1, "reason": "", "body_hash": "", "total": 0}
        tx.session.add(
            models.BulkRun(id=uuid.uuid4(), act=BulkAct.WAKE, state=BulkState.STOPPED, **bulk_run, **by_token)
        )
        tx.session.add(models.UserIdentity(issuer="https://id.example.com", subject=word, user_id=user_id))
        tx.session.add(
            models.TopUp(
                id=uuid.uuid4(), user_id=user_id, day=func.current_date(), amount=1, note=word, idempotency_key=word
            )
        )


async def _sign_in_another(tx: Transaction, key: models.ApiKey) -> None:
    """Let another user sign in by links that were made with the key."""
    another = uuid.uuid4().hex
    await ensure_user(tx, another)
    made: dict[str, Any] = {"user_id": another, "expires_at": func.now(), "api_key_id": key.id}
    tx.session.add(models.SignInCode(code_hash=uuid.uuid4().bytes, created_by=another, **made))
    tx.session.add(models.SignIn(id=uuid.uuid4(), token_hash=uuid.uuid4().bytes, method="link", scopes=[], **made))


def image_of(word: str) -> str:
    """The hash of the image that shows the word."""
    return hashlib.sha256(word.encode()).hexdigest()


def export_of(build: uuid.UUID) -> uuid.UUID:
    """The id of the export of the build's project."""
    return uuid.uuid5(build, "export")


async def plant_objects(store: ObjectStore, build: uuid.UUID, word: str) -> None:
    """Store the objects of a build, each with the word."""
    content, archive = word.encode(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("product.py")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    await store.put(f"{SNAPSHOTS_PREFIX}{build}/1.tar.gz", archive.getvalue())
    for _ in range(2):
        await store.put(f"{SNAPSHOTS_PREFIX}{build}/1.manifest.jsonl", content)
    await store.put(f"{DIFFS_PREFIX}{build}/1", gzip.compress(content))
    await store.put(image_key(image_of(word)), content)
    await store.put(f"{ARCHIVES_PREFIX}{build}/conversation.jsonl.gz", gzip.compress(content))
    await store.put(f"{SNAPSHOTS_PREFIX}{build}/0.tar.gz", content)
    await store.delete([f"{SNAPSHOTS_PREFIX}{build}/0.tar.gz"])  # in a bucket with versions, it is there still
    exported = io.BytesIO()
    with zipfile.ZipFile(exported, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("project.json", content)
    await store.put(f"{EXPORTS_PREFIX}{export_of(build)}/1.zip", exported.getvalue())
    upload = await store._begin(f"{SNAPSHOTS_PREFIX}{build}/2.tar.gz")
    await store._add(upload, content)


# ---- finding them


async def tables_with(sessions: Sessions, word: str) -> set[str]:
    """The tables of the database in whose rows the word is, in any column, also as the hex of bytes."""
    marks = {"word": f"%{word}%", "hex": f"%{word.encode().hex()}%"}
    async with transaction(sessions) as tx:
        names = await tx.session.scalars(
            text("select table_name from information_schema.tables where table_schema = current_schema()")
        )
        return {
            name
            for name in names
            if await tx.session.scalar(
                text(f'select true from "{name}" as row where row::text like :word or row::text like :hex limit 1'),
                marks,
            )
        }


async def columns_without(sessions: Sessions, word: str, places: Mapping[str, tuple[str, ...]] = PLACES) -> set[str]:
    """Those of the places in which the word is not."""
    missing = set()
    async with transaction(sessions) as tx:
        for table, columns in places.items():
            for column in columns:
                kind = str(Base.metadata.tables[table].c[column].type)
                as_text = f"encode(\"{column}\", 'escape')" if kind in ("BLOB", "BYTEA") else f'"{column}"::text'
                found = text(f'select true from "{table}" where {as_text} like :word limit 1')
                if not await tx.session.scalar(found, {"word": f"%{word}%"}):
                    missing.add(f"{table}.{column}")
    return missing


async def objects_with(store: ObjectStore, word: str) -> list[str]:
    """The keys of objects, versions of them and unfinished uploads that have the word."""
    found = []
    for version in await store.versions(""):
        if version.is_marker:
            continue
        named: dict[str, Any] = {} if version.id is None else {"VersionId": version.id}
        try:
            answer = await store._client.get_object(Bucket=store.config.bucket, Key=version.key, **named)
        except store._client.exceptions.NoSuchKey:  # another test has deleted it meanwhile
            continue
        content = await answer["Body"].read()
        if content[:2] == b"\x1f\x8b":
            with suppress(zlib.error):  # other tests leave broken archives in the bucket, and cut ones
                content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content)
        if content[:4] == b"PK\x03\x04":
            with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as file:
                content = b"".join(map(file.read, file.namelist()))
        if word.encode() in content:
            found.append(version.key)
    return found


async def has_history(client: Client, workflow_id: str) -> bool:
    """Whether Temporal still serves the workflow."""
    try:
        await client.get_workflow_handle(workflow_id).fetch_history()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True
