"""The page for usage with real calls in the ledger, and the meter of today's allowance."""

import csv
import io
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Locator, expect
from sqlalchemy import delete, func

from db.models import LedgerEntry, UserDay
from db.transaction import transaction
from tests.harness.console import Console
from tests.harness.feeds import build_row

_MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", '=HYPERLINK("https://evil.example/","go")')
"""The last one is what a ledger could have of a provider that an attacker controls."""


def _tokens(usage: dict[str, Any]) -> tuple[int, int, int]:
    """What went in at full price or into the cache, what came from the cache, and what came out."""
    written = usage["cache_write_5m_tokens"] + usage["cache_write_1h_tokens"]
    return usage["input_tokens"] + written, usage["cache_read_tokens"], usage["output_tokens"]


def _numbers(usage: dict[str, Any]) -> list[str]:
    """The cells of a row: its calls and tokens."""
    return [f"{value:,}" for value in (usage["calls"], *_tokens(usage))]


async def _cells(table: Locator) -> list[list[str]]:
    """The rows of a table's body: of each cell its exact number, if it has one, else its text."""
    found = await table.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.title || cell.innerText.trim()))"
    )
    return [list(row) for row in found]


async def _spend(console: Console, today: date) -> None:
    """Calls of two builds on three of the last days, of which one has an allowance that is known."""
    builds = [await build_row(console.api.sessions, console.user) for _ in range(2)]
    async with transaction(console.api.sessions) as tx:
        for turn in range(40):
            numbers = {"input_tokens": 900 * turn, "cache_write_5m_tokens": 70, "cache_write_1h_tokens": 5 * turn}
            numbers |= {"cache_read_tokens": 12_000 * (turn % 7), "output_tokens": 300 + turn, "cost": 1_000 * turn}
            entry = LedgerEntry(
                **{"id": uuid.uuid4(), "build_id": builds[turn % 2], "user_id": console.user, "turn": turn},
                **{"day": today - timedelta(days=(0, 3, 9)[turn % 3]), "model": _MODELS[turn % 3 - turn % 2]},
                **{"state": "settled", "closed_at": func.now()},
                **numbers,
            )
            tx.session.add(entry)
        await tx.session.execute(delete(UserDay).where(UserDay.user_id == console.user))
        tx.session.add(UserDay(user_id=console.user, day=today - timedelta(days=3), from_plan=2_000_000))


async def test_usage_is_what_the_ledger_says_in_tables_bars_and_file(console: Console) -> None:
    page = console.page
    today = datetime.now(UTC).date()
    await _spend(console, today)
    days = {"from": str(today - timedelta(days=29)), "to": str(today)}
    told = (await console.api.http.get("/v1/usage", params=days, headers=console.headers)).json()
    assert len(told["days"]) >= 5
    assert {each["model"] for each in told["days"]} == set(_MODELS)

    await console.open("/usage")
    await page.get_by_label("From").fill(days["from"])
    await page.get_by_label("To", exact=True).fill(days["to"])
    await page.get_by_role("button", name="Show").click()
    by_day = page.get_by_role("table", name="Tokens of each UTC day and model")
    await expect(by_day).to_be_visible()
    shown = await _cells(by_day)
    assert [row[1:6] for row in shown] == [[each["model"], *_numbers(each)] for each in reversed(told["days"])]
    shares = ["\u2013" if each["percent"] is None else f"{each['percent']} %" for each in reversed(told["days"])]
    assert [row[6] for row in shown] == shares
    assert len(set(shares)) > 1
    by_build = await _cells(page.get_by_role("table", name="Tokens of each build"))
    assert [row[1:] for row in by_build] == [[each["build_id"][:8], *_numbers(each)] for each in told["builds"]]
    assert await page.get_by_role("columnheader", name="Cost").count() == 0  # money is for operators

    # Both tables, the bars and the file have the same sums.
    whole = [sum(column) for column in zip(*(_tokens(each) for each in told["days"]), strict=True)]
    assert whole == [sum(column) for column in zip(*(_tokens(each) for each in told["builds"]), strict=True)]
    sums: Counter[str] = Counter()
    for each in told["days"]:
        sums[each["day"]] += sum(_tokens(each))
    heights = await page.locator("[title*=' tokens'] > span").evaluate_all(
        "bars => bars.map(bar => parseFloat(bar.style.blockSize))"
    )
    first = today - timedelta(days=29)
    wanted = [sums[str(first + timedelta(days=at))] / max(sums.values()) * 100 for at in range(30)]
    assert heights == pytest.approx(wanted, abs=0.01)
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Download as CSV").click()
    download = await downloading.value
    assert download.suggested_filename == f"cofounder-usage-{days['from']}-to-{days['to']}.csv"
    rows = list(csv.DictReader(io.StringIO((await download.path()).read_bytes().decode())))
    assert [(row["day"], row["model"].removeprefix("'")) for row in rows] == [
        (each["day"], each["model"]) for each in told["days"]
    ]
    columns = ("input_tokens", "cache_read_tokens", "output_tokens")
    assert [sum(int(row[name]) for row in rows) for name in columns] == whole
    assert sum(int(row["all_tokens"]) for row in rows) == sum(sums.values())
    assert not any(cell[:1] in ("=", "+", "-", "@", "\t", "\r") for row in rows for cell in row.values())


