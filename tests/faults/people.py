"""What people do while faults strike: founders use the API, operators top up and wake, all of them try again."""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from time import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from db.models import Build, FounderMessage, Project, Snapshot, TopUp
from db.money import top_up
from db.transaction import transaction
from domain.errors import CofounderError
from domain.status import Status, WaitingFor
from tests.faults.fuzz import fuzz_script
from tests.harness.api_process import ApiProcess
from tests.harness.faults import FaultHarness
from tests.harness.planted import PLANTED
from tests.harness.sample_build import sample_script
from tests.harness.worker import WorkerHarness

BUILDS_AT_ONCE = 3
FUZZ_GOAL = "Build with a hostile model, seed"
_SAMPLE = "Build the sample product"
GOAL = f"{_SAMPLE}."
_QUESTION_GOAL = f"{_SAMPLE}, and ask on the way."
_RESTORE_GOAL = f"{_SAMPLE}, and be put back on the way."
_SHARES = {FUZZ_GOAL: 0.2, _QUESTION_GOAL: 0.15, _RESTORE_GOAL: 0.15}
"""Shares of the builds whose model is hostile, gets stuck and asks its founder, and whose workspace is restored."""

_FUZZ_SEEDS = range(1, 501)
"""More than a run starts. Each build with a hostile model has its own, as two of one seed use the same ids of calls."""
_FUZZ_TURNS = 4
_TOP_UP = 1_000_000
"""Microdollars that wake a build that sleeps."""

MISSED = (CofounderError, RPCError, OSError, SQLAlchemyError)
"""Errors that faults cause to people and to the harness itself; they try again."""


def scripts(seed: int) -> list[dict[str, Any]]:
    """The scripts of the builds that people start, for the rehearsal model."""
    fuzz: list[dict[str, Any]] = [
        {"match": f"{FUZZ_GOAL} {each}.", "script": fuzz_script(each + seed, _FUZZ_TURNS)} for each in _FUZZ_SEEDS
    ]
    return [
        {"match": GOAL, "script": sample_script()},
        {"match": _QUESTION_GOAL, "script": sample_script(stuck=True)},
        {"match": _RESTORE_GOAL, "script": sample_script()},
        *fuzz,
    ]


@dataclass(frozen=True)
class Acknowledged:
    """A text that the API has acknowledged, and when, as seconds since 1970."""

    text: str
    at: float = field(default_factory=time)


