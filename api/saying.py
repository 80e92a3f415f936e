"""What a founder says to a build: its row first, then the signal that announces it."""

import uuid
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.service import RPCError

from api.deps import Services, transaction_of
from api.errors import ALREADY_ANSWERED, BUILD_CLOSED, KEY_REUSED, TOO_MANY_UNREAD, Problem
from api.starting import start_if_unstarted
from db import steering
from db.models import Build, FounderMessage, Question
from db.steering import AnsweredQuestion
from domain.errors import InvalidInput, NotFound
from domain.tool_output import redact

log = structlog.get_logger(__name__)

UNREAD_MOST = 50
"""So many messages may wait for the agent: they all go into one message to the model."""


async def say(
    services: Services, user_id: str, build_id: uuid.UUID, text: str, idempotency_key: str | None
) -> tuple[FounderMessage, bool]:
    """Commit a message to the agent, then announce it; whether it is new.

    A crash between the two, or a Temporal that goes away there, leaves a row that the next turn reads all the same;
    where the build waits for its founder, the reaper repeats the announcement.

    Raises:
        NotFound, Problem: refused; nothing was stored.
    """
    text = redact(text, services.settings.secret_values())
    async with transaction_of(services.sessions) as session:
        build = await locked_build(session, user_id, build_id)
        if idempotency_key is not None and (earlier := await steering.find_message(session, build.id, idempotency_key)):
            if earlier.text != text or earlier.question_id is not None:
                raise Problem(KEY_REUSED, "This Idempotency-Key was used for another message. Use a new key.")
            message, is_new = earlier, False
        else:
            require_accepts_messages(build)
            if await steering.count_unread(session, build.id) >= UNREAD_MOST:
                raise Problem(
                    TOO_MANY_UNREAD,
                    f"The agent has not read your last {UNREAD_MOST} messages yet; it does at its next turn. Send this "
                    "one after that.",
                )
            message, is_new = await steering.add_message(session, build, text, idempotency_key), True
    await announce(services, build, lambda: services.workflows.tell_of_message(build.id, message.number))
    return message, is_new


async def answer(
    services: Services, user_id: str, build_id: uuid.UUID, question_id: uuid.UUID, option: int | None, text: str | None
) -> AnsweredQuestion:
    """Commit the answer to a question, by the number of an option or in the founder's words, then announce it.

    A repeat is the same answer. A question that the build did not wait for any longer is answered all the same: the
    agent reads it at its next turn.

    Raises:
        NotFound, InvalidInput, Problem: refused; nothing was stored.
    """
    async with transaction_of(services.sessions) as session:
        build = await locked_build(session, user_id, build_id)
        found = await steering.find_question(session, build.id, question_id)
        if found is None:
            raise NotFound(f"Build {build_id} has not asked a question {question_id}.")
        said = redact(text or "", services.settings.secret_values()) or _option(found.question, option or 0)
        if found.answer is None:
            require_accepts_messages(build)
            message = await steering.add_message(session, build, said, question_id=question_id)
        elif found.answer.text == said:
            message = found.answer
        else:
            raise Problem(
                ALREADY_ANSWERED,
                f"This question was answered before: {found.answer.text} To say more, send a message.",
                more={"answer": found.answer.text},
            )
    await announce(services, build, lambda: services.workflows.tell_of_message(build.id, message.number))
    return AnsweredQuestion(found.question, message)


def _option(question: Question, number: int) -> str:
    if not 1 <= number <= len(question.options):
        raise InvalidInput(f"The question has {len(question.options)} options, counted from 1.", "option")
    return str(question.options[number - 1])


async def locked_build(session: AsyncSession, user_id: str, build_id: uuid.UUID) -> Build:
    """The build's row, locked until the transaction ends.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    build = await steering.lock_build(session, build_id, user_id)
    if build is None:
        raise NotFound(f"There is no build {build_id}.")
    return build


def require_accepts_messages(build: Build) -> None:
    """Refuse what can't reach the agent any more, rather than acknowledge it.

    Raises:
        Problem: the build has ended, or is about to.
    """
    if build.closed_at is not None:
        raise Problem(
            BUILD_CLOSED,
            f"Build {build.id} has ended: it is {build.status}. A new build of the project goes on from its work.",
        )
    if build.gate_passed_at is not None:
        raise Problem(
            BUILD_CLOSED,
            f"Build {build.id} has just passed its checks and becomes ready. A new build of the project goes on from "
            "its work.",
        )
    if build.cancel_requested_at is not None:
        raise Problem(BUILD_CLOSED, f"Build {build.id} is being cancelled, so nothing reaches its agent any more.")


async def announce(services: Services, build: Build, signal: Callable[[], Awaitable[None]]) -> None:
    """Tell the workflow of a row that is committed. Only a nudge: where it fails, the reaper repeats it."""
    await start_if_unstarted(services, build)
    try:
        await signal()
    except (NotFound, RPCError, RuntimeError) as error:
        log.warning("the build was not told of what its founder said", build_id=str(build.id), error=str(error))
