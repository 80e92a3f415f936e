"""A build that is much longer than its model's window goes on as if there were none.

In `make test` it takes 44 turns, in `make long` 400. LONG_WINDOW sets the window.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy import select

from clients.browser import Browser
from db.models import LedgerEntry, Prompt, Turn
from domain.status import Status
from local.stack import LocalStack
from scripts.cache_share import read_share
from tests.harness.history import chain_of, shares_of
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness, changed_prices, worker_harness

TURNS = int(os.environ.get("LONG_TURNS", "44"))
WINDOW = int(os.environ.get("LONG_WINDOW", "60000"))
OUTPUT_BYTES = 8000
LEAST_SHARE = 0.95 if WINDOW >= 200_000 else 0.85
"""Of the input that the cache has, from the fourth turn of each prefix on."""


async def test_a_build_goes_on_beyond_its_models_window(stack: LocalStack, browser: Browser, bodies: Path) -> None:
    settings: dict[str, Any] = {
        "tool_call_cap": 10_000,
        "continue_as_new_turns": 150,
        "model_prices": changed_prices(context_tokens=WINDOW),
    }
    async with worker_harness(stack, browser, **settings) as harness:
        script = {"kind": "long", "turns": TURNS, "output_bytes": OUTPUT_BYTES, "commit_every": 10, "end": "product"}
        goal = f"Take {TURNS} turns."
        await harness.rehearse("limits", {"match": goal, "window_tokens": WINDOW})
        build_id = await harness.start(goal=goal, script=script)
        row = await harness.finished(build_id, seconds=DEADLINE + 5 * TURNS)
        assert row.status == Status.READY, row.reason
        requests = await _requests(harness, build_id, bodies)
        await _check_ledger(harness, build_id)
        chain = await chain_of(harness.client, str(build_id))
        async with harness.session() as tx:
            prefixes = (await tx.session.scalars(select(Prompt).where(Prompt.build_id == build_id))).all()
            turns = (await tx.session.scalars(select(Turn).where(Turn.build_id == build_id))).all()

    assert len(prefixes) - 1 >= TURNS * 2000 // WINDOW
    assert all("compaction" in (each.opening or "compaction") for each in prefixes), "no floor was needed"
    of_turns = [body for body in requests if b'"compaction":{' not in body[:400] and b'"format":{' not in body[:400]]
    assert len(of_turns) == len(turns)
    for number in {turn.prefix for turn in turns}:
        own = [of_turns[turn.number - 1] for turn in turns if turn.prefix == number]
        own.sort(key=len)
        assert all(_goes_on(*pair) for pair in itertools.pairwise(own))
    share_read = read_share([json.loads(body) for body in requests if b'"format":{' not in body[:400]])
    print(f"{len(turns)} turns, window {WINDOW}: {len(prefixes)} prefixes, {share_read:.1%} of the input was cached")  # noqa: T201
    assert share_read >= LEAST_SHARE
    shares = [share for events in chain for share in shares_of(events)][: TURNS - len(chain)]
    half = len(shares) // 2
    first, second = (sum(share.bytes for share in part) / half for part in (shares[:half], shares[half : 2 * half]))
    assert abs(second - first) < 0.1 * first


async def _requests(harness: WorkerHarness, build_id: Any, bodies: Path) -> list[bytes]:
    """The build's requests in the order in which they were served."""
    async with harness.session() as tx:
        entries = await tx.session.scalars(
            select(LedgerEntry).where(LedgerEntry.build_id == build_id).order_by(LedgerEntry.opened_at)
        )
        ids = [entry.request_id for entry in entries if entry.request_id]
    files = {path.stem: path for path in sorted(bodies.glob("*.json"))}  # noqa: ASYNC240
    return [next(path for stem, path in files.items() if each in stem).read_bytes() for each in ids]


async def _check_ledger(harness: WorkerHarness, build_id: Any) -> None:
    async with harness.session() as tx:
        entries = (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build_id))).all()
    served = {line["request_id"]: line for line in await harness.served()}
    assert {entry.kind for entry in entries} == {"turn", "compaction", "judge"}
    for entry in entries:
        usage = served[entry.request_id]["usage"]
        assert entry.state == "settled"
        assert (entry.input_tokens, entry.cache_read_tokens, entry.cache_write_5m_tokens, entry.output_tokens) == (
            *(usage[name] for name in ("input", "cache_read", "cache_write_5m", "output")),
        )


def _goes_on(before: bytes, after: bytes) -> bool:
    first, second = (body[body.index(b'"system":') :] for body in (before, after))
    return second.startswith(first.removesuffix(b"]}"))
