"""What a build starts with: brief and interview, pinned and rendered once, and the model."""

import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from temporalio import activity

from activities.runtime.attempt import attempt_day
from activities.runtime.errors import application_errors
from activities.turn.budget import CallBudget
from clients.model.protocol import Providers
from db.builds import load_build, pin_inputs, record_model
from db.events import last_event_data
from db.feed import append_events
from db.formats import may_write
from db.models import Build, PlanTier, Prompt, User
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
from domain.payloads import BuildContext, BuildRef, ChangedSettings, CheckBudget, PreparedBuild, ResolvedModel
from domain.pricing import PriceTable
from domain.prompt import render_system_prompt
from domain.status import SleepPolicy
from domain.tools import render_tools

_log = structlog.get_logger(__name__)


async def context_of(tx: Transaction, build: Build, settings: BuildSettings, stored: Prompt | None) -> BuildContext:
    """The context of a build that starts now with these settings, and with its prompt if that is stored."""
    plan, cap = await load_tool_call_cap(tx, build.user_id)
    return _context(build, settings, plan, cap, stored)


def _context(
    build: Build,
    settings: BuildSettings,
    plan: str,
    cap: int,
    stored: Prompt | None,
    changes: Mapping[str, Any] | None = None,
) -> BuildContext:
    values = settings.build_values()
    values["tool_call_cap"] = values["tool_call_cap"] or cap
    values |= changes or {}
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
    """`prepare_build`, and its parts for builds that began earlier; `load_changed_settings`."""

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
        budget: CallBudget,
    ) -> None:
        self._sessions = sessions
        self._prices = prices
        self._providers = providers
        self._settings = settings
        self._fallback_model = fallback_model
        self._rehearsal_model = rehearsal_model
        self._egress_hosts = egress_hosts
        self._budget = budget

    @activity.defn
    @application_errors
    async def prepare_build(self, request: CheckBudget) -> PreparedBuild:
        """Read and pin what the build starts with, announce its model, and check whether its budget lets it start.

        Raises:
            AccountSuspended, BuildFailed: as `load_build_context` and `resolve_model` do.
        """
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, uuid.UUID(request.build_id))
            user, plan = await load_user_with_plan(tx, build.user_id)
            context = await self._start_context(tx, build, user, plan)
            await self._announce(tx, build, user, plan)
        # In a transaction of its own: a call locks the account's day before the build's row.
        async with transaction(self._sessions) as tx:
            budget = await self._budget.check(tx, request, attempt_day())
        return PreparedBuild(context=context, budget=budget)

    @activity.defn
    @application_errors
    async def load_build_context(self, request: BuildRef) -> BuildContext:
        """Read the brief and the latest interview, pin their versions and store the rendered prompt.

        Builds that began before the patch `begins` use it; later ones use `prepare_build`.

        Raises:
            BuildFailed: the project has no brief; the message is for the founder.
        """
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, uuid.UUID(request.build_id))
            return await self._start_context(tx, build, *await load_user_with_plan(tx, build.user_id))

    async def _start_context(self, tx: Transaction, build: Build, user: User, plan: PlanTier) -> BuildContext:
        stored = await find_prompt(tx, build.id)
        changes = self._changes(build, plan)
        context = _context(build, self._settings, plan.name, plan.tool_call_cap, stored, changes)
        if stored is not None:
            return context
        brief = await find_brief(tx, build.project_id)
        if brief is None:
            raise BuildFailed(
                "This project has no idea brief yet, so there is nothing to build from. Add the brief, then start a "
                "new build."
            )
        interview = await find_interview(tx, build.project_id)
        answered = (
            Interview.model_validate({"questions": interview.questions, "answers": interview.answers}).answered()
            if interview
            else []
        )
        await pin_inputs(tx, build, brief, interview)
        system = render_system_prompt(brief.body, answered, build.goal, self._egress_hosts)
        await store_prompt(tx, build.id, system, render_tools(), await self._choose(tx, build, user, plan))
        return context

    @activity.defn
    @application_errors
    async def load_changed_settings(self, request: BuildRef) -> ChangedSettings:
        """Read what an operator has changed for the build since it began."""
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, uuid.UUID(request.build_id))
            _, plan = await load_user_with_plan(tx, build.user_id)
            return ChangedSettings(version=build.settings_version, **self._changes(build, plan))

    def _changes(self, build: Build, plan: PlanTier) -> dict[str, Any]:
        """The settings that were changed for the build. One that this version does not know is left out."""
        changes = {name: value for name, value in build.settings.items() if name in BuildSettings.model_fields}
        if "tool_call_cap" in changes and changes["tool_call_cap"] is None:
            changes["tool_call_cap"] = plan.tool_call_cap
        return changes

    async def _choose(self, tx: Transaction, build: Build, user: User, plan: PlanTier) -> FirstSettings | None:
        """Choose the build's model, write it to the build's row, and freeze how it answers. None if there is none.

        The prompt is stored once, so this is decided before `resolve_model`, which says what is wrong.
        """
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
        async with transaction(self._sessions) as tx:
            build = await load_build(tx, uuid.UUID(request.build_id))
            return await self._announce(tx, build, *await load_user_with_plan(tx, build.user_id))

    async def _announce(self, tx: Transaction, build: Build, user: User, plan: PlanTier) -> ResolvedModel:
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
            _log.error("a build has no usable model", build_id=str(build.id), error=error)
            raise BuildFailed(
                "This build's model is not available. Your project is kept; the operator has to choose another."
            ) from error
        label = label_of(model, rehearsal=self._rehearsal_model)
        await record_model(tx, build, model, label)
        announced = await last_event_data(tx, build.id, ModelEvent.type)
        if announced is None or announced["model"] != model:  # the feed says it once, also after a reset
            await append_events(tx, build.id, [ModelEvent(model=model, label=label, plan=plan.name)])
        return ResolvedModel(model=model, label=label)
