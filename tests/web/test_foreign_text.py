"""What others have written stays text in the parts around a build: heads, menus, tables, errors, and names of files."""

import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Route, expect
from sqlalchemy import func, update

from api.errors import ALREADY_ANSWERED, INVALID, REFUSED, Kind
from db.models import Build, Message, Project, ToolCall, Turn, User
from db.transaction import transaction
from domain.events import ToolDoneEvent, ToolStartedEvent
from domain.tool_output import MAX_CHARACTERS, displayable, render_result
from domain.workspace_diff import StoredDiff, WorkspaceDiff
from tests.harness.accessibility import scrolls_sideways
from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, Console, console_of
from tests.harness.feeds import build_row, write_events
from tests.harness.hostile_texts import MARKDOWN, NAME, SHOWN_NAME, TEXTS, UNSEEN
from tests.harness.stored_diffs import end_phase, store_diff
from tests.harness.stored_files import Member, store_files
from tests.web.build_page import ask, box
from tests.web.feed_page import NODES_MOST, open_feed

CORPUS = "\n".join([*TEXTS, *MARKDOWN, *(raw for raw, _ in UNSEEN)])
SHOWN = " ".join("\n".join([*TEXTS, *MARKDOWN, *(mark for _, mark in UNSEEN)]).split())

MADE = (
    "main :is(script, object, embed, base, meta, link, style, math, iframe, [srcdoc], [onerror], [onload],"
    " a[href^=javascript i], a[href*='evil.example'], img[src*='evil.example'])"
)
"""What texts would become if they were more than text."""


def problem(kind: Kind, detail: str, **more: Any) -> dict[str, Any]:
    """Arguments for `Route.fulfill`: an answer of the API that is this problem."""
    body = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail, **more}
    return {"status": kind.status, "body": json.dumps(body), "content_type": "application/problem+json"}


@asynccontextmanager
async def nothing_runs(console: Console) -> AsyncIterator[None]:
    """Assert that no dialog opens and that no text becomes an element. The fixture asserts what else must be true."""
    dialogs: list[str] = []
    console.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    yield
    assert await console.page.locator(MADE).count() == 0
    assert dialogs == []


async def holds_all(where: Locator) -> None:
    """Wait until the element shows the corpus, each text as it is."""
    await expect(where).to_contain_text(SHOWN)


@pytest.mark.web
async def test_a_problem_says_foreign_text_as_text(console: Console) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    project = str((await console.api.row(str(build))).project_id)
    console.expect_error("status of 4")
    main = page.get_by_role("main")

    async def refuse(pattern: str, answer: dict[str, Any], method: str = "GET") -> None:
        async def handle(route: Route) -> None:
            await (route.fulfill(**answer) if route.request.method == method else route.fallback())

        await page.unroute_all()
        await page.route(re.compile(pattern), handle)

    refused = problem(REFUSED, CORPUS)
    async with nothing_runs(console):
        # In place of a page or of a part of it.
        for pattern, path in (
            (f"/v1/builds/{build}$", f"/builds/{build}"),
            ("/v1/projects[?]", "/"),
            (f"/v1/projects/{project}$", f"/projects/{project}"),
            ("/v1/usage", "/usage"),
            ("/v1/keys", "/account"),
            (f"/v1/builds/{build}/snapshots$", f"/builds/{build}?tab=files"),
        ):
            await refuse(pattern, refused)
            await console.open(path)
            await holds_all(main.get_by_role("alert").first)

        # At the field that is refused, and in a dialog.
        ended = await build_row(console.api.sessions, console.user, status="failed", closed_at=datetime.now(UTC))
        project = str((await console.api.row(str(ended))).project_id)
        await refuse("/builds$", problem(INVALID, "x", errors=[{"field": "goal", "message": CORPUS}]), "POST")
        await console.open(f"/projects/{project}")
        await page.get_by_label("Goal").fill("A list.")
        await page.get_by_role("button", name="Start the build").click()
        await holds_all(main)
        await refuse(f"/v1/projects/{project}$", refused, "PATCH")
        await console.open(f"/projects/{project}")
        await page.get_by_role("button", name="Rename").click()
        await page.get_by_role("dialog").get_by_label("Name").fill("Shed")
        await page.get_by_role("dialog").get_by_role("button", name="Save").click()
        await holds_all(page.get_by_role("dialog"))

        # On a build's page: at the steer box, in a dialog, and as someone else's answer.
        await refuse("/messages$", refused, "POST")
        await ask(console, build, "Which colour?")
        await console.open(f"/builds/{build}")
        await box(page).fill("Blue.")
        await page.get_by_role("button", name="Send").click()
        await holds_all(main.locator("form").get_by_role("alert"))
        await refuse("/cancel$", refused, "POST")
        await page.get_by_role("button", name="Actions of this build").click()
        await page.get_by_role("menuitem", name="Stop the build").click()
        await page.get_by_role("dialog").get_by_role("button", name="Stop the build").click()
        await holds_all(page.get_by_role("dialog"))
        await page.get_by_role("dialog").get_by_role("button", name="Let it go on").click()
        await refuse("/answer$", problem(ALREADY_ANSWERED, "x", answer=CORPUS), "POST")
        await page.get_by_label("Commit what works").check()
        await page.get_by_role("button", name="Answer").click()
        await holds_all(page.locator("#question"))


