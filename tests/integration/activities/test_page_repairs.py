"""An agent that reads nothing but the gate's findings repairs what a visitor would miss, and the product passes."""

import base64
import re
from collections.abc import AsyncIterator, Callable

import pytest

from clients.sandbox import Sandbox
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness, shell
from tests.harness.products import VIEWPORT, gate, product

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

PAGE = f"""<!doctype html><title>Rooms</title>{VIEWPORT}<h1>Rooms</h1>
<p>Get started by editing app/page.tsx.</p>
<img src="/lost.png"><a href="/prices.html">Prices</a><table id="wide" style="width:600px"><tr><td>1</table>
<script src="/lost.js"></script>
<script>throw new Error('no rooms')</script>
"""


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


def group(pattern: str, text: str) -> str:
    """Find what the agent needs to know in a finding."""
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


def without(page: str, part: str) -> str:
    assert part in page
    return page.replace(part, "")


def repaired(finding: str, page: str, files: dict[str, bytes]) -> str:
    """Do what one finding asks for: change the page, or add a file. Only the finding's text says what."""
    repairs: dict[str, Callable[[], str]] = {
        "The first page is still that of": lambda: without(page, group(r"(Get started by editing \S+)", finding)),
        "Scripts of the product's pages fail": lambda: without(
            page, f"throw new Error('{group(r'Uncaught Error: (.+)', finding)}')"
        ),
        "scroll horizontally": lambda: without(page, f"width:{group(r'table#wide, (.+) px wide', finding)}px"),
    }
    added = {
        "ask for things that they do not get": (r"script /(\S+):", b"console.log('here')"),
        "Images on the product's pages are broken": (r": /(\S+\.png)", PIXEL),
        "lead nowhere": (r": /(\S+) \('Prices'\)", f"<title>Prices</title>{VIEWPORT}<h1>Prices</h1>".encode()),
    }
    for cause, repair in repairs.items():
        if cause in finding:
            return repair()
    [(pattern, content)] = [what for cause, what in added.items() if cause in finding]
    files[group(pattern, finding)] = content
    return page


async def write_files(sandbox: Sandbox, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        await shell(sandbox, f"base64 -d >{name} <<<{base64.b64encode(content).decode()}")
    await shell(sandbox, "git add -A; git commit -qm 'Do what the gate asks for'")


async def test_findings_alone_are_enough_to_repair_a_page(harness: ActivityHarness) -> None:
    build = await harness.build()
    sandbox = await product(harness, build, page_html=PAGE)
    _, findings = await gate(harness, build, sandbox)
    assert len(findings) == 6, findings
    page, files = PAGE, dict[str, bytes]()
    for finding in findings:
        assert "\nTo satisfy this: " in finding
        page = repaired(finding, page, files)
    await write_files(sandbox, files | {"page.html": page.encode()})
    _, findings = await gate(harness, build, sandbox, 2)
    assert findings == []
    await harness.kill_all(build)
