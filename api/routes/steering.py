"""Steering a build: what its founder says to it while it works."""

import uuid

from fastapi import APIRouter, Response

from api.deps import CurrentUserId, IdempotencyKey, ResourcesDep
from api.responses import TAKES_BODY, problems
from api.schemas import MessageOut, NewAnswer, NewMessage, NewRestore, QuestionOut, RestoreOut
from services import messages
from services.restores import request_restore

router = APIRouter(prefix="/builds/{build_id}", tags=["steering"])


@router.post(
    "/messages",
    status_code=201,
    summary="Say something to the agent",
    responses=problems(*TAKES_BODY, 404, 409)
    | {200: {"model": MessageOut, "description": "A repeat: the message is there."}},
)
async def send_message(
    build_id: uuid.UUID,
    new: NewMessage,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> MessageOut:
    """Store the message. The agent reads it at its next turn, once and in order, whatever happens until then; a build
    that waits for its founder's word goes on with it. One that sleeps or waits for money reads it when it goes on."""
    message, is_new = await messages.send_message(
        resources.sessions,
        resources.workflows,
        user_id,
        build_id,
        new.text,
        idempotency_key=idempotency_key,
        secrets=resources.settings.secret_values(),
    )
    if not is_new:
        response.status_code = 200
    return MessageOut.of(message)


@router.post("/answer", summary="Answer the build's question", responses=problems(*TAKES_BODY, 404, 409))
async def answer_question(
    build_id: uuid.UUID, new: NewAnswer, user_id: CurrentUserId, resources: ResourcesDep
) -> QuestionOut:
    """Store the answer, by an option's number or in your own words. The build goes on, and the agent reads it once,
    together with what was asked. The same answer again changes nothing; another one is refused."""
    answered = await messages.answer_question(
        resources.sessions,
        resources.workflows,
        user_id,
        build_id,
        new.question_id,
        option=new.option,
        text=new.text,
        secrets=resources.settings.secret_values(),
    )
    return QuestionOut.of(answered)


@router.post(
    "/restore",
    status_code=202,
    summary="Put the workspace back",
    responses=problems(*TAKES_BODY, 404, 409)
    | {200: {"model": RestoreOut, "description": "A repeat: the restore as it stands."}},
)
async def restore(
    build_id: uuid.UUID,
    new: NewRestore,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RestoreOut:
    """Have the workspace of an open build put back to a snapshot that is kept, or to a commit that ended a phase. It is
    done once, between two turns; what was there before is kept as a snapshot, and the agent is told. A build that waits
    for its founder goes on with it, one that sleeps does it when it wakes. An ended build stays as it is: a new one
    goes on from the project's last ready version."""
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