@pytest.mark.web
async def test_names_of_people_and_projects_are_text_in_heads_and_menus(
    web_api: RunningApi, web_browser: Browser
) -> None:
    user = f"<img/src=x/onerror=alert(1)>\"'/../%2F%zz?a=b#c-{uuid.uuid4()}"
    build = await build_row(web_api.sessions, user)
    async with transaction(web_api.sessions) as tx:
        project = (await tx.session.get_one(Build, build)).project_id
        await tx.session.execute(update(Project).where(Project.id == project).values(name=NAME))
    async with console_of(web_browser, web_api, user, **DESKTOP) as console, nothing_runs(console):
        page = console.page
        account = page.get_by_role("button", name="Account")
        await expect(account).to_contain_text(user)
        await account.click()
        await expect(page.get_by_role("menu")).to_contain_text(f"Signed in as {user}")
        async with transaction(web_api.sessions) as tx:
            await tx.session.execute(update(User).where(User.id == user).values(name=NAME))
        await console.open(f"/builds/{build}")
        await expect(account).to_contain_text(SHOWN_NAME)
        await expect(account).to_have_accessible_name(f"Account: {SHOWN_NAME}")
        await expect(page.locator("header h1")).to_have_text(SHOWN_NAME)
        for path in ("/", f"/projects/{project}", "/usage", "/account"):
            await console.open(path)
            await expect(page.get_by_text(SHOWN_NAME).first).to_be_visible()

    operator = web_api.settings.api_user
    async with (
        console_of(web_browser, web_api, operator, is_operator=True, **DESKTOP) as console,
        nothing_runs(console),
    ):
        page = console.page
        await console.open("/fleet")
        await page.get_by_label("User", exact=True).fill(user)
        table = page.get_by_role("table", name="Builds of all users").locator("tbody")
        await expect(table.get_by_role("row")).to_have_count(1)
        await expect(table).to_contain_text(user)
        await expect(table).to_contain_text(SHOWN_NAME)
        await table.get_by_role("link", name=user, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(user)
        await expect(page.get_by_role("region", name="Account")).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("region", name="Account")).to_be_visible()
        await expect(page).to_have_title(re.compile(re.escape(user)))
        await page.get_by_role("link", name=SHOWN_NAME).first.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(SHOWN_NAME)
        await expect(page.get_by_role("link", name=user)).to_be_visible()


PATHS: Sequence[tuple[str, str]] = (
    ("two\nlines.txt", "two␊lines.txt"),
    ("two lines.txt", "two lines.txt"),
    ("with\ttab.txt", "with␉tab.txt"),
    ("return\r\n.txt", "return␍␊.txt"),
    ("\u202egnp.exe", "⟨202E⟩gnp.exe"),
    ("\u2066a/\u2069b.txt", "⟨2066⟩a/⟨2069⟩b.txt"),
    ("zero\u200bwidth.txt", "zero⟨200B⟩width.txt"),
    ("\x1b[31mred.txt", "␛[31mred.txt"),
    ("a%20b&c=d#e+f.txt", "a%20b&c=d#e+f.txt"),
    ("100%.txt", "100%.txt"),
)
"""Names of files, and what a page shows of them: two that differ never look the same."""


