"""The right part of a build's page: the preview in its frame, and what others have written, which is text."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import FrameLocator, Locator, expect
from sqlalchemy import delete
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from clients.object_store import ObjectStore, image_key
from db.models import GateRun, Preview
from db.transaction import transaction
from domain.preview_address import preview_address
from domain.workspace_diff import GitDiff, StoredDiff, WorkspaceDiff, read_diff
from tests.harness.api_server import RunningApi
from tests.harness.asgi_server import serving
from tests.harness.console import Console
from tests.harness.feeds import build_row
from tests.harness.hostile_texts import MARKDOWN, TEXTS, UNSEEN
from tests.harness.stored_diffs import end_phase, store_diff
from tests.harness.stored_files import Member, store_files

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f6"
    "45400000000049454e44ae426082"
)
"""The smallest PNG."""


async def _ready(console: Console) -> uuid.UUID:
    """A build that is ready, without a workflow."""
    return await build_row(console.api.sessions, console.user, status="ready", closed_at=datetime.now(UTC))


async def _show(console: Console, build: uuid.UUID, tab: str, **parameters: str) -> Locator:
    """Open the build's page at a tab, and return the tab's panel."""
    query = "".join(f"&{name}={value}" for name, value in parameters.items())
    await console.open(f"/builds/{build}?tab={tab}{query}")
    return console.page.get_by_role("tabpanel")


async def _write_preview(api: RunningApi, build: uuid.UUID, port: int | None, state: str = "open", **more: Any) -> None:
    """Write the preview's row as its workflow does. `port`: of the product."""
    upstream = None if port is None else f"http://3000-box.localhost:{port}"
    address = preview_address(api.settings.preview_url, build)
    row: dict[str, Any] = {
        "state": state,
        "seq": 1,
        "sandbox_id": "box",
        "url": address if state == "open" else None,
        "upstream_url": upstream,
        "traffic_token": None if port is None else "traffic",
        "expires_at": datetime.now(UTC) + timedelta(hours=1) if state == "open" else None,
    }
    async with transaction(api.sessions) as tx:
        await tx.session.execute(delete(Preview).where(Preview.build_id == build))
        tx.session.add(Preview(build_id=build, **row | more))


@asynccontextmanager
async def _product(app: Starlette) -> AsyncIterator[int]:
    async with serving(app, ws="none") as port:
        yield port


def _waitlist() -> Starlette:
    """A product with a form, which remembers its visitor in a cookie."""

    async def page(request: Request) -> Response:
        answer = HTMLResponse(
            "<!doctype html><title>Waitlist</title><h1>Waitlist</h1><form method=post action=/join>"
            "<label>Name <input name=name></label><button>Join</button></form>"
        )
        # In a frame, browsers keep no other cookies.
        answer.headers["Set-Cookie"] = "visitor=7; SameSite=None; Secure; Partitioned"
        return answer

    async def join(request: Request) -> Response:
        name = (await request.body()).decode().partition("=")[2]
        return HTMLResponse(f"<!doctype html><p id=thanks>Thanks, {name}, visitor {request.cookies.get('visitor')}</p>")

    return Starlette(routes=[Route("/", page), Route("/join", join, methods=["POST"])])


def _frame(console: Console) -> FrameLocator:
    return console.page.frame_locator("iframe")


