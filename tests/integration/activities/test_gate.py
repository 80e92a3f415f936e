"""The evidence gate on real products: a good one, and each kind of bad one."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from sqlalchemy import func, select
from temporalio.exceptions import ApplicationError

from activities.gate import GatePolicy
from activities.lifecycle import LifecycleActivities
from clients.browser import PageFailed
from clients.sandbox import Role
from db.models import Build, BusinessEvent, Preview, Snapshot
from db.previews import find_preview, record_upstream, upstream_of
from db.transaction import transaction
from domain.page_view import PageView
from domain.payloads import FinishBuild, OpenedPreview, PreviewChange, PreviewInput, RunGate, SandboxInput
from domain.preview_address import preview_address
from domain.traffic import Upstream
from local.stack import LocalStack
from tests.harness.activities import PREVIEW_URL, ActivityHarness, open_activity_harness, shell
from tests.harness.products import (
    MANIFEST,
    PAGE,
    SERVER,
    TESTS,
    UNTITLED,
    VIEWPORT,
    again,
    gate,
    only_finding,
    product,
    run_of,
)
from tests.harness.wait import DEADLINE


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> AsyncIterator[str]:
    build_id = await harness.build()
    yield build_id
    await harness.kill_all(build_id)


async def test_an_open_plan_is_a_finding_if_it_is_wanted(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, PLAN_md="- [x] Rooms\n- [ ] Doors\n")
    await harness.take(build, sandbox, 1)
    wanted = RunGate(build_id=build, number=1, snapshot_number=1, wants_plan=True)
    assert (await harness.run(harness.gate.run_evidence_gate, wanted)).findings == 1
    [finding] = (await run_of(harness, build)).findings or []
    assert finding.startswith("PLAN.md has stories that are not done:\n- Doors\nTo satisfy this: ")
    unwanted = RunGate(build_id=build, number=2, snapshot_number=1)
    assert (await harness.run(harness.gate.run_evidence_gate, unwanted)).passed


async def test_a_good_product_passes_and_goes_on_running(harness: ActivityHarness, build: str) -> None:
    workspace = await product(harness, build)
    result, findings = await gate(harness, build, workspace)
    assert findings == []
    assert result.sandbox_id is not None
    assert result.sandbox_id != workspace.id
    run = await run_of(harness, build)
    assert (run.tests_run, run.sandbox_id) == (1, result.sandbox_id)
    assert set(run.screenshots) == {"desktop", "mobile"}
    for key in run.screenshots.values():
        assert (await harness.store.get(key, 10_000_000))[8:12] == b"WEBP"
    (passed,) = await harness.events(build, "gate_passed")
    assert passed.data == {"number": 1, "tests_run": 1, "screenshots": run.screenshots}
    running = await harness.sandboxes.connect(result.sandbox_id)
    answer = await running.http_get(8000, "/", DEADLINE)
    assert answer is not None
    assert (answer.status, answer.body.decode()) == (200, PAGE)
    assert result.preview_url == preview_address(PREVIEW_URL, build)
    refused = await running.http_get(8000, "/", DEADLINE, authorized=False)
    assert refused is not None
    assert (refused.status, PAGE in refused.body.decode()) == (403, False)

    assert (await again(harness, build))[0] == result
    assert len(await harness.events(build, "gate_passed")) == 1

    await record(harness, build, 1, "opening")
    opened = await open_preview(harness, build, result.sandbox_id)
    assert opened == OpenedPreview(sandbox_id=result.sandbox_id, url=result.preview_url)
    assert await upstream(harness, build) is None  # not told that it is open
    await record(harness, build, 2, "open", opened)
    assert await upstream(harness, build) == running.upstream(8000)
    assert running.upstream(8000).token


async def test_a_snapshot_that_failed_while_the_gate_waited_is_not_delivered(
    harness: ActivityHarness, build: str
) -> None:
    workspace = await product(harness, build)
    await harness.take(build, workspace, 1)
    build_id = uuid.UUID(build)
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Build, build_id)
        columns = {"build_id": build_id, "project_id": row.project_id, "reason": "wait", "claim": uuid.uuid4()}
        tx.session.add(
            Snapshot(id=uuid.uuid4(), number=2, state="failed", archive_key="none", manifest_key="none", **columns)
        )
    given = RunGate(build_id=build, number=1, snapshot_number=2)
    result = await harness.run(harness.gate.run_evidence_gate, given)
    assert result.passed
    lifecycle = LifecycleActivities(harness.sessions, cast("Any", None))
    ready = FinishBuild(
        build_id=build, seq=9, sandbox_id=result.sandbox_id or "", preview_url="", phases_completed=1, snapshot_number=2
    )
    await harness.run(lifecycle.finish_build, ready)
    async with transaction(harness.sessions) as tx:
        final = await tx.session.scalars(select(Snapshot.number).where(Snapshot.build_id == build_id, Snapshot.final))
        assert final.all() == [1]
        announced = select(func.count()).where(BusinessEvent.build_id == build_id)
        assert await tx.session.scalar(announced) == 1, "with the row, and not only by a later step"


async def test_a_check_that_tests_nothing_is_bounced(harness: ActivityHarness, build: str) -> None:
    finding = await only_finding(harness, build, await product(harness, build, {"check": "true"}))
    assert "`check` (true)" in finding
    assert "does not show that a test was run" in finding


async def test_a_check_that_finds_no_test_is_bounced(harness: ActivityHarness, build: str) -> None:
    finding = await only_finding(harness, build, await product(harness, build, test_page_py=""))
    assert "Ran 0 tests" in finding


async def test_a_failing_check_is_bounced_with_its_output(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, page_html=UNTITLED)
    finding = await only_finding(harness, build, sandbox)
    assert "ended with exit code 1" in finding
    assert "AssertionError: '<title>' not found" in finding


async def test_a_failing_install_is_bounced_at_once(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, {"install": "echo no such package >&2; exit 3", "check": "false"})
    finding = await only_finding(harness, build, sandbox)
    assert "`install`" in finding
    assert "exit code 3" in finding
    assert "no such package" in finding


async def test_a_server_that_answers_500_is_bounced(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await product(harness, build, server_py=SERVER.replace("200 if is_there else 404", "500"))
    # A server may take long to start, so the gate keeps asking whatever the answer.
    monkeypatch.setattr(harness.gate, "_policy", GatePolicy(command_seconds=DEADLINE, start_seconds=8))
    assert "answered with status 500, not 200" in await only_finding(harness, build, sandbox)


async def test_a_server_that_crashes_is_bounced_with_its_log(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, server_py="print('almost', flush=True); raise SystemExit(7)")
    finding = await only_finding(harness, build, sandbox)
    assert "ended with exit code 7" in finding
    assert "\nalmost\nTo satisfy this: " in finding


async def test_a_server_on_another_port_is_bounced(harness: ActivityHarness, build: str) -> None:
    finding = await only_finding(harness, build, await product(harness, build, {"port": 8001}), hasty=True)
    assert "Nothing answered GET / on port 8001" in finding


async def test_a_server_that_the_checks_have_left_does_not_count(harness: ActivityHarness, build: str) -> None:
    check = "(setsid python3 server.py >/dev/null 2>&1 &) ; sleep 0.5; python3 -m unittest"
    finding = await only_finding(
        harness,
        build,
        await product(harness, build, {"check": check, "start": "sleep 100"}),
        hasty=True,
    )
    assert "Nothing answered" in finding


async def test_a_blank_page_is_bounced(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, page_html=f"<!doctype html>{VIEWPORT}<title>Blank</title><body></body>")
    assert "is blank" in await only_finding(harness, build, sandbox)


def page(body: str, title: str = "Rooms") -> str:
    return f"<!doctype html><title>{title}</title>{VIEWPORT}<h1>Rooms</h1>{body}"


TEMPLATE = page(
    "<h1>Vite + React</h1><button>count is 0</button><p>Edit <code>src/App.tsx</code> and save to test HMR</p>"
    "<p>Click on the Vite and React logos to learn more</p>",
    "Vite + React + TS",
)
MORE = page("<img src=/lost.png><a href=/nowhere>No</a><script>throw new Error('on the second page')</script>")


@pytest.mark.parametrize(
    ("files", "kinds"),
    [
        ({"page_html": TEMPLATE}, {"still that of Vite": "Edit src/App.tsx"}),
        (
            {"page_html": page("<script>document.body.innerHTML = 'broken'; throw new Error('no rooms')</script>")},
            {"Scripts of the product's pages fail": "- / (desktop, mobile): Uncaught Error: no rooms"},
        ),
        (
            {"page_html": page("<img src=/lost.png>")},
            {"Images on the product's pages are broken": "- / (desktop, mobile): /lost.png"},
        ),
        (
            {"page_html": page("<a href=/nowhere#top>Prices</a><a href=/logout>Log out</a>")},
            {"lead nowhere": "- / (desktop, mobile): /nowhere ('Prices'): status 404"},
        ),
        (
            {"page_html": page("<table id=wide style='width:600px'><tr><td>1</table>")},
            {"wider than a phone": "218 px wider than the screen: table#wide, 600 px wide"},
        ),
        (
            {
                "page_html": page(
                    "<script src=/lost.js></script><script>fetch('http://localhost:3001/a').catch(() => 0)</script>"
                )
            },
            {"ask for things": "script /lost.js: status 404\n- / (desktop, mobile): fetch http://localhost:3001/a"},
        ),
        (
            {"page_html": page("<a href=/more.html>More</a>"), "more_html": MORE},
            {
                "Scripts of the product's pages fail": "- /more.html (desktop, mobile): Uncaught Error: on the second",
                "Images on the product's pages are broken": "- /more.html (desktop, mobile): /lost.png",
                "lead nowhere": "- /more.html (desktop, mobile): /nowhere ('No'): status 404",
            },
        ),
    ],
    ids=["template", "console", "image", "link", "phone", "request", "linked page"],
)
async def test_a_fault_that_a_visitor_sees_is_bounced(
    harness: ActivityHarness, build: str, files: dict[str, Any], kinds: dict[str, str]
) -> None:
    _, findings = await gate(harness, build, await product(harness, build, **files))
    assert len(findings) == len(kinds), findings
    for finding, (cause, evidence) in zip(findings, kinds.items(), strict=True):
        assert cause in finding
        assert evidence in finding
        assert "To satisfy this: " in finding


async def test_what_only_the_gate_can_not_reach_is_no_fault(harness: ActivityHarness, build: str) -> None:
    body = """
        <link rel=stylesheet href=https://fonts.example/css><img src=https://pictures.example/1.png>
        <script src=https://cdn.example/lib.js></script><script>Lib.start()</script>
        <script>fetch('https://api.example/weather').catch(e => console.error('no weather', e))</script>
        <script>new WebSocket('ws://' + location.host + '/?token=hmr')</script>
        <script>console.error('Warning: a key is missing')</script>
        <a href=https://elsewhere.example/gone>Elsewhere</a><a href=mailto:a@b.example>Mail</a><a href=#x>Here</a>
        <a href=/items/1/delete>Delete</a><a href=/missing.csv download>Download</a>
    """
    _, findings = await gate(harness, build, await product(harness, build, page_html=page(body)))
    assert findings == []


async def test_a_page_that_only_a_browser_gets_is_bounced(harness: ActivityHarness, build: str) -> None:
    status = 'self.send_response(500 if "text/html" in self.headers.get("Accept", "") else 200)'
    server = SERVER.replace("self.send_response(200 if is_there else 404)", status)
    finding = await only_finding(harness, build, await product(harness, build, server_py=server))
    assert "A browser that opened / got status 500, not 200" in finding


async def test_what_works_only_with_an_uncommitted_file_is_bounced(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build)
    await shell(sandbox, "git rm -q --cached page.html; git commit -qm 'Forget the page'")
    _, findings = await gate(harness, build, sandbox, hasty=True)
    assert len(findings) == 3
    assert "?? page.html" in findings[0]
    assert "FileNotFoundError" in findings[1]
    assert "GET /" in findings[2]
    assert await harness.sandboxes.find(build, Role.GATE) == []


@pytest.mark.parametrize("ignored", ["page.html", "build/page.html"])
async def test_what_works_only_with_an_ignored_file_is_bounced(
    harness: ActivityHarness, build: str, ignored: str
) -> None:
    """One ignored file is in the snapshot, another is left out of it."""
    server = SERVER.replace('"page.html"', f'"{ignored}"')
    sandbox = await product(harness, build, server_py=server, test_page_py=TESTS)
    await shell(
        sandbox,
        f"""
        mkdir -p build; [ -e {ignored} ] || cp page.html {ignored}
        git rm -q --cached page.html test_page.py; sed -i 's/page.html/server.py/; s/<title>/import/' test_page.py
        printf '/page.html\n/build/\n' >.gitignore; git add -A; git commit -qm 'Ignore it'
        """,
    )
    assert await shell(sandbox, "git status --porcelain") == ""
    finding = await only_finding(harness, build, sandbox, hasty=True)
    assert "GET /" in finding
    assert "page.html" in finding


async def test_a_file_that_the_index_hides_does_not_count(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, page_html=UNTITLED)
    await shell(
        sandbox,
        f"git update-index --skip-worktree page.html; cat >page.html <<'END'\n{PAGE}\nEND\ngit status --short",
    )
    assert "'<title>' not found" in await only_finding(harness, build, sandbox)


async def test_a_workspace_without_a_commit_is_bounced(harness: ActivityHarness, build: str) -> None:
    sandbox = await harness.open(build)
    await sandbox.write("/home/user/project/cofounder.json", json.dumps(MANIFEST))
    assert "There is no git commit" in await only_finding(harness, build, sandbox)


async def test_a_product_without_its_declaration_is_bounced(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build)
    await shell(sandbox, "git rm -q cofounder.json; git commit -qm 'Forget it'")
    assert "has no cofounder.json" in await only_finding(harness, build, sandbox)


async def test_a_wrong_declaration_is_bounced(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, {"port": 80})
    assert "cofounder.json does not fit: port" in await only_finding(harness, build, sandbox)


async def test_a_declaration_that_would_fill_the_memory_is_bounced(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build)
    await shell(sandbox, "head -c 70000 /dev/zero | tr '\\0' ' ' >>cofounder.json; git commit -qam 'Make it large'")
    assert "larger than" in await only_finding(harness, build, sandbox)


async def test_a_retry_attaches_and_runs_nothing_twice(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt dies while it checks the page; the second continues in the same sandbox."""
    sandbox = await product(harness, build, {"install": "echo ran >>/home/user/installs"})

    async def dies(url: str) -> list[object]:
        raise ConnectionError("the worker died")

    with monkeypatch.context() as patched:
        patched.setattr(harness.browser, "views", dies)
        await harness.take(build, sandbox, 1)
        with pytest.raises(Exception, match="database"):
            await again(harness, build)
    first = (await run_of(harness, build)).sandbox_id
    result, findings = await again(harness, build)
    assert (result.sandbox_id, findings) == (first, [])
    running = await harness.sandboxes.connect(first or "")
    assert await shell(running, "cat /home/user/installs") == "ran\n"