@pytest.mark.web
async def test_names_of_files_show_what_is_not_seen(console: Console) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user, status="ready", closed_at=datetime.now(UTC))
    console.expect_error("status of 404")  # it has no preview
    await page.set_viewport_size({"width": 2600, "height": 1000})  # the list stays beside the file
    members: list[Member] = [(name, b"x", {}) for name, _ in PATHS]
    members.append(("link", b"", {"type": b"2", "linkname": PATHS[0][0]}))
    await store_files(console.api, str(build), members)
    async with nothing_runs(console):
        await console.open(f"/builds/{build}?tab=files")
        files = page.get_by_role("navigation", name="Files")
        await expect(files.get_by_role("button")).to_have_count(len(members))
        for name, shown in PATHS:
            folder, _, base = shown.rpartition("/")
            listed = files.get_by_role("region", name=folder) if folder else files
            await listed.get_by_role("button").filter(has=page.get_by_text(base, exact=True)).click()
            heading = page.get_by_role("tabpanel").get_by_role("heading", level=3)
            assert await heading.inner_text() == shown, repr(name)
        await files.get_by_role("button").filter(has=page.get_by_text("link", exact=True)).first.click()
        await expect(page.get_by_role("tabpanel").get_by_text(f"A link to {PATHS[0][1]}")).to_be_visible()

        counts = {"additions": 0, "deletions": 0}
        changes = [{"path": name, "old_path": f"old {name}", "status": "renamed", **counts} for name, _ in PATHS]
        body = {"base": None, "commit": "c" * 40, "files": len(changes), "changes": changes, **counts}
        await end_phase(console.api, str(build), 1, "c" * 40, PATHS[0][0])
        await store_diff(console.api, str(build), 1, StoredDiff(phase=WorkspaceDiff.model_validate(body)))
        await console.open(f"/builds/{build}?tab=changes&phase=1")
        headings = page.get_by_role("tabpanel").get_by_role("heading", level=3)
        await expect(headings).to_have_count(len(PATHS))
        assert await headings.all_inner_texts() == [f"old {shown} → {shown}" for _, shown in PATHS]


@pytest.mark.web
async def test_a_line_of_a_megabyte_leaves_the_page_as_it_is(console: Console) -> None:
    page, line = console.page, "<b>a</b> " * (1_000_000 // 9)
    build = await build_row(console.api.sessions, console.user)
    call = {"tool_use_id": "toolu_1", "name": "bash", "summary": f"bash: {line[:300]}"}
    block = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": line}}
    done = {"state": "done", "is_error": False, "done_at": func.now()}
    async with transaction(console.api.sessions) as tx:
        turn = Turn(build_id=build, number=1, run_id="r", claim=uuid.uuid4(), outcome="tool_use")
        turn.answered_at = datetime.now(UTC)
        tx.session.add(turn)
        tx.session.add(Message(build_id=build, turn=1, role="assistant", content=json.dumps([block])))
        result = render_result("toolu_1", displayable(line), False)
        tx.session.add(ToolCall(build_id=build, turn=1, position=0, **call, **done, result=result))
    events = ToolStartedEvent(**call), ToolDoneEvent(**call, is_error=False, seconds=1.0)
    last = await write_events(console.api.sessions, build, *events, turn=1)
    await store_files(console.api, str(build), [("one line.txt", line.encode(), {})])
    async with nothing_runs(console):
        feed = await open_feed(console, build, last, everything=True)
        row = feed.scroller.locator("[data-row=ctoolu_1]")
        await row.get_by_role("button").first.click()
        output = row.get_by_role("region", name="Output")
        await expect(output).to_contain_text("<b>a</b> <b>a</b>")
        await output.get_by_role("button", name="Show all").click()
        await expect(output).to_contain_text("characters left out")
        assert len(await output.inner_text()) < MAX_CHARACTERS + 1_000
        command = row.get_by_role("region", name="Command")
        await command.get_by_role("button", name="Show all").click()
        await expect(command).to_contain_text(line.strip())
        assert await feed.nodes() < NODES_MOST
        assert not await scrolls_sideways(page)
        await box(page).fill("The page still answers.")

        await console.open(f"/builds/{build}?tab=files&path=one line.txt")
        shown = page.get_by_role("tabpanel").locator('[data-number="1"]')
        await expect(shown).to_contain_text("more characters on this line: download the file to see them")
        assert len(await shown.inner_text()) < 6_000
        assert not await scrolls_sideways(page)
