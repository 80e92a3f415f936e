"""Everything that the console shows: its pages, their tabs, and what opens over them, with data that fills them."""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from playwright.async_api import Locator, Page, expect

from clients.object_store import ObjectStore, image_key
from db.builds import BuildRequest, insert_build
from db.models import GateRun, LedgerEntry, Preview, Project, UserDay
from db.projects import create_project
from db.transaction import transaction
from db.users import ensure_user
from domain.workspace_diff import StoredDiff
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, phase_lines, write_feed
from tests.harness.stored_diffs import end_phase, make_diff, store_diff
from tests.harness.stored_files import Member, store_files
from tests.harness.worker import sample_brief
from tests.web.build_page import ask

_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f6"
    "45400000000049454e44ae426082"
)

Click = tuple[str, str]
"""A role and a name, of which any part will do: the first such element is clicked."""


@dataclass(frozen=True)
class View:
    """A page of the console by its address, and what is clicked there one after the other."""

    path: str
    shows: Click
    """What is there at the end."""
    clicks: tuple[Click, ...] = ()
    phone_clicks: tuple[Click, ...] | None = None
    """What is clicked on a phone, if that differs."""

    def __str__(self) -> str:
        return " > ".join([self.path, *(name for _, name in self.clicks)])

    def after(self, *clicks: Click, shows: Click, phone: tuple[Click, ...] | None = None) -> "View":
        """What this page shows after further clicks."""
        return replace(self, clicks=(*self.clicks, *clicks), shows=shows, phone_clicks=phone)


async def show(page: Page, url: str, view: View, *, is_phone: bool = False) -> None:
    """Load the view's page, click, and wait until all of it is there.

    Args:
        url: of the API.
    """
    await page.goto(f"{url}{view.path}")
    clicks = view.phone_clicks if is_phone and view.phone_clicks is not None else view.clicks
    for role, name in clicks:
        await _find(page, role, name).click()
    await expect(_find(page, *view.shows)).to_be_visible()
    await settled(page)


async def settled(page: Page) -> None:
    """Wait until nothing on the page is loading."""
    await expect(page.locator("[data-loading]")).to_have_count(0)


def _find(page: Page, role: Any, name: str) -> Locator:
    found = page.get_by_text(name) if role == "text" else page.get_by_role(role, name=name)
    return found.locator("visible=true").first


@dataclass(frozen=True)
class Sample:
    """Builds and products of a founder who has some of everything. No worker runs the builds."""

    project: uuid.UUID
    """With two versions and a secret."""
    working: uuid.UUID
    """A build with a long feed and phases to go back to."""
    asking: uuid.UUID
    """A build that waits for an answer."""
    ready: uuid.UUID
    """A build with files, documents, changes, screenshots, and a link to its preview."""
    bare: uuid.UUID
    """A build that nothing is known of."""


async def make_sample(console: Console) -> Sample:
    """Fill the account of the console's user."""
    console.expect_error("status of 404")  # a build that was never ready has no preview
    sessions, user, http = console.api.sessions, console.user, console.api.http
    working = await build_row(sessions, user)
    await write_feed(sessions, working, [*feed_lines(120), *phase_lines(2, 12)])
    await store_files(console.api, str(working), [("README.md", b"# Hello\n", {})])
    asking = await build_row(sessions, user)
    await write_feed(sessions, asking, feed_lines(120))
    await ask(console, asking, "Nothing listens at port 8000, although the server says that it has started.")
    await build_row(sessions, user, status="sleeping", wakes_at=datetime.now(UTC) + timedelta(hours=9))
    ready = await _ready(console)
    bare = await build_row(sessions, user, status="queued", started_at=None, admitted_at=None)
    project = await _product(console)

    secrets = f"/v1/projects/{project}/secrets"
    answers = [
        await http.put(f"{secrets}/STRIPE_API_KEY", json={"value": "sk_test_of_mine"}, headers=console.headers),
        await http.post("/v1/keys", json={"name": "nightly"}, headers=console.headers),
        await http.post("/v1/organisations", json={"name": "The choir"}, headers=console.headers),
        await http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/hook"}, headers=console.headers),
        await http.post(f"/v1/builds/{ready}/preview/links", headers=console.headers),
    ]
    assert all(answer.is_success for answer in answers), [answer.text for answer in answers]
    return Sample(project, working, asking, ready, bare)