async def test_the_preview_in_its_frame_answers_a_form(console: Console) -> None:
    build = await _ready(console)
    async with _product(_waitlist()) as port:
        await _write_preview(console.api, build, port)
        panel = await _show(console, build, "preview")
        frame = _frame(console)
        await frame.get_by_label("Name").fill("Ada")
        await frame.get_by_role("button", name="Join").click()
        await expect(frame.locator("#thanks")).to_have_text("Thanks, Ada, visitor 7")

        element = panel.locator("iframe")
        sandbox = set((await element.get_attribute("sandbox") or "").split())
        assert not {each for each in sandbox if "navigation" in each}
        assert {"allow-scripts", "allow-same-origin", "allow-forms"} <= sandbox
        assert (await element.get_attribute("allow"), await element.get_attribute("referrerpolicy")) == (
            "",
            "no-referrer",
        )

        await panel.get_by_text("Phone", exact=True).click()
        width = await frame.locator("html").evaluate("() => innerWidth")
        assert width == 390
        path = panel.get_by_label("Path in the product")
        await path.fill("//evil.example/x")
        await panel.get_by_role("button", name="Go").click()
        await expect(path).to_have_value("/evil.example/x")  # of the product, whatever it looks like

        # A product that is not looked at does not run in the page.
        await console.page.get_by_role("tab", name="Files").click()
        await expect(console.page.locator("iframe")).to_have_count(0)
    console.expect_error("status of 404")


@pytest.mark.web
async def test_a_closed_preview_is_started_and_links_are_made_and_revoked(console: Console) -> None:
    build = await _ready(console)
    await _write_preview(console.api, build, None, "failed", reason="The command `python server.py` ended with 1.")
    panel = await _show(console, build, "preview")
    await expect(panel).to_contain_text("The product did not start.")
    await expect(panel).to_contain_text("The command `python server.py` ended with 1.")
    await panel.get_by_role("button", name="Make a link").click()
    made = panel.locator("code")
    await expect(made).to_contain_text(f"{console.api.settings.public_url}/previews/{build}#")
    await panel.get_by_role("button", name="Revoke").click()
    await expect(panel.get_by_text("There are no links.")).to_be_visible()
    await expect(made).to_have_count(0)

    async with _product(_waitlist()) as port:
        await _write_preview(console.api, build, port, "closed")
        await console.page.reload()
        await expect(panel.get_by_role("button", name="Start the preview")).to_be_visible()
        await _write_preview(console.api, build, port, "opening")
        await console.page.reload()
        await expect(panel.get_by_text("The product starts.")).to_be_visible()
        await _write_preview(console.api, build, port)
        await expect(_frame(console).get_by_role("heading", name="Waitlist")).to_be_visible()

    # A build that has been ready for long, and whose preview is not known, can have one.
    old = await build_row(
        console.api.sessions, console.user, status="ready", closed_at=datetime.now(UTC) - timedelta(hours=1)
    )
    console.expect_error("status of 404")
    await _show(console, old, "preview")
    await expect(panel.get_by_role("button", name="Start the preview")).to_be_visible()

    # An address that is not one of ours is neither shown nor linked to.
    await _write_preview(console.api, build, None, "open", url="https://evil.example/")
    await _show(console, build, "preview")
    await expect(panel.get_by_text("is not one of this installation")).to_be_visible()
    await expect(panel.locator("iframe, a")).to_have_count(0)


ATTACK = """
<!doctype html><title>Hostile</title><p id=done>working</p><script>
const told = [];
const attempt = async (name, act) => {
  let result;
  try { result = await act(); } catch (error) { result = "refused " + error.name; }
  told.push(name + "=" + result);
};
(async () => {
  const api = "%(api)s";
  await attempt("parent", () => window.parent.document.title);
  await attempt("top href", () => window.top.location.href);
  await attempt("top", () => { window.top.location = "https://evil.example/"; return "led away"; });
  await attempt("open top", () => String(window.open("https://evil.example/", "_top")));
  await attempt("frame element", () => String(window.frameElement));
  await attempt("cookies", () => document.cookie);
  await attempt("domain", () => { document.domain = "localhost"; return document.domain; });
  await attempt("read", async () => (await fetch(api + "/v1/me", { credentials: "include" })).status);
  await attempt("write", async () => (await fetch(api + "/v1/projects", {
    method: "POST", credentials: "include", headers: { "Content-Type": "application/json" }, body: '{"name":"hacked"}',
  })).status);
  await attempt("framed console", () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.src = api + "/";
    frame.onload = () => {
      try { resolve(frame.contentDocument ? frame.contentDocument.title || "empty" : "hidden"); }
      catch (error) { resolve("hidden"); }
    };
    document.body.append(frame);
  }));
  await attempt("storage", () => Object.keys(localStorage).join());
  for (let at = 0; at < 20000; at++) window.parent.postMessage({ type: "flood", at }, "*");
  document.getElementById("done").textContent = told.join("; ");
})();
</script>
"""