@pytest.mark.web
async def test_the_meter_says_how_much_is_used_up(console: Console) -> None:
    page = console.page
    await build_row(console.api.sessions, console.user)
    today = datetime.now(UTC).date()
    values = [
        ({"spent": 0}, 0, ""),
        ({"spent": 400}, 40, ""),
        ({"spent": 600}, 60, ""),
        ({"spent": 610}, 61, ", getting low"),
        ({"spent": 850}, 85, ", getting low"),
        ({"spent": 910}, 91, ", nearly used up"),
        ({"spent": 1_000}, 100, ", used up"),
        ({"spent": 1_100}, 110, ", used up"),
        ({"spent": 13_700}, 1_370, ", used up"),
        ({"spent": 0, "reserved": 250}, 25, ""),
        ({"spent": 500, "reserved": 450}, 95, ", nearly used up"),
    ]
    for money, percent, level in values:
        await _allow(console, today, from_plan=1_000, **money)
        await console.open("/usage")
        meter = page.get_by_role("main").get_by_role("meter", name="Today's allowance")
        said = f"{percent} % of today's allowance{level}"
        await expect(meter).to_have_attribute("aria-valuetext", said)
        await expect(meter).to_have_attribute("aria-valuenow", str(min(percent, 110)))
        await expect(page.get_by_role("main").get_by_text(said, exact=True)).to_be_visible()
        await expect(page.get_by_role("banner").get_by_text(f"{percent} %", exact=True)).to_be_visible()
        widths = "meter => [meter, meter.firstElementChild].map(each => each.getBoundingClientRect().width)"
        track, fill = await meter.evaluate(widths)
        assert fill / track == pytest.approx(min(percent, 110) / 110, abs=0.02)

    await _allow(console, today, from_plan=None, spent=5_000_000)
    await console.open("/usage")
    await expect(page.get_by_role("main").get_by_text("No daily limit")).to_be_visible()
    await expect(page.get_by_role("banner").get_by_text("No daily limit")).to_be_visible()
    await expect(page.get_by_role("meter")).to_have_count(0)


async def _allow(console: Console, day: date, *, from_plan: int | None, spent: int = 0, reserved: int = 0) -> None:
    """Give the founder this allowance in microdollars, a call that cost `spent`, and one that may cost `reserved`."""
    async with transaction(console.api.sessions) as tx:
        await tx.session.execute(delete(LedgerEntry).where(LedgerEntry.user_id == console.user))
        await tx.session.execute(delete(UserDay).where(UserDay.user_id == console.user))
        tx.session.add(UserDay(user_id=console.user, day=day, from_plan=from_plan))
        await tx.session.flush()
        for state, cost in (("settled", spent), ("open", reserved)):
            entry = LedgerEntry(id=uuid.uuid4(), user_id=console.user, turn=1, day=day, model=_MODELS[0])
            entry.state, entry.cost, entry.closed_at = state, cost, None if state == "open" else datetime.now(UTC)
            tx.session.add(entry)
