"""Take a founder's messages and answers: commit the row first, then signal the build's workflow.

If the process dies in between, or Temporal goes away, the next turn reads the row all the same. If the build waits for
its founder, the reaper repeats the signal.
"""

import uuid
from collections.abc import Collection

from clients.build_workflows import BuildWorkflows
from clients.cipher import Cipher
from db import steering
from db.models import Build, FounderMessage, Question
from db.project_secrets import list_secrets
from db.session import Sessions
from db.steering import AnsweredQuestion
from db.transaction import Transaction, request_transaction
from domain.audit import Action
from domain.errors import AlreadyAnswered, BuildClosed, InvalidInput, KeyReused, NotFound, TooManyUnread
from domain.payloads import PendingInput
from domain.redaction import redact
from services.audit import record
from services.builds import lock_build
from services.notifications import notify_of_input
from services.product_secrets import readable_values

MAX_UNREAD = 50
"""Refuse a message while this many wait for the agent: all of them go into one message to the model."""


async def send_message(
    sessions: Sessions,
    workflows: BuildWorkflows,
    user_id: str,
    build_id: uuid.UUID,
    text: str,
    *,
    idempotency_key: str | None,
    secrets: Collection[str],
    cipher: Cipher | None = None,
) -> tuple[FounderMessage, bool]:
    """Commit a message to the agent, then notify the build. Returns the message, and whether it is new.

    Args:
        secrets: blanked in the text before it is stored.
        cipher: reads the product's own secrets, which are blanked too: the agent must not get them.

    Raises:
        NotFound, Conflict, DatabaseUnavailable: refused; nothing was stored.
    """
    async with request_transaction(sessions) as tx:
        build = await lock_build(tx, user_id, build_id)
        text = await _blanked(tx, build, text, secrets, cipher)
        message = None
        if idempotency_key is not None:
            message = await steering.find_message(tx, build.id, idempotency_key)
        is_new = message is None
        if message is None:
            require_accepts_messages(build)
            if await steering.count_unread(tx, build.id) >= MAX_UNREAD:
                raise TooManyUnread(
                    f"The agent has not read your last {MAX_UNREAD} messages yet. It reads them at its next turn. Send "
                    "this one after that."
                )
            message = await steering.add_message(tx, build, text, idempotency_key)
            await record(tx, Action.MESSAGE_SEND, build_id=build.id, message=message.number)
        elif message.text != text or message.question_id is not None:
            raise KeyReused("This Idempotency-Key was used for another message. Use a new key.")
    await notify_of_input(sessions, workflows, build, PendingInput(message=message.number))
    return message, is_new


async def answer_question(
    sessions: Sessions,
    workflows: BuildWorkflows,
    user_id: str,
    build_id: uuid.UUID,
    question_id: uuid.UUID,
    *,
    option: int | None,
    text: str | None,
    secrets: Collection[str],
    cipher: Cipher | None = None,
) -> AnsweredQuestion:
    """Commit the answer to a question, as one of its options or in the founder's words, then notify the build.

    The same answer again changes nothing. A question that the build no longer waits for can still be answered: the
    agent reads the answer at its next turn.

    Args:
        option: the number of an option, counted from 1.
        secrets: blanked in the text before it is stored.

    Raises:
        NotFound, InvalidInput, Conflict, DatabaseUnavailable: refused; nothing was stored.
    """
    async with request_transaction(sessions) as tx:
        build = await lock_build(tx, user_id, build_id)
        stored = await steering.find_question(tx, build.id, question_id)
        if stored is None:
            raise NotFound(f"Build {build_id} has not asked a question {question_id}.")
        answer = await _blanked(tx, build, text or "", secrets, cipher) or _option(stored.question, option or 0)
        message = stored.answer
        if message is None:
            require_accepts_messages(build)
            message = await steering.add_message(tx, build, answer, question_id=question_id)
            await record(tx, Action.QUESTION_ANSWER, build_id=build.id, message=message.number)
        elif message.text != answer:
            raise AlreadyAnswered(
                f"This question was answered before: {message.text} To say more, send a message.",
                {"answer": message.text},
            )
    await notify_of_input(sessions, workflows, build, PendingInput(message=message.number))
    return AnsweredQuestion(stored.question, message)


async def _blanked(tx: Transaction, build: Build, text: str, secrets: Collection[str], cipher: Cipher | None) -> str:
    if text and cipher is not None and cipher.key_id:
        secrets = [*secrets, *readable_values(cipher, await list_secrets(tx, build.project_id))]
    return redact(text, secrets)


def _option(question: Question, number: int) -> str:
    if not 1 <= number <= len(question.options):
        raise InvalidInput(f"The question has {len(question.options)} options, counted from 1.", "option")
    return str(question.options[number - 1])


def require_accepts_messages(build: Build) -> None:
    """Refuse what can't reach the agent any more, instead of acknowledging it.

    Raises:
        BuildClosed: the build has ended, or is about to.
    """
    if build.closed_at is not None:
        raise BuildClosed(
            f"Build {build.id} has ended: it is {build.status}. A new build of the project continues from its work."
        )
    if build.gate_passed_at is not None:
        raise BuildClosed(
            f"Build {build.id} has just passed its checks and becomes ready. A new build of the project continues from "
            "its work."
        )
    if build.cancel_requested_at is not None:
        raise BuildClosed(f"Build {build.id} is being cancelled, so nothing reaches its agent any more.")