class People:
    """Founders and operators. Each of their actions is repeated until the API has answered it."""

    def __init__(self, faults: FaultHarness, harness: WorkerHarness, api: ApiProcess, rng: random.Random) -> None:
        self.faults = faults
        self.harness = harness
        self.acknowledged: dict[uuid.UUID, list[Acknowledged]] = {}
        """What each build's founder said or answered, and the API has acknowledged."""
        self.started: dict[uuid.UUID, Acknowledged] = {}
        """The goals of the builds that the API has acknowledged."""
        self.vanished: set[uuid.UUID] = set()
        """Builds that the API has acknowledged in a lost time. They have no row unless Temporal knew of them."""
        self.lost_top_ups: Counter[tuple[str, date]] = Counter()
        """What was added to the day of a user in a lost time, in microdollars."""
        self.restored: set[uuid.UUID] = set()
        """Builds whose founder has asked for a restore: what they deliver depends on when it happens."""
        self.cancelled: set[uuid.UUID] = set()
        self.projects: dict[str, list[uuid.UUID]] = {}
        self.starting = True
        self.done: Counter[str] = Counter()
        """What people have done, as the API has acknowledged it."""
        self._top_ups: dict[str, tuple[str, date, float]] = {}
        self._api = api
        self._rng = rng
        self._numbers = itertools.count(1)
        self._fuzz_seeds = iter(rng.sample(_FUZZ_SEEDS, len(_FUZZ_SEEDS)))

    def goal_of(self, build: Build) -> str:
        """The build's goal, also if its row was lost and written again without it."""
        return self.started[build.id].text if build.id in self.started else build.goal

    def has_own_outcome(self, build: Build) -> bool:
        """Whether the build need not deliver what the sample build does."""
        # The goal of a row that was written again is unknown unless the API has acknowledged the build.
        return not self.goal_of(build).startswith(_SAMPLE) or build.id in self.restored

    # ---- loops

    async def start_builds(self) -> None:
        """Keep a few builds open."""
        while self.starting:
            with suppress(*MISSED):
                if len(await self.open_builds()) < BUILDS_AT_ONCE:
                    await self._start_one()
            await asyncio.sleep(0.5)

    async def act(self, look_at: Callable[[Build], Awaitable[None]]) -> None:
        """Answer builds that ask, wake those that wait for a person, and top up the budget of those that sleep.

        Args:
            look_at: called with each open build before that.
        """
        while True:
            with suppress(*MISSED):
                for build in await self.open_builds():
                    await look_at(build)
                    if build.status == Status.NEEDS_INPUT:
                        await self._help(build)
                    elif build.status == Status.SLEEPING:
                        await self._top_up(build)
            await asyncio.sleep(1)

    async def say_things(self) -> None:
        """Send a message to one of the builds now and then."""
        while self.starting:
            await asyncio.sleep(self._rng.uniform(1, 8))
            with suppress(*MISSED):
                if builds := await self.open_builds():
                    build = self._rng.choice(builds)
                    await self._say(build, "messages", {"text": f"Number {next(self._numbers)}: keep it small."})

    async def restore_things(self) -> None:
        """Have the workspaces of some builds put back to a snapshot, once each."""
        while self.starting:
            await asyncio.sleep(1)
            with suppress(*MISSED):
                for build in await self.open_builds():
                    if build.goal.startswith(_RESTORE_GOAL) and build.id not in self.restored:
                        await self._restore(build)

    # ---- single actions

    async def _start_one(self) -> None:
        user = self._rng.choice(list(self.projects))
        projects = self.projects[user]
        again = projects.pop(0) if len(projects) > BUILDS_AT_ONCE else None
        project = again or await self.harness.project(user)
        projects.append(project)
        await self._set_secret(user, project)
        goal = self._rng.choices([*_SHARES, GOAL], [*_SHARES.values(), 1 - sum(_SHARES.values())])[0]
        if goal == FUZZ_GOAL:
            goal = f"{goal} {next(self._fuzz_seeds)}."
        # The project's last build may still be open: then this is a conflict.
        body = {"goal": f"{goal} [{uuid.uuid4().hex}]"}
        started = await self._api.ask("POST", f"/projects/{project}/builds", user, body)
        if started.is_success:
            self.done["starts"] += 1
            self.started[uuid.UUID(started.json()["id"])] = Acknowledged(body["goal"])

    async def _set_secret(self, user: str, project: uuid.UUID) -> None:
        """Set one of the planted secrets again, as its founder does."""
        name, value = self._rng.choice(list(PLANTED.items()))
        answer = await self._api.ask("PUT", f"/projects/{project}/secrets/{name}", user, {"value": value})
        self.done["secrets"] += answer.is_success

    async def _help(self, build: Build) -> None:
        """Answer the build's question if it has one, otherwise wake it. A build that was put back and can't satisfy the
        gate any more is cancelled."""
        if build.waiting_for == WaitingFor.FOUNDER:
            if build.id in self.restored:
                self.cancelled.add(build.id)
                await self._api.ask("POST", f"/builds/{build.id}/cancel", build.user_id)
                return
            read = await self._api.ask("GET", f"/builds/{build.id}", build.user_id)
            if question := read.json().get("question"):
                answer = {"question_id": question["id"], "text": f"Answer {next(self._numbers)}: another way."}
                await self._say(build, "answer", answer)
                return
        await self._api.ask("POST", f"/builds/{build.id}/wake", build.user_id)

    async def _say(self, build: Build, what: str, body: dict[str, str]) -> None:
        answer = await self._api.ask("POST", f"/builds/{build.id}/{what}", build.user_id, body)
        if answer.is_success:
            self.done["answers" if what == "answer" else what] += 1
            self.acknowledged.setdefault(build.id, []).append(Acknowledged(body["text"]))

    async def _restore(self, build: Build) -> None:
        async with transaction(self.faults.sessions) as tx:
            stored = select(Snapshot.number).where(Snapshot.build_id == build.id, Snapshot.state == "stored")
            number = await tx.session.scalar(stored.order_by(Snapshot.number).limit(1))
        if number is not None:
            self.restored.add(build.id)
            asked = await self._api.ask("POST", f"/builds/{build.id}/restore", build.user_id, {"snapshot": number})
            self.done["restores"] += asked.is_success

    async def _top_up(self, build: Build) -> None:
        today, key = datetime.now(UTC).date(), f"{build.id}-{next(self._numbers)}"
        self._top_ups[key] = build.user_id, today, time()
        async with transaction(self.faults.sessions) as tx:
            await top_up(tx, build.user_id, _TOP_UP, today, key=key)
        await self.harness.builds.signal_budget_changed(build.id)

    # ---- what is there

    async def open_builds(self) -> Sequence[Build]:
        """Read the open builds, the oldest first."""
        async with transaction(self.faults.sessions) as tx:
            query = select(Build).where(Build.closed_at.is_(None)).order_by(Build.created_at)
            return (await tx.session.scalars(query)).all()

    async def forgotten(self, build_id: uuid.UUID) -> list[str]:
        """Name what the API has acknowledged and the database does not have, for one build."""
        async with transaction(self.faults.sessions) as tx:
            rows = select(FounderMessage.text).where(FounderMessage.build_id == build_id)
            stored = set((await tx.session.scalars(rows)).all())
        lost = [each.text for each in self.acknowledged.get(build_id, ()) if each.text not in stored]
        return [f"the API has acknowledged {text!r}, and it is not stored" for text in lost]

    async def forget(self, began: float) -> None:
        """Forget what was acknowledged since `began` (seconds since 1970) and is not in the database, which was put
        back. Call it while no program runs."""
        async with transaction(self.faults.sessions) as tx:
            texts = set((await tx.session.scalars(select(FounderMessage.text))).all())
            builds = set((await tx.session.scalars(select(Build.id))).all())
            keys = set((await tx.session.scalars(select(TopUp.idempotency_key))).all())
            known = set((await tx.session.scalars(select(Project.id))).all())
        for said in self.acknowledged.values():
            said[:] = [each for each in said if each.at < began or each.text in texts]
        self.vanished |= {build_id for build_id, each in self.started.items() if each.at >= began} - builds
        for key, (user, day, at) in self._top_ups.items():
            if at >= began and key not in keys:
                self.lost_top_ups[user, day] += _TOP_UP
        for projects in self.projects.values():
            projects[:] = [project for project in projects if project in known]