async def _ready(console: Console) -> uuid.UUID:
    now = datetime.now(UTC)
    build = await build_row(console.api.sessions, console.user, status="ready", closed_at=now, build_version=1)
    await write_feed(console.api.sessions, build, feed_lines(60))
    source = "".join(f"line {number} = {'x' * number}\n" for number in range(120)).encode()
    document = b"# Hello\n\nText with `code` and [a link](https://example.org).\n\n| a | b |\n| - | - |\n| 1 | 2 |\n"
    members: list[Member] = [("README.md", document, {}), ("PLAN.md", b"# Plan\n", {}), ("src/app.py", source, {})]
    await store_files(console.api, str(build), members)
    commit = "c" * 40
    await end_phase(console.api, str(build), 1, commit)
    await store_diff(console.api, str(build), 1, StoredDiff(phase=make_diff(commit)))
    store = console.api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put_image("2b" * 32, _PIXEL)
    keys = {"desktop": image_key("2b" * 32), "mobile": image_key("2b" * 32)}
    async with transaction(console.api.sessions) as tx:
        for number, pictures in ((1, keys | {"mobile": image_key("9f" * 32)}), (2, keys)):
            gate = {"build_id": build, "number": number, "snapshot_number": 1, "findings": [], "ended_at": now}
            tx.session.add(GateRun(**gate, screenshots=pictures, tests_run=14))
        tx.session.add(Preview(build_id=build, state="closed", seq=1))
        tx.session.add(UserDay(user_id=console.user, day=now.date()))
        await tx.session.flush()
        tx.session.add(_call(console.user, build, now.date()))
    return build


def _call(user: str, build: uuid.UUID, day: date) -> LedgerEntry:
    counts = {"input_tokens": 1000, "output_tokens": 100, "cost": 2000}
    ids = {"id": uuid.uuid4(), "build_id": build, "user_id": user, "turn": 1, "day": day}
    return LedgerEntry(**ids, **counts, model="claude-sonnet-5-5", state="settled", closed_at=datetime.now(UTC))


async def _product(console: Console) -> uuid.UUID:
    """A project with two versions of its product."""
    now = datetime.now(UTC)
    async with transaction(console.api.sessions) as tx:
        await ensure_user(tx, console.user)
        project = await create_project(tx, console.user, "Tool Library", sample_brief(), None)
        (await tx.session.get_one(Project, project.id)).last_build_version = 2
        builds = []
        for version in (1, 2):
            build = await insert_build(tx, BuildRequest(project.id, console.user, f"Make version {version}."))
            assert build is not None
            build.admitted_at = build.started_at = build.closed_at = now
            build.status, build.build_version, build.phases_completed = "ready", version, 2
            builds.append(build.id)
    for each in builds:
        await store_files(console.api, str(each), [("README.md", b"# Hello\n", {})], reason="gate", final=True)
        async with transaction(console.api.sessions) as tx:
            gate = {"build_id": each, "number": 1, "snapshot_number": 1, "findings": [], "ended_at": now}
            tx.session.add(GateRun(**gate, tests_run=14))
            tx.session.add(Preview(build_id=each, state="closed", seq=1))
    return project.id


def founders_pages(sample: Sample) -> list[View]:
    """Each page that a founder opens by its address."""
    project, ready = f"/projects/{sample.project}", f"/builds/{sample.ready}"
    return [
        View("/", ("heading", "Needs you")),
        View("/new", ("heading", "What would you like to build?")),
        View(f"{project}/edit", ("heading", "Change the idea")),
        View(f"{project}/edit?step=interview", ("heading", "A few questions")),
        View(f"{project}/edit?step=review", ("heading", "Read it once more")),
        View(project, ("heading", "Versions")),
        View("/usage", ("text", "Tokens of each UTC day and model")),
        View("/account", ("heading", "Your data")),
        View(f"/builds/{sample.working}", ("region", "Feed")),
        View(f"/builds/{sample.asking}", ("region", "The agent needs you")),
        View(f"/builds/{sample.bare}", ("region", "Feed")),
        View(f"{ready}?tab=preview", ("button", "Start the preview")),
        View(f"{ready}?tab=changes", ("text", "1 file changed")),
        View(f"{ready}?tab=files", ("button", "README.md")),
        View(f"{ready}?tab=files&path=src/app.py", ("text", "line 7 =")),
        View(f"{ready}?tab=documents&document=README.md", ("article", "")),
        View(f"{ready}?tab=screenshots", ("heading", "Check 2")),
        View(f"{ready}?tab=details", ("text", "Push to a git server")),
        View("/nothing/here", ("text", "There is nothing at this address.")),
        View(f"/builds/{uuid.uuid4()}", ("text", "There is no such build")),
    ]


def empty_panels(sample: Sample) -> list[View]:
    """The tabs of a build that has made nothing yet."""
    texts = {
        "preview": "The product runs here when",
        "changes": "No commit yet.",
        "files": "No snapshot yet.",
        "documents": "No documents yet.",
        "screenshots": "No screenshots yet.",
        "details": "No snapshot yet.",
    }
    return [View(f"/builds/{sample.bare}?tab={tab}", ("text", text)) for tab, text in texts.items()]


