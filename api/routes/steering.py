"""Steer a build: messages, answers and restores from its founder."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import CurrentUserId, IdempotencyKey, ResourcesDep, TransactionDep, needs
from api.responses import TAKES_BODY, problems
from api.schemas import MessageList, MessageOut, NewAnswer, NewMessage, NewRestore, QuestionOut, RestoreOut
from clients.cipher import cipher_of
from db.steering import list_messages as list_rows
from domain.identity import Scope
from services import messages
from services.builds import require_build
from services.restores import request_restore

router = APIRouter(prefix="/builds/{build_id}", tags=["steering"])


@router.post(
    "/messages",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=201,
    summary="Send a message to the agent",
    responses=problems(*TAKES_BODY, 404, 409)
    | {200: {"model": MessageOut, "description": "A repeat: the message exists already."}},
)
async def send_message(
    build_id: uuid.UUID,
    new: NewMessage,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> MessageOut:
    """Store the message. The agent reads it at its next turn, once and in order, whatever happens until then. A build
    that waits for its founder continues with it. One that sleeps or waits for money reads it when it continues."""
    message, is_new = await messages.send_message(
        resources.sessions,
        resources.workflows,
        user_id,
        build_id,
        new.text,
        idempotency_key=idempotency_key,
        secrets=resources.settings.secret_values(),
        cipher=cipher_of(resources.settings),
    )
    if not is_new:
        response.status_code = 200
    return MessageOut.of(message)


@router.get(
    "/messages", dependencies=[needs(Scope.BUILDS_READ)], summary="List the messages", responses=problems(404, 422)
)
async def list_messages(build_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> MessageList:
    """What the build's founders have sent to its agent, in order: read, waiting for the next turn, or taken back."""
    await require_build(tx, user_id, build_id)
    return MessageList(messages=[MessageOut.of(row) for row in await list_rows(tx, build_id)])


@router.delete(
    "/messages/{number}",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=204,
    summary="Take a message back",
    responses=problems(404, 409, 422),
)
async def take_back(
    build_id: uuid.UUID,
    number: Annotated[int, Path(ge=1, le=2**31 - 1)],
    user_id: CurrentUserId,
    resources: ResourcesDep,
) -> None:
    """Take back a message that the agent has not read yet. It stays in the feed, and the agent never reads it."""
    await messages.withdraw_message(resources.sessions, user_id, build_id, number)


@router.post(
    "/answer",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    summary="Answer the build's question",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def answer_question(
    build_id: uuid.UUID, new: NewAnswer, user_id: CurrentUserId, resources: ResourcesDep
) -> QuestionOut:
    """Store the answer, as an option's number or in your own words. The build continues, and the agent reads the answer
    once, together with the question. The same answer again changes nothing; a different one is refused."""
    answered = await messages.answer_question(
        resources.sessions,
        resources.workflows,
        user_id,
        build_id,
        new.question_id,
        option=new.option,
        text=new.text,
        secrets=resources.settings.secret_values(),
        cipher=cipher_of(resources.settings),
    )
    return QuestionOut.of(answered)


@router.post(
    "/restore",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=202,
    summary="Restore the workspace",
    responses=problems(*TAKES_BODY, 404, 409)
    | {200: {"model": RestoreOut, "description": "A repeat: the restore in its current state."}},
)
async def restore(
    build_id: uuid.UUID,
    new: NewRestore,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RestoreOut:
    """Restore the workspace of an open build to a kept snapshot, or to a commit that ended a phase.

    This happens once, between two turns. The workspace before it is kept as a snapshot, and the agent is told. A build
    that waits for its founder continues with the restore; one that sleeps restores when it wakes. An ended build stays
    as it is: a new build continues from the project's last ready version.
    """
    requested, is_new = await request_restore(
        resources.sessions,
        resources.workflows,
        user_id,
        build_id,
        snapshot=new.snapshot,
        commit=new.commit,
        idempotency_key=idempotency_key,
    )
    if not is_new:
        response.status_code = 200
    return RestoreOut.of(requested)
