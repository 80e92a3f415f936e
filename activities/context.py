"""What a build starts with: brief and interview, pinned and rendered once, and the model."""

import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from temporalio import activity

from activities.runtime.errors import application_errors
from clients.model.protocol import Providers
from db.builds import load_build, pin_inputs, record_model
from db.events import last_event_data
from db.feed import append_events
from db.formats import may_write
from db.models import Build
from db.projects import find_brief, find_interview
from db.prompts import FirstSettings, find_prompt, store_prompt
from db.session import Sessions
from db.transaction import Transaction, transaction
from db.users import load_tool_call_cap, load_user_with_plan
from domain.brief import Interview
from domain.build_settings import BuildSettings
from domain.errors import AccountSuspended, BuildFailed, UnknownModel
from domain.events import ModelEvent
from domain.formats import SYSTEM_NOTICES
from domain.model_choice import CODER, choose_model, label_of
from domain.payloads import BuildContext, BuildRef, ChangedSettings, ResolvedModel
from domain.pricing import PriceTable
from domain.prompt import render_system_prompt
from domain.status import SleepPolicy
from domain.tools import render_tools

_log = structlog.get_logger(__name__)


async def context_of(
    tx: Transaction, build: Build, settings: BuildSettings, changes: Mapping[str, Any] | None = None
) -> BuildContext:
    """The context of a build that starts now with these settings, and with its prompt if that is stored."""
    plan, cap = await load_tool_call_cap(tx, build.user_id)
    values = settings.build_values()
    values["tool_call_cap"] = values["tool_call_cap"] or cap
    values |= changes or {}
    stored = await find_prompt(tx, build.id)
    return BuildContext(
        project_id=str(build.project_id),
        user_id=build.user_id,
        plan=plan,
        sleep_policy=SleepPolicy(build.sleep_policy),
        max_nights=build.max_nights,
        wants_plan=stored is None or stored.wants_plan,
        **values,
    )


class ContextActivities:
    """`load_build_context` and `resolve_model`."""

    def __init__(
        self,
        sessions: Sessions,
        prices: PriceTable,
        providers: Providers,
        settings: BuildSettings,
        *,
        fallback_model: str,
        rehearsal_model: bool,
        egress_hosts: list[str] | None,
    ) -> None:
        self._sessions = sessions
        self._prices = prices
        self._providers = providers
        self._settings = settings
        self._fallback_model = fallback_model
        self._rehearsal_model = rehearsal_model
        self._egress_hosts = egress_hosts

    @activity.defn
    @application_errors
    async def load_build_context(self, request: BuildRef) -> BuildContext:
        """Read the brief and the latest interview, pin their versions and store the rendered prompt.

        Raises:
            BuildFailed: the project has no brief; the message is for the founder.
        """
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, build_id)
            context = await context_of(tx, build, self._settings, await self._changes(tx, build))
            if await find_prompt(tx, build_id) is not None:
                return context
            brief = await find_brief(tx, build.project_id)
            if brief is None:
                raise BuildFailed(
                    "This project has no idea brief yet, so there is nothing to build from. Add the brief, then start "
                    "a new build."
                )
            interview = await find_interview(tx, build.project_id)
            answered = (
                Interview.model_validate({"questions": interview.questions, "answers": interview.answers}).answered()
                if interview
                else []
            )
            await pin_inputs(tx, build, brief, interview)
            system = render_system_prompt(brief.body, answered, build.goal, self._egress_hosts)
            await store_prompt(tx, build_id, system, render_tools(), await self._choose(tx, build))
            return context

    @activity.defn
    @application_errors
    async def load_changed_settings(self, request: BuildRef) -> ChangedSettings:
        """Read what an operator has changed for the build since it began."""
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, uuid.UUID(request.build_id))
            return ChangedSettings(version=build.settings_version, **await self._changes(tx, build))

    async def _changes(self, tx: Transaction, build: Build) -> dict[str, Any]:
        """The settings that were changed for the build. One that this version does not know is left out."""
        changes = {name: value for name, value in build.settings.items() if name in BuildSettings.model_fields}
        if "tool_call_cap" in changes and changes["tool_call_cap"] is None:
            _, changes["tool_call_cap"] = await load_tool_call_cap(tx, build.user_id)
        return changes

    async def _choose(self, tx: Transaction, build: Build) -> FirstSettings | None:
        """Choose the build's model, write it to the build's row, and freeze how it answers. None if there is none.

        The prompt is stored once, so this is decided before `resolve_model`, which says what is wrong.
        """
        user, plan = await load_user_with_plan(tx, build.user_id)
        try:
            choice = choose_model(CODER, user.model_overrides, plan.default_models, self._fallback_model, self._prices)
        except UnknownModel:
            return None
        price = self._prices[choice.model]
        frozen = self._providers[price.provider].freeze(price, choice)
        await record_model(tx, build, choice.model, label_of(choice.model, rehearsal=self._rehearsal_model))
        models = (choice.model, *choice.fallbacks)
        system_notices = all(self._prices[model].system_notices for model in models) and await may_write(
            tx, "conversation", SYSTEM_NOTICES
        )
        return FirstSettings(frozen.settings, frozen.betas, choice.fallbacks, system_notices)

    @activity.defn
    @application_errors
    async def resolve_model(self, request: BuildRef) -> ResolvedModel:
        """Announce the build's model.

        The user's override for the coder comes first, then the plan's default, then the global fallback. A build whose
        prompt is stored already has its model: its requests say what that model takes.

        Raises:
            AccountSuspended: the build fails; the message is for the founder.
            BuildFailed: the model has no price.
        """
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, build_id)
            user, plan = await load_user_with_plan(tx, build.user_id)
            if user.suspended:
                raise AccountSuspended(
                    "Your account is suspended, so this build did not start. Your project is kept. Write to support to "
                    "have the account reopened, then start a new build."
                )
            try:
                model = build.model if build.model in self._prices else None
                model = (
                    model
                    or choose_model(
                        CODER, user.model_overrides, plan.default_models, self._fallback_model, self._prices
                    ).model
                )
            except UnknownModel as error:
                _log.error("a build has no usable model", build_id=str(build_id), error=error)
                raise BuildFailed(
                    "This build's model is not available. Your project is kept; the operator has to choose another."
                ) from error
            label = label_of(model, rehearsal=self._rehearsal_model)
            await record_model(tx, build, model, label)
            announced = await last_event_data(tx, build_id, ModelEvent.type)
            if announced is None or announced["model"] != model:  # the feed says it once, also after a reset
                await append_events(tx, build_id, [ModelEvent(model=model, label=label, plan=plan.name)])
            return ResolvedModel(model=model, label=label)