@dataclass
class _Hostile:
    """A product that tries to reach the console around it."""

    api: str
    cookies: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        async def page(request: Request) -> Response:
            self.cookies.append(request.headers.get("cookie", ""))
            return HTMLResponse(ATTACK % {"api": self.api})

        return Starlette(routes=[Route("/{path:path}", page)])


_OF_REQUESTS = (
    *("sign_ins", "sign_in_codes", "audit", "webhooks"),
    *("projects", "project_secrets", "founder_messages", "restores", "preview_links", "push_permits"),
)


@pytest.mark.web
async def test_a_hostile_product_in_the_frame_gets_nothing(console: Console) -> None:
    console.expect_error(
        "evil.example",
        "Unsafe attempt",
        "CORS",
        "ERR_FAILED",
        "frame-ancestors",
        "X-Frame-Options",
        "Refused",
        "document.domain",
    )
    build = await _ready(console)
    hostile = _Hostile(console.api.url)
    before = await console.api.rows()
    [session] = [each["value"] for each in await console.context.cookies(console.api.url)]
    async with _product(hostile.app()) as port:
        await _write_preview(console.api, build, port)
        panel = await _show(console, build, "preview")
        done = _frame(console).locator("#done")
        await expect(done).to_contain_text("storage=")
        tried = dict(each.split("=", 1) for each in (await done.text_content() or "").split("; "))
        # The console still answers, and is where it was.
        await panel.get_by_text("Tablet", exact=True).click()
        await expect(panel.get_by_label("Tablet")).to_be_checked()
        await expect(console.page).to_have_url(re.compile(rf"/builds/{build}\?tab=preview$"))
    refused = ("parent", "top href", "top", "read", "write", "domain")
    assert {name: tried[name][:7] for name in refused} == dict.fromkeys(refused, "refused"), tried
    assert tried["frame element"] == "null"
    assert tried["framed console"] in ("hidden", "empty"), tried
    assert tried["cookies"] == ""
    assert tried["storage"] in ("", "refused SecurityError")
    assert len(console.context.pages) == 1
    assert session not in str(hostile.cookies)
    after = await console.api.rows()
    # A worker of an earlier test may still write; these are the tables that only requests write.
    assert {name: after[name] for name in _OF_REQUESTS} == {name: before[name] for name in _OF_REQUESTS}


def _hostile_paths() -> list[str]:
    """The texts as file names: a name can't have a slash in it that is not a folder."""
    return [f"{at:02} " + text.replace("/", "\u2215") for at, text in enumerate(TEXTS)]


async def _shown_lines(lines: Locator, attribute: str) -> list[str]:
    """The text of lines on the page, without their ends."""
    await expect(lines.first).to_be_visible()
    texts: list[str] = await lines.evaluate_all("lines => lines.map((line) => line.textContent)")
    assert await lines.first.get_attribute(attribute) is not None
    return [text.removesuffix("\n") for text in texts]


