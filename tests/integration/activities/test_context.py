"""What a build begins with, asked for again after a reset."""

import uuid

from sqlalchemy import select

from activities.context import ContextActivities
from activities.turn.budget import CallBudget
from clients.model.anthropic import AnthropicProvider
from db.models import Event
from db.transaction import transaction
from domain.payloads import BuildRef, CheckBudget
from local.stack import LocalStack
from settings import Settings
from tests.harness.activities import open_activity_harness


async def test_the_feed_names_the_model_once(stack: LocalStack) -> None:
    settings, provider = Settings(), AnthropicProvider("a-key", "http://127.0.0.1:1", 1)
    async with open_activity_harness(stack) as harness:
        context = ContextActivities(
            harness.sessions,
            settings.model_prices,
            {"anthropic": provider},
            settings,
            fallback_model="claude-sonnet-5-5",
            rehearsal_model=False,
            egress_hosts=[],
            budget=CallBudget(settings.model_prices, settings.max_output_tokens, autonomous_agent=True),
        )
        build = await harness.build()
        request = CheckBudget(build_id=build)
        prepared = [await harness.run(context.prepare_build, request) for _ in range(2)]
        # As the builds do that began before there was `prepare_build`.
        earlier = await harness.run(context.load_build_context, BuildRef(build_id=build))
        model = await harness.run(context.resolve_model, BuildRef(build_id=build))
        async with transaction(harness.sessions) as tx:
            named = select(Event.data).where(Event.build_id == uuid.UUID(build), Event.type == "model")
            events = list(await tx.session.scalars(named))
    await provider.close()
    assert [each.context for each in prepared] == [earlier, earlier]
    assert [each.budget.exhausted for each in prepared] == [False, False]
    assert [each["model"] for each in events] == [model.model]