async def test_an_attempt_that_wakes_up_late_disturbs_nothing(
    harness: ActivityHarness, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt hangs while it checks the page, a second passes, then the first continues."""
    sandbox = await product(harness, build)
    await harness.take(build, sandbox, 1)
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def hangs(url: str) -> list[PageView]:
        looked.set()
        await go_on.wait()
        raise PageFailed("it was too late")

    with monkeypatch.context() as patched:
        patched.setattr(harness.browser, "views", hangs)
        late = asyncio.create_task(again(harness, build))
        await looked.wait()
    result, findings = await again(harness, build)
    go_on.set()
    with pytest.raises(ApplicationError) as ended:
        await late
    assert ended.value.type == "StaleClaim"
    assert findings == [] == (await run_of(harness, build)).findings
    assert await harness.sandboxes.find(build, Role.GATE) == [result.sandbox_id]
    assert len(await harness.events(build, "gate_started")) == 1
    assert len(await harness.events(build, "gate_passed")) == 1
    assert await harness.events(build, "gate_bounced") == []


async def test_a_retry_whose_sandbox_is_gone_starts_again(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build)
    first, _ = await gate(harness, build, sandbox)
    await harness.sandboxes.kill(first.sandbox_id or "")
    second, findings = await again(harness, build)
    assert findings == []
    assert second.sandbox_id not in (None, first.sandbox_id)


async def test_a_fixed_product_is_checked_again_after_a_bounce(harness: ActivityHarness, build: str) -> None:
    sandbox = await product(harness, build, page_html=UNTITLED)
    first, findings = await gate(harness, build, sandbox)
    assert first.findings == len(findings) == 1
    await sandbox.write("/home/user/project/page.html", PAGE)
    await shell(sandbox, "git commit -qam 'Fix it'")
    second, findings = await gate(harness, build, sandbox, 2)
    assert (second.findings, findings) == (0, [])


# ---- previews


async def open_preview(harness: ActivityHarness, build: str, sandbox_id: str | None = None) -> OpenedPreview:
    given = PreviewInput(build_id=build, seconds=60, sandbox_id=sandbox_id)
    return await harness.run(harness.preview.open_preview, given)


async def test_a_preview_starts_again_from_the_snapshot(harness: ActivityHarness, build: str) -> None:
    workspace = await product(harness, build)
    await harness.take(build, workspace, 1)
    gone = await harness.sandboxes.create(build, Role.GATE)
    opened = await open_preview(harness, build, gone.id)
    assert opened.sandbox_id not in (gone.id, workspace.id)
    await record(harness, build, 1, "opening")
    assert await open_preview(harness, build) == opened
    await record(harness, build, 2, "open", opened)
    running = await harness.sandboxes.connect(opened.sandbox_id)
    answer = await running.http_get(8000, "/", DEADLINE)
    assert answer is not None
    assert (answer.status, opened.url) == (200, preview_address(PREVIEW_URL, build))
    assert await upstream(harness, build) == running.upstream(8000)
    given = SandboxInput(build_id=build, sandbox_id=opened.sandbox_id)
    await harness.run(harness.preview.keep_preview, given)
    for _ in range(2):
        await harness.run(harness.preview.close_preview, given)
    assert await harness.sandboxes.find(build, Role.PREVIEW) == []
    assert await harness.sandboxes.find(build, Role.GATE) == []
    with pytest.raises(Exception, match="the sandbox does not exist any more"):
        await harness.run(harness.preview.keep_preview, given)


@pytest.mark.parametrize("before", [None, Upstream("http://8000-iold.localhost:1", "of another sandbox")])
async def test_a_preview_that_the_previous_version_has_opened_gets_its_token(
    harness: ActivityHarness, build: str, before: Upstream | None
) -> None:
    """It knows one column for the address, and leaves those for upstream and token as they are."""
    sandbox = await harness.sandboxes.create(build, Role.PREVIEW)
    url = sandbox.upstream(3000).url
    await record(harness, build, 1, "opening")
    if before is not None:
        async with transaction(harness.sessions) as tx:
            await record_upstream(tx, uuid.UUID(build), before)
    await record(harness, build, 2, "open", OpenedPreview(sandbox_id=sandbox.id, url=url))
    assert await upstream(harness, build) == Upstream(url)
    await harness.run(harness.preview.keep_preview, SandboxInput(build_id=build, sandbox_id=sandbox.id))
    assert await upstream(harness, build) == sandbox.upstream(3000)
    await record(harness, build, 3, "closed")
    assert await upstream(harness, build) is None
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Preview, uuid.UUID(build))
    assert (row.upstream_url, row.traffic_token) == (None, None)
    await harness.kill_all(build)


async def record(
    harness: ActivityHarness, build: str, seq: int, state: str, opened: OpenedPreview | None = None
) -> None:
    change = PreviewChange(build_id=build, seq=seq, state=state)
    if opened is not None:
        change = change.model_copy(update=opened.model_dump())
    await harness.run(harness.preview.record_preview, change)


async def upstream(harness: ActivityHarness, build: str) -> Upstream | None:
    async with transaction(harness.sessions) as tx:
        preview = await find_preview(tx, uuid.UUID(build))
        return None if preview is None else upstream_of(preview)


async def test_a_preview_that_does_not_start_says_why(harness: ActivityHarness, build: str) -> None:
    workspace = await product(harness, build, {"start": "echo broken; exit 9"})
    await harness.take(build, workspace, 1)
    with pytest.raises(Exception, match="exit code 9") as failed:
        await open_preview(harness, build)
    assert getattr(failed.value, "type", None) == "BuildFailed"


async def test_an_older_state_of_a_preview_changes_nothing(harness: ActivityHarness, build: str) -> None:
    for seq, state in ((2, "open"), (1, "opening"), (2, "closed"), (3, "closed")):
        given = PreviewChange(build_id=build, seq=seq, state=state)
        await harness.run(harness.preview.record_preview, given)
    assert [event.data["state"] for event in await harness.events(build, "preview")] == ["open", "closed"]
