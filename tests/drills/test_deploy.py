"""Deployments while builds run."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from sqlalchemy import select, update

from clients.browser import Browser
from db.models import LedgerEntry, StoredFormat, ToolCall
from domain.status import Status
from local.stack import LocalStack
from settings import Settings
from tests.harness.scripts import HOLD, PRODUCT, SMALL, bash, hold, steps
from tests.harness.worker import WorkerHarness, idle_harness, worker_harness
from tests.harness.worker_process import ROOT, worker_process
from tests.workflows.scenarios import ready_build, release_command

SLOW_CALL_SECONDS = 25
"""Longer than the heartbeat timeout of a call, and than the ten seconds that all else gets."""


async def _ledger(harness: WorkerHarness, build_id: uuid.UUID) -> list[tuple[int, str]]:
    async with harness.session() as tx:
        turns = LedgerEntry.build_id == build_id, LedgerEntry.kind == "turn"
        calls = select(LedgerEntry).where(*turns).order_by(LedgerEntry.opened_at)
        return [(call.turn, call.state) for call in (await tx.session.scalars(calls)).all()]


async def test_stopped_worker_ends_its_model_call(stack: LocalStack, figure: Callable[[str], None]) -> None:
    """D20: SIGTERM to a worker in a model call of 25 s and in a tool call.

    The worker takes no more work. The model call is served, paid and stored once; the tool call delays nothing.
    """
    default = str(int(Settings.model_fields["graceful_shutdown_seconds"].default))
    slow = {"kind": "stall", "seconds": SLOW_CALL_SECONDS}
    async with idle_harness(stack) as harness:
        async with worker_process(harness, stack, GRACEFUL_SHUTDOWN_SECONDS=default) as first:
            await first.until("worker started")
            in_tool = await harness.start(script=steps([bash(HOLD, 300)], [bash(PRODUCT)]))
            await harness.until_event(in_tool, "tool_started")
            in_call = await harness.start(script=SMALL, faults=[slow])
            await harness.until_event(in_call, "turn_started")
            began = monotonic()
            assert await first.stop() == 0
            stopped_after = monotonic() - began
        assert stopped_after > SLOW_CALL_SECONDS / 2, "the call was over before the signal"
        assert await _ledger(harness, in_call) == [(1, "settled")]
        turns = await harness.events(in_call, "turn_answered")
        assert len(turns) == 1, "the answer was not stored"
        async with worker_process(harness, stack) as second:
            await second.until("worker started")
            await release_command(harness, in_tool)
            for build_id in (in_call, in_tool):
                assert (await harness.finished(build_id)).status == Status.READY
            assert await second.stop() == 0
        ledgers = await _ledger(harness, in_call) + await _ledger(harness, in_tool)
        assert {state for _, state in ledgers} == {"settled"}
        assert len(set(await _ledger(harness, in_call))) == len(await _ledger(harness, in_call)), (
            "a turn was paid twice"
        )
    paid = sum(map(len, ledgers))
    figure(f"the worker ended after {stopped_after:.0f} s; each of {paid} calls paid once, none estimated")


async def test_worker_refuses_what_it_cannot_read(stack: LocalStack, figure: Callable[[str], None]) -> None:
    """D11: a later version's format appears in the database while a worker of this version has a build.

    The worker stops with a sentence, a second one does not start, and the build is not failed: it goes on later.
    """
    async with idle_harness(stack) as harness:
        async with worker_process(harness, stack) as first:
            await first.until("worker started")
            build_id = await harness.start(script=steps([bash(HOLD, 300)], [bash(PRODUCT)]))
            await harness.until_event(build_id, "tool_started")
            await _write_conversations(harness, 99)
            try:
                began = monotonic()
                problem = await first.until("this program can't read what is stored")
                assert await first.exit_code() == 1
                stopped_after = monotonic() - began
                assert "Start the version of Cofounder" in problem["reason"]
                async with worker_process(harness, stack) as second:
                    assert await second.exit_code() == 1
                assert second.last_words.startswith("worker: This program is too old for its database")
                row = await harness.row(build_id)
                assert (row.closed_at, row.waiting_for) == (None, None)
            finally:
                await _write_conversations(harness, 1)
        async with worker_process(harness, stack) as third:
            await third.until("worker started")
            await release_command(harness, build_id)
            assert (await harness.finished(build_id)).status == Status.READY
            assert await third.stop() == 0
    figure(f"the worker stopped itself after {stopped_after:.0f} s, the next refused to start, the build became ready")


async def _write_conversations(harness: WorkerHarness, version: int) -> None:
    async with harness.session() as tx:
        changed = update(StoredFormat).where(StoredFormat.name == "conversation")
        await tx.session.execute(changed.values(written=version, readable_from=version))


COFOUNDER = str(Path(sys.executable).parent / "cofounder")

_SHORT_LIFE_SECONDS = 3


async def test_frozen_setting_is_changed(stack: LocalStack, browser: Browser, figure: Callable[[str], None]) -> None:
    """D19: `cofounder settings BUILD SANDBOX_MAX_SECONDS=86400` for a build that began with 3, without a signal.

    Its sandbox was replaced before each call. It learns of the change at its next turn, and keeps its sandbox.
    """
    slow = [[bash(f"sleep {_SHORT_LIFE_SECONDS} # {number}")] for number in range(6)]
    async with worker_harness(stack, browser, sandbox_max_seconds=_SHORT_LIFE_SECONDS) as harness:
        build_id = await harness.start(script=steps(*slow[:3], [hold()], *slow[3:], [bash(PRODUCT)]))
        await harness.until_event(build_id, "tool_started", turn=4)
        process = await asyncio.create_subprocess_exec(
            *(COFOUNDER, "settings", str(build_id), "SANDBOX_MAX_SECONDS=86400", "--json"),
            cwd=ROOT,
            env={**os.environ, **stack.environment, "TEMPORAL_ADDRESS": "127.0.0.1:1"},  # the signal is lost
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert json.loads(printed)["notified"] == 0
        await release_command(harness, build_id)
        await ready_build(harness, build_id)
        async with harness.session() as tx:
            calls = select(ToolCall.sandbox_id).where(ToolCall.build_id == build_id).order_by(ToolCall.turn)
            sandboxes = list((await tx.session.scalars(calls)).all())
    before, after = len(set(sandboxes[:4])), len(set(sandboxes[5:]))
    figure(f"{before} sandboxes in the 4 turns before, {after} in the {len(sandboxes) - 5} turns after the next one")
    assert before > 2
    assert after == 1