async def test_what_others_have_written_is_shown_as_text(console: Console) -> None:
    """Each text is there as it is: in a list of files, a file, a diff and a document. The fixture checks that nothing
    of it runs, and that nothing is loaded from elsewhere."""
    dialogs: list[str] = []
    console.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    build = await _ready(console)
    source = [*TEXTS, *(raw for raw, _ in UNSEEN)]
    shown = [*TEXTS, *(marked for _, marked in UNSEEN)]
    text = "\n".join(source) + "\n"
    paths = _hostile_paths()
    document = "\n\n".join(MARKDOWN)
    members: list[Member] = [(path, b"x", {}) for path in paths]
    members += [("source.txt", text.encode(), {}), ("README.md", document.encode(), {})]
    await store_files(console.api, str(build), members)
    listed = await console.api.http.get(f"/v1/builds/{build}/snapshots/1/files", headers=console.headers)
    assert listed.status_code == 200, listed.text

    panel = await _show(console, build, "files")
    names = panel.get_by_role("navigation", name="Files").get_by_role("button")
    await expect(names).to_have_count(len(members))
    # Each row is the name and the size.
    rows = await names.all_text_contents()
    assert {f"{path}1 B" for path in paths} <= set(rows)

    panel = await _show(console, build, "files", path="source.txt")
    assert await _shown_lines(panel.locator("[data-number]"), "data-number") == shown

    panel = await _show(console, build, "documents", document="README.md")
    await expect(panel.get_by_role("article")).to_contain_text("<svg onload=alert(1)>")
    prose = await panel.get_by_role("article").text_content() or ""
    for raw in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "Picture: picture"):
        assert raw in prose
    hrefs = await panel.locator("article a").evaluate_all(
        "links => links.map((link) => [link.href, link.rel, link.target])"
    )
    assert hrefs
    for href, rel, target in hrefs:
        assert href.startswith("https://evil.example/"), href
        assert (rel, target) == ("noopener noreferrer nofollow", "_blank")
    assert await panel.locator("article :is(img, iframe, svg, script, style, form)").count() == 0

    patch = "diff --git a/source.txt b/source.txt\nnew file mode 100644\n--- /dev/null\n+++ b/source.txt\n"
    patch += f"@@ -0,0 +1,{len(source)} @@ {TEXTS[0]}\n" + "".join(f"+{line}\n" for line in source)
    change = {"path": paths[0], "status": "added", "additions": len(source), "deletions": 0, "patch": patch}
    counts = {"files": 1, "additions": len(source), "deletions": 0}
    diff = WorkspaceDiff.model_validate({"base": None, "commit": "c" * 40, **counts, "changes": [change]})
    await end_phase(console.api, str(build), 1, "c" * 40, TEXTS[3])
    await store_diff(console.api, str(build), 1, StoredDiff(phase=diff))
    panel = await _show(console, build, "changes")
    assert await _shown_lines(panel.locator("[data-numbers]"), "data-numbers") == [f"+{line}" for line in shown]
    await expect(panel.get_by_role("heading", name=paths[0])).to_be_visible()
    await expect(panel.get_by_label("Show").locator("option")).to_have_text(["Whole build", f"Phase 1: {TEXTS[3]}"])
    assert dialogs == []


_HEADER = re.compile(
    r"(?m)^(?:diff --git .*|index .*|(?:---|\+\+\+) (?:[ab]/|\"|/dev/null).*|[a-z ]+ mode .*|similarity .*|rename .*"
    r"|@@ .*|Binary files .*)\n"
)
"""A line of a patch that is not one of a file."""


async def _git(directory: Path, *arguments: str) -> bytes:
    command = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false", *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=directory, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0, arguments
    return printed


