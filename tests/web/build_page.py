"""What tests of a build's page share: its parts, and the states of builds that no worker runs."""

import uuid
from typing import Any

from playwright.async_api import Locator, Page
from sqlalchemy import update

from db.models import Build, Question
from db.transaction import transaction
from domain.events import QuestionEvent, StatusEvent
from domain.question import OPTIONS
from tests.harness.console import Console
from tests.harness.feeds import write_events


def status_chip(page: Page, word: str) -> Locator:
    """The chip with the status's word."""
    return page.locator("header h1 ~ span", has_text=word)


def sentence(page: Page) -> Locator:
    """The sentence of the head."""
    return page.locator("[data-sentence]")


def box(page: Page) -> Locator:
    """Where one tells the agent something."""
    return page.get_by_role("textbox", name="Tell the agent something")


def receipts(page: Page) -> Locator:
    """What the agent was told, and what became of it."""
    return page.get_by_role("list", name="Your messages to the agent")


async def change(console: Console, build: uuid.UUID, **columns: Any) -> None:
    """Give a build that no worker runs another state, and say so in its feed."""
    async with transaction(console.api.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == build).values(**columns))
    said = {name: value for name, value in columns.items() if name in ("status", "waiting_for", "reason", "dependency")}
    await write_events(console.api.sessions, build, StatusEvent(**said))


async def ask(console: Console, build: uuid.UUID, problem: str) -> uuid.UUID:
    """Let a build that no worker runs wait for an answer."""
    question = uuid.uuid4()
    async with transaction(console.api.sessions) as tx:
        row = Question(
            id=question, build_id=build, problem=problem, tried=["Turn 4: I try — make test"], options=OPTIONS
        )
        tx.session.add(row)
    asked = QuestionEvent(question_id=str(question), problem=problem, options=list(OPTIONS))
    await write_events(console.api.sessions, build, asked)
    await change(console, build, status="needs_input", waiting_for="founder", reason=problem)
    return question
