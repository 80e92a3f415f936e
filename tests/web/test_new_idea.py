"""A new idea in the real console, from the first sentence to its build, and what keeps it from being lost."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.harness.accessibility import scrolls_sideways
from tests.harness.api_server import as_user, suspend
from tests.harness.console import Console

IDEA = "a library of tools for the neighbours in my street"

BRIEF = {
    "name": "Tool Library",
    "problem": "Everyone in our street owns a drill, and no one uses it.",
    "features": ["List the tools", "Borrow one", "Bring it back"],
    "tone": {"words": ["calm", "short"]},
}


async def test_an_idea_is_built_by_keyboard_alone(console: Console) -> None:
    page, keys = console.page, console.page.keyboard
    await tab_to(page, page.get_by_label("Your idea in one sentence"))
    await keys.type(IDEA)
    await keys.press("Enter")

    await expect(page.get_by_label("Name", exact=True)).to_have_value("Library Tools")
    await tab_to(page, page.get_by_label("Feature 1", exact=True))
    await keys.press("Enter")
    await keys.type("Borrow one")
    await keys.press("Alt+ArrowUp")
    await expect(page.get_by_label("Feature 1", exact=True)).to_have_value("Borrow one")
    await expect(page.get_by_label("Feature 1", exact=True)).to_be_focused()
    await tab_to(page, page.get_by_role("button", name="Next"))
    await keys.press("Enter")

    await expect(page.get_by_role("heading", name="A few questions")).to_be_focused()
    await tab_to(page, page.get_by_label("Who are the first ten people"))
    await keys.type("The people of number 12.")
    await keys.press("Control+Enter")
    await expect(page.get_by_label("How do they solve the problem today?")).to_be_focused()
    for number in (2, 3, 4, 5):
        await expect(page.get_by_text(f"Question {number} of 5")).to_be_visible()
        await keys.press("Control+Enter")

    await expect(page.get_by_role("heading", name="Read it once more")).to_be_focused()
    await expect(page.get_by_text("The people of number 12.")).to_be_visible()
    await expect(page.get_by_text("4 questions have no answer.")).to_be_visible()
    await tab_to(page, page.get_by_role("button", name="Create and build"))
    await keys.press("Enter")

    await page.wait_for_url(re.compile("/builds/"))
    [project] = await projects_of(console)
    assert project["brief"] == {"name": "Library Tools", "problem": IDEA, "features": ["Borrow one", IDEA]}
    assert project["interview"]["answers"] == {"first_users": "The people of number 12."}
    [build] = await builds_of(console)
    assert (build["id"], build["goal"]) == (page.url.rsplit("/", 1)[1], "Build the first version")
    assert await kept_drafts(page) == []


@pytest.mark.web
async def test_an_idea_is_built_by_touch(phone: Console) -> None:
    page = phone.page
    await page.get_by_label("Your idea in one sentence").fill(IDEA)
    await page.get_by_role("button", name="Go on").tap()
    await page.get_by_role("button", name="Add a feature").tap()
    await page.get_by_label("Feature 2", exact=True).fill("Borrow one")
    await page.get_by_role("button", name="Move feature 2 up").tap()
    assert not await scrolls_sideways(page)
    await page.get_by_role("button", name="Next").tap()
    for number in range(1, 6):
        await expect(page.get_by_text(f"Question {number} of 5")).to_be_visible()
        assert not await scrolls_sideways(page)
        await page.get_by_role("button", name="Skip").tap()
    await expect(page.get_by_role("heading", name="Read it once more")).to_be_visible()
    assert not await scrolls_sideways(page)
    await page.get_by_role("button", name="Create and build").tap()
    await page.wait_for_url(re.compile("/builds/"))
    [project] = await projects_of(phone)
    assert project["brief"]["features"] == ["Borrow one", IDEA]


async def test_a_draft_survives_a_reload_and_is_stored_once(console: Console) -> None:
    page = console.page
    await console.open("/new")
    await page.get_by_text("Have a brief already?").click()
    await page.get_by_label("Brief as JSON").fill(json.dumps(BRIEF))
    await page.get_by_role("button", name="Use this brief").click()
    await expect(page.get_by_label("Feature 3", exact=True)).to_have_value("Bring it back")
    await expect(page.get_by_text('"calm"')).to_be_visible()
    await page.get_by_role("button", name="Next").click()
    await page.get_by_label("Who are the first ten people").fill("Number 12")
    await page.get_by_role("button", name="Add a question of your own").click()
    await page.get_by_label("Your question").fill("Who repairs the drill?")
    await page.get_by_role("button", name="Add it").click()
    await page.get_by_label("Who repairs the drill?").fill("I do.")

    await page.reload()
    await expect(page.get_by_label("Who repairs the drill?")).to_have_value("I do.")
    await page.get_by_role("navigation", name="Steps").get_by_role("link", name="Review").click()
    await page.get_by_label("Goal").fill("A list, no login.")
    await page.get_by_label("Stop, with the work kept").check()
    await page.get_by_role("button", name="Create and build").dblclick()

    await page.wait_for_url(re.compile("/builds/"))
    [project] = await projects_of(console)
    assert project["brief"] == BRIEF
    assert project["interview"]["questions"][-1] == {"id": "own_1", "text": "Who repairs the drill?"}
    assert project["interview"]["answers"] == {"first_users": "Number 12", "own_1": "I do."}
    [build] = await builds_of(console)
    assert (build["goal"], build["sleep_policy"]) == ("A list, no login.", "stop")


@pytest.mark.web
async def test_a_mistake_takes_the_focus(console: Console) -> None:
    page = console.page
    console.expect_error("status of 422")
    await console.open("/new")
    await page.get_by_role("button", name="Next").click()
    name = page.get_by_label("Name", exact=True)
    await expect(name).to_be_focused()
    await expect(name).to_have_accessible_description("Write something here.")

    # What only the API knows: PostgreSQL can't store the character.
    await page.get_by_text("Have a brief already?").click()
    features = ["A list", "A \u0000 reminder"]
    await page.get_by_label("Brief as JSON").fill(json.dumps({**BRIEF, "features": features}))
    await page.get_by_role("button", name="Use this brief").click()
    await page.get_by_role("navigation", name="Steps").get_by_role("link", name="Review").click()
    await page.get_by_role("button", name="Only create").click()
    feature = page.get_by_label("Feature 2", exact=True)
    await expect(feature).to_be_focused()
    await expect(feature).to_have_accessible_description(re.compile("NUL character"))
    assert await projects_of(console) == []

    await feature.fill("A reminder")
    await page.get_by_role("navigation", name="Steps").get_by_role("link", name="Review").click()
    await page.get_by_role("button", name="Only create").click()
    await page.wait_for_url(re.compile("/projects/"))
    assert len(await projects_of(console)) == 1


@pytest.mark.web
async def test_two_tabs_edit_the_same_brief(console: Console) -> None:
    console.expect_error("status of 409")
    project = await console.api.project(console.user, brief=BRIEF)
    other = await console.new_tab(f"/projects/{project}/edit")
    await expect(other.get_by_label("Name", exact=True)).to_have_value("Tool Library")
    await console.open(f"/projects/{project}/edit?step=review")
    mine = console.page
    await expect(mine.get_by_text("Bring it back")).to_be_visible()
    stored = await console.api.http.put(
        f"/v1/projects/{project}/brief", json={"brief": {**BRIEF, "problem": "Theirs."}}, headers=console.headers
    )
    assert stored.status_code == 200

    await mine.get_by_role("navigation", name="Steps").get_by_role("link", name="Idea").click()
    await mine.get_by_label("Problem, and for whom").fill("Mine.")
    await mine.get_by_role("navigation", name="Steps").get_by_role("link", name="Review").click()
    await mine.get_by_role("button", name="Only save").click()
    dialog = mine.get_by_role("dialog", name="Someone saved version 2 while you wrote.")
    await dialog.get_by_role("button", name="See theirs").click()
    await expect(dialog.get_by_text("Theirs.")).to_be_visible()
    await dialog.get_by_role("button", name="Keep mine as version 3").click()
    await mine.wait_for_url(f"{console.api.url}/projects/{project}")
    [kept] = await projects_of(console)
    assert (kept["brief"]["problem"], kept["brief_version"]) == ("Mine.", 3)


async def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the element has the focus."""
    await expect(target).to_be_visible()
    for _ in range(80):
        if await target.evaluate("element => element === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError("Tab does not reach the element.")


async def projects_of(console: Console) -> list[dict[str, Any]]:
    """The user's projects, with their documents."""
    listed = await console.api.http.get("/v1/projects", headers=console.headers)
    ids = [each["id"] for each in listed.json()["projects"]]
    read = [await console.api.http.get(f"/v1/projects/{each}", headers=console.headers) for each in ids]
    return [each.json() for each in read]


async def builds_of(console: Console) -> list[dict[str, Any]]:
    """The user's builds."""
    builds: list[dict[str, Any]] = (await console.api.http.get("/v1/builds", headers=console.headers)).json()["builds"]
    return builds


async def kept_drafts(page: Page) -> list[str]:
    """The drafts that the browser keeps."""
    keys: list[str] = await page.evaluate("() => Object.keys(localStorage)")
    return [key for key in keys if "draft" in key]


@pytest.mark.web
async def test_a_brief_that_is_too_large_says_by_how_much(console: Console) -> None:
    page = console.page
    await console.open("/new")
    await page.get_by_text("Have a brief already?").click()
    await page.get_by_label("Brief as JSON").fill(json.dumps({**BRIEF, "research": "ü" * 36_000}))
    await page.get_by_role("button", name="Use this brief").click()
    await expect(page.get_by_text("Shorten it: 71 KB of 64 KB.")).to_be_visible()
    await page.get_by_role("button", name="Next").click()
    await expect(page.locator("[data-field=brief]")).to_be_focused()
    await page.get_by_role("button", name="Remove research").click()
    await expect(page.get_by_text("Shorten it")).to_have_count(0)
    await page.get_by_role("button", name="Next").click()
    await expect(page.get_by_role("heading", name="A few questions")).to_be_focused()


@pytest.mark.web
async def test_what_is_stored_but_not_built_is_built_later(console: Console) -> None:
    page = console.page
    console.expect_error("status of 403", "status of 409")
    await console.open("/new?step=review")
    await _paste(page)
    await suspend(console.api, console.user)
    await page.get_by_role("button", name="Create and build").click()
    await expect(page.get_by_role("alert")).to_contain_text("Your account is suspended")
    await expect(page.get_by_role("alert")).to_contain_text("The project is stored.")
    await suspend(console.api, console.user, False)
    await page.reload()
    await page.get_by_role("button", name="Create and build").click()
    await page.wait_for_url(re.compile("/builds/"))
    [project], [build] = await projects_of(console), await builds_of(console)

    await console.open(f"/projects/{project['id']}/edit?step=review")
    await page.get_by_role("button", name="Save and build").click()
    await page.get_by_role("link", name="Watch it").click()
    await page.wait_for_url(f"{console.api.url}/builds/{build['id']}")


@pytest.mark.web
async def test_a_project_belongs_to_the_organisation_that_was_chosen(console: Console) -> None:
    page = console.page
    owned = await _organisation(console, "Allotments")
    await _organisation(console, "Watched", role="viewer")
    await console.open("/new?step=review")
    await _paste(page)
    choice = page.get_by_label("Belongs to")
    await expect(choice.get_by_role("option")).to_have_text(["You alone", "Allotments"])
    await choice.select_option("Allotments")
    await page.get_by_role("button", name="Only create").click()
    await page.wait_for_url(re.compile("/projects/"))
    [project] = await projects_of(console)
    assert project["organisation_id"] == owned
    await expect(page.get_by_text("Belongs to: Allotments")).to_be_visible()


@pytest.mark.web
async def test_a_viewer_reads_and_changes_nothing(console: Console) -> None:
    page = console.page
    watched = await _organisation(console, "Watched", role="viewer")
    project = await console.api.project("owner-of-watched", brief=BRIEF, organisation_id=watched)
    await console.open(f"/projects/{project}")
    await expect(page.get_by_text("You can look at this project.")).to_be_visible()
    for button in ("Rename", "Set a secret", "Start the build", "Archive the project"):
        await expect(page.get_by_role("button", name=button)).to_have_count(0)
    await console.open(f"/projects/{project}/edit?step=review")
    await expect(page.get_by_text("Bring it back")).to_be_visible()
    await expect(page.get_by_role("button", name="Only save")).to_have_count(0)


async def _paste(page: Page) -> None:
    """Fill the draft with a brief, and go to the review."""
    steps = page.get_by_role("navigation", name="Steps")
    await steps.get_by_role("link", name="Idea").click()
    await page.get_by_text("Have a brief already?").click()
    await page.get_by_label("Brief as JSON").fill(json.dumps(BRIEF))
    await page.get_by_role("button", name="Use this brief").click()
    await steps.get_by_role("link", name="Review").click()


async def _organisation(console: Console, name: str, role: str = "owner") -> str:
    """Make an organisation in which the console's user has the role, and return its id."""
    owner = as_user(console.user if role == "owner" else "owner-of-watched")
    made = await console.api.http.post("/v1/organisations", json={"name": name}, headers=owner)
    assert made.status_code == 201, made.text
    organisation = str(made.json()["id"])
    if role != "owner":
        path = f"/v1/organisations/{organisation}/members/{console.user}"
        added = await console.api.http.put(path, json={"role": role}, headers=owner)
        assert added.status_code in (200, 201), added.text
    return organisation
