"""What a build starts with: brief and interview, pinned and rendered once, and the model."""

import uuid

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from temporalio import activity

from activities.runtime.errors import application_errors
from db.feed import append_events
from db.models import Artifact, Build, PlanTier, Prompt, UnderstandingSession, User
from db.session import Sessions
from db.transaction import transaction
from domain.brief import Interview
from domain.build_settings import BuildSettings
from domain.errors import AccountSuspended, BuildFailed, UnknownModel
from domain.events import ModelEvent
from domain.model_choice import CODER, choose_model
from domain.payloads import BuildContext, BuildRef, ResolvedModel
from domain.pricing import PriceTable
from domain.prompt import render_system_prompt
from domain.status import SleepPolicy
from domain.tools import render_tools

_log = structlog.get_logger(__name__)


class ContextActivities:
    """`load_build_context` and `resolve_model`."""

    def __init__(
        self,
        sessions: Sessions,
        prices: PriceTable,
        settings: BuildSettings,
        *,
        fallback_model: str,
        rehearsal_model: bool,
        egress_hosts: list[str] | None,
    ) -> None:
        self._sessions = sessions
        self._prices = prices
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
            build = await tx.session.get_one(Build, build_id)
            plan, cap = (
                await tx.session.execute(
                    select(PlanTier.name, PlanTier.tool_call_cap)
                    .join(User, User.plan == PlanTier.name)
                    .where(User.id == build.user_id)
                )
            ).one()
            settings = self._settings.build_values()
            settings["tool_call_cap"] = settings["tool_call_cap"] or cap
            context = BuildContext(
                project_id=str(build.project_id),
                user_id=build.user_id,
                plan=plan,
                sleep_policy=SleepPolicy(build.sleep_policy),
                max_nights=build.max_nights,
                **settings,
            )
            if await tx.session.get(Prompt, (build_id, 0)) is not None:
                return context
            brief = await tx.session.scalar(
                select(Artifact).where(Artifact.project_id == build.project_id, Artifact.type == "idea_brief")
            )
            if brief is None:
                raise BuildFailed(
                    "This project has no idea brief yet, so there is nothing to build from. Add the brief, then start "
                    "a new build."
                )
            interview = await tx.session.scalar(
                select(UnderstandingSession)
                .where(UnderstandingSession.project_id == build.project_id)
                .order_by(UnderstandingSession.number.desc())
                .limit(1)
            )
            answered = (
                Interview.model_validate({"questions": interview.questions, "answers": interview.answers}).answered()
                if interview
                else []
            )
            build.brief_version = brief.version
            build.session_id = interview.id if interview else None
            system = render_system_prompt(brief.body, answered, build.goal, self._egress_hosts)
            await tx.session.execute(
                insert(Prompt)
                .values(build_id=build_id, prefix=0, system=system, tools=render_tools())
                .on_conflict_do_nothing()
            )
            return context

    @activity.defn
    @application_errors
    async def resolve_model(self, request: BuildRef) -> ResolvedModel:
        """Choose the build's model and write it to the build's row.

        The user's override for the coder comes first, then the plan's default, then the global fallback.

        Raises:
            AccountSuspended: the build fails; the message is for the founder.
            BuildFailed: the model has no price.
        """
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            build = await tx.session.get_one(Build, build_id)
            user, plan = (
                await tx.session.execute(
                    select(User, PlanTier).join(PlanTier, User.plan == PlanTier.name).where(User.id == build.user_id)
                )
            ).one()
            if user.suspended:
                raise AccountSuspended(
                    "Your account is suspended, so this build did not start. Your project is kept. Write to support to "
                    "have the account reopened, then start a new build."
                )
            try:
                model = choose_model(
                    CODER, user.model_overrides, plan.default_models, self._fallback_model, self._prices
                )
            except UnknownModel as error:
                _log.error("a build has no usable model", build_id=str(build_id), error=str(error))
                raise BuildFailed(
                    "This build's model is not available. Your project is kept; the operator has to choose another."
                ) from error
            label = f"rehearsal model (standing in for {model})" if self._rehearsal_model else model
            build.model, build.model_label = model, label
            await append_events(tx, build_id, [ModelEvent(model=model, label=label, plan=plan.name)])
            return ResolvedModel(model=model, label=label)
