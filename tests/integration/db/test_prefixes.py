"""The migration that adds prefixes: running builds keep what was sent, and plans get room for real builds."""

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.seed import PLAN_TIERS
from local.stack import LocalStack
from tests.harness.empty_database import empty_database, migrate_to

PLANS = """
    insert into plan_tiers (name, default_models, concurrent_builds, tool_call_cap)
    values ('bootstrapper', '{}', 1, 150), ('partner', '{}', 1, 301), ('cto_scale', '{}', 1, 600), ('own', '{}', 1, 150)
"""
PROJECT = "insert into projects (id, user_id, name) values (:project, 'ada', 'A product')"
BUILD = """
    insert into builds (id, project_id, user_id, goal, body_hash, model, closed_at, status)
    values (:build, :project, 'ada', 'Build.', '', :model, now(), 'ready')
"""
PROMPT = "insert into prompts (build_id, system, tools) values (:build, '[]', '[]')"


@pytest.fixture
async def engine(stack: LocalStack) -> AsyncIterator[AsyncEngine]:
    async with empty_database(stack) as made:
        yield made


async def test_rows_of_earlier_versions_are_migrated(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate_to(engine, "0006")
    builds = {"claude-opus-5-5": uuid.uuid4(), "that-does-not-think": uuid.uuid4()}
    async with engine.begin() as connection:
        await connection.execute(text(PLANS))
        await connection.execute(text("insert into users (id, plan) values ('ada', 'own')"))
        for model, build in builds.items():
            row = {"project": uuid.uuid4(), "build": build, "model": model}
            await connection.execute(text(PROJECT), row)
            await connection.execute(text(BUILD), row)
            await connection.execute(text(PROMPT), row)
    monkeypatch.setenv("MODEL_PRICES", '{"that-does-not-think": {"adaptive_thinking": false}}')
    await migrate_to(engine, "0008")
    async with engine.begin() as connection:
        caps = {name: cap for name, cap in await connection.execute(text("select name, tool_call_cap from plan_tiers"))}
        prompts = await connection.execute(text("select build_id, settings, betas, covers, wants_plan from prompts"))
        stored = {build: tuple(rest) for build, *rest in prompts}
    seeded = {tier["name"]: tier["tool_call_cap"] for tier in PLAN_TIERS}
    assert seeded["bootstrapper"] >= 600
    assert caps == {**seeded, "partner": 301, "own": 150}, "an operator's cap stays"
    thinking = '"thinking":{"type":"adaptive","display":"summarized"},'
    assert stored == {
        builds["claude-opus-5-5"]: (thinking, "", 0, False),
        builds["that-does-not-think"]: ("", "", 0, False),
    }