def founders_dialogs(sample: Sample) -> list[View]:
    """What opens over a founder's pages: dialogs, menus, and what is folded."""
    new = View("/new", ("heading", "What would you like to build?"))
    product = View(f"/projects/{sample.project}", ("heading", "Versions"))
    account = View("/account", ("heading", "Your data"))
    build = View(f"/builds/{sample.working}", ("region", "Feed"))
    ready = View(f"/builds/{sample.ready}", ("region", "Feed"))
    menu: Click = ("button", "Actions of this build")
    back: Click = ("button", "Go back to here")
    return [
        View("/", ("menu", "Account"), (("button", "Account"),)),
        new.after(("text", "Have a brief already?"), shows=("textbox", "Brief as JSON")),
        product.after(("button", "Rename"), shows=("textbox", "Name")),
        product.after(("button", "Start a new build from here"), shows=("textbox", "Goal")),
        product.after(("button", "Archive the project"), shows=("dialog", "Archive this project?")),
        product.after(("button", "Set a secret"), shows=("dialog", "Set a secret")),
        product.after(("button", "Remove"), shows=("dialog", "Remove STRIPE_API_KEY?")),
        account.after(("button", "Make a key"), shows=("dialog", "Make a key")),
        account.after(("button", "Replace"), shows=("dialog", "Replace the key")),
        account.after(("button", "Revoke"), shows=("dialog", "Revoke the key")),
        account.after(("button", "Make an organisation"), shows=("dialog", "Make an organisation")),
        account.after(("button", "Members"), shows=("dialog", "Members of")),
        account.after(("button", "Make a webhook"), shows=("dialog", "Make a webhook")),
        account.after(("button", "Deliveries"), shows=("dialog", "Deliveries to")),
        account.after(("button", "Delete my account"), shows=("dialog", "Delete your account?")),
        build.after(menu, shows=("menu", "Actions of this build")),
        build.after(menu, ("menuitem", "Keys"), shows=("dialog", "Keys")),
        build.after(menu, ("menuitem", "Wrap up now"), shows=("dialog", "Wrap up now?")),
        build.after(menu, ("menuitem", "Stop the build"), shows=("dialog", "Stop this build?")),
        build.after(back, shows=("dialog", "Put the workspace back"), phone=(("button", "Show the phases"), back)),
        build.after(("button", "Everything"), shows=("region", "Feed")),
        ready.after(("button", "Continue with a new build"), shows=("dialog", "Continue with a new build")),
        View(
            f"{ready.path}?tab=screenshots", ("dialog", "Desktop, Check 2"), (("button", "Enlarge: Desktop, Check 2"),)
        ),
        View(f"{ready.path}?tab=screenshots", ("dialog", "Compare checks"), (("button", "Compare checks"),)),
        View(f"{ready.path}?tab=preview", ("button", "Copy the link"), (("button", "Make a link"),)),
    ]


def operators_pages(build: uuid.UUID, user: str) -> list[View]:
    """Each page that only operators open.

    Args:
        build: any, which the pages show.
        user: to whom the build belongs.
    """
    return [
        View("/fleet", ("table", "Builds of all users")),
        View("/fleet/stuck", ("heading", "Stuck")),
        View("/fleet/spend", ("heading", "Spend")),
        View("/fleet/controls", ("heading", "Limits")),
        View(f"/fleet/builds/{build}", ("region", "Ledger")),
        View(f"/fleet/users/{user}", ("heading", user)),
    ]


def operators_dialogs(build: uuid.UUID, user: str) -> list[View]:
    """What opens over the operators' pages.

    Args:
        build: an open one, which can be acted on.
        user: to whom the build belongs.
    """
    fleet = View(f"/fleet?user={user}", ("table", "Builds of all users"))
    controls = View("/fleet/controls", ("heading", "Limits"))
    page = View(f"/fleet/users/{user}", ("heading", user))
    whole = View(f"/fleet/builds/{build}", ("region", "Ledger"))
    return [
        fleet.after(("checkbox", "Select the build of"), ("button", "Wake"), shows=("dialog", "Wake builds")),
        fleet.after(("text", "The same builds in Temporal"), shows=("button", "Copy the query")),
        controls.after(("button", "Switch builds off"), shows=("dialog", "Switch builds off")),
        controls.after(("button", "What it would do now"), shows=("dialog", "What it would do now")),
        controls.after(("button", "Change"), shows=("dialog", "Money of a day")),
        controls.after(("button", "Read the audit"), shows=("region", "Audit")),
        whole.after(("button", "Wake"), shows=("dialog", "Wake this build?")),
        whole.after(("button", "Wrap up"), shows=("dialog", "Wrap this build up?")),
        whole.after(("button", "Stop"), shows=("dialog", "Stop this build?")),
        page.after(("button", "Top up"), shows=("dialog", "Top up")),
        page.after(("button", "Change the plan"), shows=("dialog", "Change the plan")),
        page.after(("button", "Suspend"), shows=("dialog", "Suspend")),
    ]