async def _odd_commit(directory: Path) -> WorkspaceDiff:
    """Commit changes that are hard to show, and read git's diff of them as the agent's activities do."""
    await _git(directory, "init", "-q", "-b", "main")
    before = {
        "renamed.py": "".join(f"line {at}\n" for at in range(40)),
        "crlf.txt": "one\r\ntwo\r\n",
        "no newline.txt": "old",
        "dashes.sql": "-- a comment\n-- another\n",
        "gone.txt": "gone\n",
        "long.txt": "".join(f"{at}\n" for at in range(900)),
    }
    for name, content in before.items():
        (directory / name).write_bytes(content.encode())
    await _git(directory, "add", "-A")
    await _git(directory, "commit", "-qm", "Before")
    (directory / "renamed.py").rename(directory / "now named.py")
    (directory / "now named.py").write_text(before["renamed.py"].replace("line 7\n", "line seven\n"))
    (directory / "crlf.txt").write_bytes(b"one\r\nzwei\r\n")
    (directory / "no newline.txt").write_bytes(b"new")
    (directory / "dashes.sql").write_bytes(b"++ not a comment\n-- another\n")
    (directory / "gone.txt").unlink()
    (directory / "long.txt").write_bytes("".join(f"{at}!\n" for at in range(900)).encode())
    (directory / "logo.png").write_bytes(PIXEL)
    (directory / 'a "quoted" näme.txt').write_bytes(b"odd\n")
    await _git(directory, "add", "-A")
    await _git(directory, "commit", "-qm", "After")
    listing = await _git(directory, "diff", "--raw", "--numstat", "-z", "-M", "HEAD~1", "HEAD")
    patch = await _git(directory, "diff", "-M", "HEAD~1", "HEAD")
    return read_diff(GitDiff(base="b" * 40, commit="c" * 40, listing=listing, patch=patch))


@pytest.mark.web
async def test_the_changes_of_a_phase_are_those_that_git_shows(console: Console, tmp_path: Path) -> None:
    build = await _ready(console)
    diff = await _odd_commit(tmp_path)
    await end_phase(console.api, str(build), 1, "c" * 40)
    await store_diff(console.api, str(build), 1, StoredDiff(phase=diff))
    panel = await _show(console, build, "changes", phase="1")
    await expect(panel.get_by_text(f"{diff.files} files changed")).to_be_visible()
    await panel.get_by_role("button", name="Show the lines").click()
    shown = await _shown_lines(panel.locator("[data-numbers]"), "data-numbers")
    patches = "".join(change.patch or "" for change in diff.changes)
    wanted = [line.replace("\r", "␍") for line in _HEADER.sub("", patches).split("\n") if line]
    assert shown == [line.replace("\\ ", "\\") for line in wanted]
    headings = await panel.get_by_role("heading", level=3).all_text_contents()
    assert 'a "quoted" näme.txt' in headings
    assert "renamed.py → now named.py" in headings
    await expect(panel.get_by_text("A binary file: its bytes are not shown.")).to_be_visible()

    # n and p go from file to file.
    await panel.focus()
    for key, at in (("n", 0), ("n", 1), ("p", 0)):
        await console.page.keyboard.press(key)
        await expect(panel.get_by_role("heading", level=3).nth(at)).to_be_focused()


@pytest.mark.web
async def test_a_file_is_shown_as_it_is_stored(console: Console, phone: Console) -> None:
    lines = [f"{at}\t<b>{'x' * (at % 90)}</b>" for at in range(3_000)]
    text = "\r\n".join([*lines, "y" * 6_000]) + "\r\n"
    for each in (console, phone):
        build = await _ready(each)
        members: list[Member] = [
            ("src/big.txt", text.encode(), {}),
            ("logo.png", PIXEL, {}),
            ("data.bin", b"\0\1\2", {}),
            ("link", b"", {}),
        ]
        members[-1] = ("link", b"", {"type": b"2", "linkname": "../../etc/passwd"})
        await store_files(each.api, str(build), members)
        panel = await _show(each, build, "files", path="src/big.txt", line="2900")
        shown = await _shown_lines(panel.locator("[data-number]"), "data-number")
        assert shown[:-1] == lines
        assert shown[-1] == "y" * 5_000 + " [1,000 more characters on this line: download the file to see them]"
        await expect(panel.locator('[data-number="2900"]')).to_be_in_viewport()
        await expect(panel).to_contain_text("CRLF")
        panel = await _show(each, build, "files", path="logo.png")
        picture = panel.get_by_role("img", name="The picture logo.png")
        await expect(picture).to_have_js_property("naturalWidth", 1)
        panel = await _show(each, build, "files", path="data.bin")
        await expect(panel.get_by_text("A binary file. Download it to open it.")).to_be_visible()
        async with each.page.expect_download() as downloading:
            await panel.get_by_role("link", name="Download").click()
        assert (await (await downloading.value).path()).read_bytes() == b"\0\1\2"
        panel = await _show(each, build, "files", path="link")
        await expect(panel.get_by_text("A link to ../../etc/passwd")).to_be_visible()


@pytest.mark.web
async def test_screenshots_open_in_full_and_gone_ones_are_said_so(console: Console) -> None:
    build = await _ready(console)
    store = console.api.resources.store
    assert isinstance(store, ObjectStore)
    kept = {}
    for name, digest in (("desktop", "2b" * 32), ("mobile", "3c" * 32)):
        await store.put_image(digest, PIXEL)
        kept[name] = image_key(digest)
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    gone = {"desktop": image_key("9f" * 32), "mobile": kept["mobile"]}
    async with transaction(console.api.sessions) as tx:
        for number, keys in ((1, gone), (2, kept), (3, kept)):
            gate = {"build_id": build, "number": number, "snapshot_number": 1, "findings": []}
            tx.session.add(GateRun(**gate, screenshots=keys, ended_at=at + timedelta(minutes=number)))
    panel = await _show(console, build, "screenshots")
    await expect(panel.get_by_role("heading", level=3)).to_have_text(
        [re.compile("Check 3"), re.compile("Check 2"), re.compile("Check 1")]
    )
    await expect(panel.get_by_text("No longer kept")).to_be_visible()
    await panel.get_by_role("button", name=re.compile("Enlarge: Desktop, Check 3")).click()
    dialog = console.page.get_by_role("dialog")
    for key, alt in (
        ("ArrowRight", "Phone, Check 3"),
        ("ArrowRight", "Desktop, Check 2"),
        ("ArrowLeft", "Phone, Check 3"),
    ):
        await console.page.keyboard.press(key)
        await expect(dialog.get_by_role("img", name=re.compile(alt))).to_be_visible()
    await console.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await panel.get_by_role("button", name="Compare checks").click()
    await expect(dialog.get_by_role("img", name=re.compile("After: Desktop, Check 3"))).to_be_visible()
    await expect(dialog.get_by_role("img", name=re.compile("Before: Desktop, Check 2"))).to_be_visible()


@pytest.mark.web
async def test_details_have_downloads_and_keep_no_secret(console: Console) -> None:
    console.expect_error("status of 4")
    build = await _ready(console)
    await store_files(console.api, str(build), [("README.md", b"# Hello\n", {})])
    panel = await _show(console, build, "details")
    async with console.page.expect_download() as downloading:
        await panel.get_by_role("link", name="Download snapshot 1 as tar.gz").click()
    archive = await console.api.http.get(f"/v1/builds/{build}/snapshots/1/archive", headers=console.headers)
    assert (await (await downloading.value).path()).read_bytes() == archive.content

    await panel.get_by_text("Push to a git server").click()
    await panel.get_by_label("Repository").fill("https://git.invalid/me/app.git")
    await panel.get_by_label("Token").fill("ghp_a-token-of-mine")
    await panel.get_by_role("button", name="Push", exact=True).click()
    await expect(panel.get_by_role("alert")).to_be_visible()
    await expect(panel.get_by_label("Token")).to_have_value("")

    await panel.get_by_text("Set a secret").click()
    await panel.get_by_label("Name").fill("STRIPE_API_KEY")
    await panel.get_by_label("Value").fill("sk_live_a-secret-of-mine")
    await panel.get_by_role("button", name="Set", exact=True).click()
    await expect(panel.get_by_label("Value")).to_have_value("")
    kept = await console.page.evaluate(
        "() => [document.body.outerHTML, ...Object.values(localStorage), ...Object.values(sessionStorage)].join()"
    )
    assert "of-mine" not in kept
