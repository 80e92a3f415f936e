"""The bodies of the API's requests and responses. Money is in microdollars, times are UTC."""

import json
import uuid
from dataclasses import asdict
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Secret,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from api import examples
from db.builds import CostedBuild
from db.models import (
    Artifact,
    AuditEntry,
    Build,
    FounderMessage,
    Membership,
    Preview,
    PreviewLink,
    Project,
    ProjectSecret,
    Restore,
    Snapshot,
    UnderstandingSession,
)
from db.organisations import OwnOrganisation
from db.steering import AnsweredQuestion
from db.usage import Sums, UsageOfBuild, UsageOfDay
from domain.brief import (
    BRIEF_MAX_BYTES,
    GOAL_MAX_CHARACTERS,
    INTERVIEW_MAX_BYTES,
    MAX_DEPTH,
    MESSAGE_MAX_CHARACTERS,
    NOT_BLANK,
    IdeaBrief,
    Interview,
    Name,
    Question,
    find_unstorable,
    is_too_deep,
)
from domain.budget import BudgetState, Level, next_utc_midnight
from domain.build_options import BuildOptions
from domain.errors import InvalidBrief, InvalidInput
from domain.identity import Role
from domain.judge import Judgement
from domain.model_choice import ModelChoice
from domain.product_secrets import MAX_VALUE_BYTES
from domain.push import BRANCH_MAX_CHARACTERS, DEFAULT_USERNAME, TOKEN_MAX_CHARACTERS, URL_MAX_CHARACTERS
from domain.redaction import SHORTEST
from domain.screenshots import Screenshot, ScreenshotKind
from domain.status import Dependency, Status, WaitingFor
from services.accounts import MAX_TOP_UP, Account
from services.preview_access import LINK_HOURS, LONGEST_LINK_HOURS
from services.push import Pushed


class Body(BaseModel):
    """A request's body. An unknown field is an error, so that a typing mistake shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, body: Any) -> Any:
        # Not a ValueError, so pydantic lets it pass, and the problem can name the inner field.
        if isinstance(body, dict) and (deep := next((name for name in body if is_too_deep(body[name])), None)):
            raise InvalidInput(f"{deep} is nested more than {MAX_DEPTH} levels deep. Flatten it.", deep)
        if where := find_unstorable(body):
            raise InvalidInput(f"{where} has a NUL character or a lone surrogate. Remove it.", where)
        return body


class _KeptVerbatim:
    """Validates a JSON object with the model, but keeps it as it was sent."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(body: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
            validate(body)
            return body

        return core_schema.no_info_wrap_validator_function(check, handler.generate_schema(self._model))


def _brief_fits(brief: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(brief, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        raise InvalidBrief(
            "The idea brief has a number that JSON does not have (NaN or Infinity). Remove it.", "brief"
        ) from None
    if size > BRIEF_MAX_BYTES:
        raise InvalidBrief(f"The idea brief is larger than {BRIEF_MAX_BYTES // 1024} KB. Shorten it.", "brief")
    return brief


def _interview_fits(interview: Interview) -> Interview:
    if len(interview.model_dump_json().encode()) > INTERVIEW_MAX_BYTES:
        raise InvalidInput(f"The interview is larger than {INTERVIEW_MAX_BYTES // 1024} KB. Shorten it.", "interview")
    return interview


Brief = Annotated[dict[str, Any], _KeptVerbatim(IdeaBrief), AfterValidator(_brief_fits)]
UnderstandingSessionIn = Annotated[Interview, AfterValidator(_interview_fits)]


class NewProject(Body):
    """A project to create."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"brief": examples.BRIEF, "interview": examples.INTERVIEW}]}
    )

    name: Name | None = Field(default=None, description="The project's name; by default the brief's.")
    brief: Brief | None = Field(
        default=None, description="The idea brief. Further fields are kept and shown to the agent verbatim."
    )
    interview: UnderstandingSessionIn | None = Field(
        default=None, description="The understanding session: questions, and answers by question id."
    )
    organisation_id: uuid.UUID | None = Field(
        default=None, description="The organisation that owns it; by default your personal one."
    )


class ProjectChange(Body):
    """Changes to a project. A field that is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Pantry Pal"}, {"archived": True}]})

    name: Name | None = None
    archived: bool | None = Field(
        default=None,
        description="Whether it is left out of the list of projects, and not built. It keeps all that it has.",
    )


class ProjectOrganisation(Body):
    """The organisation to which a project is moved."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"organisation_id": examples.ORGANISATION["id"]}]})

    organisation_id: uuid.UUID


class NewOrganisation(Body):
    """An organisation to create, or its new name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Pantry Pal Ltd"}]})

    name: Name


class NewRole(Body):
    """A member's role."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "member"}]})

    role: Role = Field(
        description="owner: changes members, and all that a member may; member: changes projects and builds, and pays "
        "for the builds that they start; viewer: reads."
    )


ReadVersion = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**31 - 1,
        description="The version that this one replaces, 0 if there was none; 409 if someone has changed it since. "
        "Without it, the current version is replaced.",
    ),
]


class NewBrief(Body):
    """An idea brief that replaces the previous one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"brief": examples.BRIEF, "version": 1}]})

    brief: Brief
    version: ReadVersion = None


class NewInterview(Body):
    """An understanding session that replaces the previous one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"interview": examples.INTERVIEW, "version": 1}]})

    interview: UnderstandingSessionIn
    version: ReadVersion = None


class NewSecret(Body):
    """The value of a secret. It is never read back."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"value": "a key of the payment service"}]})

    value: SecretStr = Field(
        description=f"At least {SHORTEST} characters, at most {MAX_VALUE_BYTES // 1024} KB; stored encrypted."
    )


class StartFrom(Body):
    """The snapshot with which a new build begins."""

    build_id: uuid.UUID = Field(description="A build of the same project that has ended, ready or not.")
    snapshot: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="One of its snapshots; by default its final one, or else its last.",
    )


class StartOut(BaseModel):
    """The snapshot with which a build began."""

    build_id: uuid.UUID
    snapshot: int
    version: int | None = Field(description="The version that its build made; null if that was never ready.")

    @classmethod
    def of(cls, row: Build, version: int | None) -> Self | None:
        """From the build's row; None if it names none."""
        if row.start_build_id is None or row.start_snapshot is None:
            return None
        return cls(build_id=row.start_build_id, snapshot=row.start_snapshot, version=version)


class NewBuild(BuildOptions, Body):
    """A build to start."""

    model_config = ConfigDict(json_schema_extra={"examples": [*examples.NEW_BUILDS]})

    goal: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=GOAL_MAX_CHARACTERS, pattern=NOT_BLANK),
    ] = Field(description="What this build should do; it is the build plan.")
    start_from: StartFrom | None = Field(
        default=None,
        description="Begin with an earlier workspace, for example to roll back: what the build makes is a new version. "
        "By default with the project's newest version; the first build begins with an empty workspace.",
    )


MessageText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MESSAGE_MAX_CHARACTERS, pattern=NOT_BLANK)
]


class NewMessage(Body):
    """A message to the agent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Please leave the login out for now."}]})

    text: MessageText = Field(description="What the agent should know or do.")


class NewAnswer(Body):
    """An answer to a question: one of its options, or the founder's own words."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"question_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "option": 1}]}
    )

    question_id: uuid.UUID = Field(
        description="The `id` of the build's `question`, or of one of its `agent_questions`."
    )
    option: int | None = Field(default=None, ge=1, le=6, description="Which of the options, counted from 1.")
    text: MessageText | None = Field(default=None, description="An answer of your own, instead of an option.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.option is None) == (self.text is None):
            raise ValueError("give either `option` or `text`")
        return self


class NewRestore(Body):
    """The target of a restore: a kept snapshot, or a commit that ended a phase."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"snapshot": 3}, {"commit": "4f9d2ac1"}]})

    snapshot: int | None = Field(default=None, ge=1, le=2**31 - 1, description="A snapshot's number.")
    commit: Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{7,40}$")] | None = Field(
        default=None, description="A commit of this build, or at least its first seven digits."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.snapshot is None) == (self.commit is None):
            raise ValueError("give either `snapshot` or `commit`")
        return self


GitToken = Annotated[str, StringConstraints(min_length=1, max_length=TOKEN_MAX_CHARACTERS, pattern="^[!-~]+$")]


class NewPush(Body):
    """A git repository to push a build's code to."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_PUSH]}, hide_input_in_errors=True)

    url: str = Field(
        min_length=1,
        max_length=URL_MAX_CHARACTERS,
        description="The repository's https:// URL, without user, password or token.",
    )
    token: Secret[GitToken] = Field(
        description="A token of the git server that may write to the repository. It is used for this push and stored "
        "nowhere.",
        json_schema_extra={"format": "password", "writeOnly": True},
    )
    username: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern="^[!-9;-~]+$")] = Field(
        default=DEFAULT_USERNAME, description="What the server wants beside the token; most take anything."
    )
    branch: Annotated[str, StringConstraints(min_length=1, max_length=BRANCH_MAX_CHARACTERS)] | None = Field(
        default=None, description="The branch to push to; by default the one that the workspace is on."
    )
    snapshot: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="A snapshot's number; by default the current one."
    )


class PushOut(BaseModel):
    """A push that the git server has taken."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PUSH]})

    repository: str = Field(description="The server's name and the repository's path.")
    branch: str
    commit: str = Field(description="The commit that the branch is at now.")
    snapshot: int = Field(description="The snapshot that it is from.")
    is_new: bool = Field(description="False if the branch was at this commit already.")

    @classmethod
    def of(cls, pushed: Pushed) -> Self:
        """The push as the API shows it."""
        return cls(**asdict(pushed))


class PreviewWish(Body):
    """How long a preview should stay open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seconds": 3600}]})

    seconds: int | None = Field(
        default=None, ge=60, le=86_400, description="From now; by default the setting of the API."
    )
    restart: bool = Field(
        default=False, description="Start the product again from the snapshot, for example with secrets set since."
    )


ProjectStatus = Annotated[str, Field(description="draft; mvp_built once a build was ready.")]
LastVersion = Annotated[int, Field(description="Of the last ready build; 0 before the first.")]


class ProjectOut(BaseModel):
    """A project."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WHOLE_PROJECT]})

    id: uuid.UUID
    organisation_id: uuid.UUID
    name: str
    status: ProjectStatus
    last_build_version: LastVersion
    brief: dict[str, Any] | None
    brief_version: int | None
    interview: Interview | None
    interview_version: int | None
    created_at: datetime
    archived_at: datetime | None

    @classmethod
    def of(cls, project: Project, brief: Artifact | None, session: UnderstandingSession | None) -> Self:
        """The project with its documents."""
        return cls(
            id=project.id,
            organisation_id=project.org_id,
            name=project.name,
            status=project.status,
            last_build_version=project.last_build_version,
            brief=None if brief is None else brief.body,
            brief_version=None if brief is None else brief.version,
            interview=None if session is None else Interview(questions=session.questions, answers=session.answers),
            interview_version=None if session is None else session.number,
            created_at=project.created_at,
            archived_at=project.archived_at,
        )


_OnlyOperators = Annotated[int | None, Field(description="In microdollars, for operators; null for founders.")]

NextCursor = Annotated[str | None, Field(description="`cursor` of the next page; null on the last page.")]


class OrganisationOut(BaseModel):
    """An organisation that you are a member of."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ORGANISATION]})

    id: uuid.UUID
    name: str
    is_personal: bool = Field(description="Whether it is your own, which has no other members.")
    role: Role = Field(description="Your role.")
    created_at: datetime

    @classmethod
    def of(cls, own: OwnOrganisation) -> Self:
        """The organisation as a member sees it."""
        row = own.organisation
        return cls(
            id=row.id,
            name=row.name,
            is_personal=row.personal_of is not None,
            role=own.role,
            created_at=row.created_at,
        )


class OrganisationList(BaseModel):
    """Your organisations: the personal one, then the others, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"organisations": [examples.ORGANISATION]}]})

    organisations: list[OrganisationOut]


class MemberOut(BaseModel):
    """A member of an organisation."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MEMBER]})

    user: str
    role: Role
    since: datetime

    @classmethod
    def of(cls, row: Membership) -> Self:
        """The member of the row."""
        return cls(user=row.user_id, role=Role(row.role), since=row.created_at)


class MemberList(BaseModel):
    """An organisation's members, oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"members": [examples.MEMBER]}]})

    members: list[MemberOut]


class ChangedMemberOut(MemberOut):
    """A member after a change."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MEMBER | {"cancelled_builds": []}]})

    cancelled_builds: list[uuid.UUID] = Field(
        description="Open builds that the member has started and that end now, because viewers can't steer builds."
    )


class RemovedMemberOut(BaseModel):
    """A user who is not a member any more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "ada", "cancelled_builds": []}]})

    user: str
    cancelled_builds: list[uuid.UUID] = Field(
        description="Open builds that they have started in the organisation's projects and that end now. Their "
        "workspaces are kept as snapshots."
    )


class BriefOut(BaseModel):
    """A project's idea brief."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STORED_BRIEF]})

    brief: dict[str, Any]
    version: int
    updated_at: datetime


class InterviewOut(BaseModel):
    """A project's latest understanding session."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.STORED_INTERVIEW]})

    interview: Interview
    version: int
    updated_at: datetime


class InterviewQuestions(BaseModel):
    """The questions of an interview."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.INTERVIEW_QUESTIONS]})

    questions: list[Question]


class QuestionOut(BaseModel):
    """A question to the founder: from a build whose agent is stuck, or from an agent that goes on meanwhile."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.QUESTION]})

    id: uuid.UUID
    problem: str
    tried: list[str] = Field(description="What the agent tried, in order.")
    options: list[str] = Field(description="Answers to choose from, counted from 1.")
    default: str | None = Field(
        description="The option with which the agent goes on until you answer; null: the build waits for the answer."
    )
    asked_at: datetime
    answer: str | None
    answered_at: datetime | None

    @classmethod
    def of(cls, answered: AnsweredQuestion) -> Self:
        """The question with its answer."""
        question, answer = answered.question, answered.answer
        return cls(
            id=question.id,
            problem=question.problem,
            tried=question.tried,
            options=question.options,
            default=question.default_option,
            asked_at=question.asked_at,
            answer=None if answer is None else answer.text,
            answered_at=None if answer is None else answer.created_at,
        )


class BudgetOut(BaseModel):
    """How much of today's allowance is used, all builds of the user together. Amounts are in microdollars.

    A build's budget is that of the user who started it and pays for it; other members see its share as well.
    """

    percent: int | None = Field(description="Reserved money included; null for an unlimited plan.")
    level: Level = Field(description="green up to 60 %, yellow up to 90 %, red above.")
    refreshes_at: datetime = Field(description="When the next day's allowance begins.")
    allowance: _OnlyOperators
    spent: _OnlyOperators
    reserved: _OnlyOperators

    @classmethod
    def of(cls, state: BudgetState, now: datetime, *, operator: bool) -> Self:
        """The budget as a founder or an operator sees it."""
        return cls(
            percent=state.percent,
            level=state.level,
            refreshes_at=next_utc_midnight(now),
            allowance=state.allowance if operator else None,
            spent=state.spent if operator else None,
            reserved=state.reserved if operator else None,
        )


class AuditEntryOut(BaseModel):
    """An act of an operator, or one that destroyed something or gave a right."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.AUDIT_ENTRY]})

    id: int
    at: datetime
    actor: str = Field(description="A user's id, or `operator`.")
    how: str = Field(description="By what the request was identified; `cli` is a command on the database itself.")
    credential_id: str | None = Field(
        description="The id of the API key or the sign-in; of a command, the name of the operating system's user."
    )
    action: str
    user_id: str | None = Field(description="The user whom it concerns.")
    org_id: uuid.UUID | None
    project_id: uuid.UUID | None
    build_id: uuid.UUID | None
    fields: dict[str, Any] = Field(description="Further ids and numbers; under `changed` names of fields.")
    request_id: str | None = Field(description="The `X-Request-Id` of the response.")
    ip: str | None

    @classmethod
    def of(cls, row: AuditEntry) -> Self:
        """From the row."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class AuditList(BaseModel):
    """A page of the audit."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"entries": [examples.AUDIT_ENTRY], "next_cursor": 41}]})

    entries: list[AuditEntryOut]
    next_cursor: int | None = Field(description="The cursor of the next page; null on the last one.")


class AccountOut(BaseModel):
    """A user's account."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ACCOUNT]})

    user: str
    plan: str
    models: dict[str, str] = Field(description="The user's own models, by role; other roles use the plan's.")
    choices: dict[str, ModelChoice] = Field(description="The same, with effort and fallback models.")
    suspended: bool
    renewal_day: int = Field(description="Day of the month on which a billing cycle begins.")
    budget: BudgetOut
    topped_up: _OnlyOperators
    open_builds: list[uuid.UUID]

    @classmethod
    def of(cls, account: Account, now: datetime, *, operator: bool) -> Self:
        """The account as a founder or an operator sees it."""
        choices = {role: ModelChoice.parse(model) for role, model in account.user.model_overrides.items()}
        return cls(
            user=account.user.id,
            plan=account.user.plan,
            models={role: choice.model for role, choice in choices.items()},
            choices=choices,
            suspended=account.user.suspended,
            renewal_day=account.user.renewal_day,
            budget=BudgetOut.of(account.budget, now, operator=operator),
            topped_up=account.topped_up if operator else None,
            open_builds=account.open_builds,
        )


class AccountChange(Body):
    """Changes to an account. A field that is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"plan": "partner", "renewal_day": 15}]})

    plan: str | None = None
    models: dict[str, str | ModelChoice | None] | None = Field(
        default=None,
        description="A model by role, such as `coder`: its name, or an object with effort and fallback models; null "
        "removes it.",
    )
    suspended: bool | None = Field(default=None, description="Whether new builds are refused and open ones stopped.")
    renewal_day: int | None = Field(default=None, ge=1, le=31)

    def model_choices(self) -> dict[str, Any]:
        """The models as JSON."""
        return self.model_dump(mode="json", include={"models"})["models"] or {}


class NewTopUp(Body):
    """Money to add to what a user may spend today."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"amount": 2_500_000, "note": "For the demo on Friday."}]}
    )

    amount: int = Field(gt=0, le=MAX_TOP_UP, strict=True, description="In microdollars.")
    note: str | None = Field(default=None, max_length=1000, description="The reason; stored with the top-up.")


class _BuildIdentity(BaseModel):
    id: uuid.UUID
    project_id: uuid.UUID
    goal: str


class JudgementOut(BaseModel):
    """How the last evidence gate's judge has judged the product, a model that compares it with the brief."""

    gate: int = Field(description="The number of the gate's run.")
    model: str = Field(description="Empty if none was called.")
    findings: list[str] = Field(description="What was asked for and the product lacks or fakes.")
    returned: bool = Field(description="Whether the findings went back to the agent; if not, the product passed so.")
    not_judged: str | None = Field(description="Why the product was not judged; null if it was.")

    @classmethod
    def of(cls, gate: int, judgement: Judgement) -> Self:
        """The judgement of the gate's row."""
        return cls(
            gate=gate,
            model=judgement.model,
            findings=judgement.texts,
            returned=judgement.returned,
            not_judged=judgement.not_judged,
        )


Narration = Annotated[
    str | None, Field(description="The last sentence that its agent has said; null once it has ended, and before.")
]
QueuePlace = Annotated[
    int | None,
    Field(
        description="Its place among the builds that wait until their user may run another, from 1; null if it does "
        "not wait for that."
    ),
]


class BuildOut(BuildOptions, _BuildIdentity):
    """A build."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [examples.BUILD]})

    project_name: str
    started_by: str = Field(description="The user who started it, and whose allowance pays for it.")
    started_from: StartOut | None = Field(description="What it began with; null: an empty workspace.")
    status: Status
    waiting_for: WaitingFor | None = Field(description="Who can end `needs_input`.")
    dependency: Dependency | None = Field(
        description="What a `waiting` build waits for. It continues by itself, and needs no one."
    )
    reason: str | None = Field(description="Why it sleeps, waits or failed.")
    question: QuestionOut | None = Field(description="Its question to the founder, while it waits for the answer.")
    agent_questions: list[QuestionOut] = Field(
        description="What its agent has asked without waiting, oldest first, until it is answered or the build ends."
    )
    wakes_at: datetime | None = Field(description="When it wakes by itself.")
    model: str | None
    model_label: str | None = Field(description="The model's name as shown to people.")
    cost_microdollars: _OnlyOperators
    judge_cost_microdollars: _OnlyOperators
    judgement: JudgementOut | None = Field(description="Null until a gate has come to its judge.")
    budget: BudgetOut
    phases_completed: int
    turn: int = Field(description="The number of its last turn; 0 before the first.")
    narration: Narration
    queue_place: QueuePlace
    sandbox_hours: float = Field(description="Hours that a sandbox has run for it today (UTC), previews aside.")
    sandbox_id: str | None
    preview_url: str | None
    build_version: int | None = Field(description="The project's version that it made, once it is ready.")
    workspace_path: str | None = Field(description="The workspace's path in a sandbox.")
    last_event_id: int = Field(description="The last event of its feed when this was read.")
    settings: dict[str, int | None] = Field(description="What an operator has changed for it since it began, by name.")
    created_at: datetime
    started_at: datetime | None
    cancel_requested_at: datetime | None
    closed_at: datetime | None

    @classmethod
    def of(
        cls,
        costed: CostedBuild,
        budget: BudgetOut,
        *,
        operator: bool,
        narration: str | None = None,
        queue_place: int | None = None,
    ) -> Self:
        """The build with its user's budget; with its cost for operators."""
        row = costed.build
        others = {
            "cost_microdollars": costed.cost if operator else None,
            "judge_cost_microdollars": costed.judge_cost if operator else None,
            "judgement": None if costed.judgement is None else JudgementOut.of(*costed.judgement),
            "budget": budget,
            "started_by": row.user_id,
            "started_from": StartOut.of(row, costed.start_version),
            "project_name": costed.project_name,
            "turn": costed.turn,
            "narration": narration,
            "queue_place": queue_place,
            "sandbox_hours": round(costed.sandbox_seconds / 3600, 2),
            "question": None if costed.question is None else QuestionOut.of(costed.question),
            "agent_questions": [QuestionOut.of(AnsweredQuestion(asked, None)) for asked in costed.agent_questions],
        }
        columns = {name: getattr(row, name) for name in cls.model_fields if name not in others}
        return cls.model_validate(columns | others)


class BuildList(BaseModel):
    """Builds, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"builds": [examples.BUILD], "next_cursor": None}]})

    builds: list[BuildOut]
    next_cursor: NextCursor


class MessageOut(BaseModel):
    """A message to the agent."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MESSAGE]})

    build_id: uuid.UUID
    number: int = Field(description="Messages are read in this order.")
    text: str
    created_at: datetime
    read_at: datetime | None = Field(description="When a turn read it; null until then.")
    turn: int | None = Field(description="The turn that read it.")
    withdrawn_at: datetime | None = Field(description="When it was taken back; the agent never reads it.")
    question_id: uuid.UUID | None = Field(description="The question that it answers.")

    @classmethod
    def of(cls, message: FounderMessage) -> Self:
        """The message of the row."""
        withdrawn_at = message.withdrawn_at
        return cls(
            build_id=message.build_id,
            number=message.number,
            text=message.text,
            created_at=message.created_at,
            read_at=message.read_at if withdrawn_at is None else None,
            turn=message.turn if withdrawn_at is None else None,
            withdrawn_at=withdrawn_at,
            question_id=message.question_id,
        )


class MessageList(BaseModel):
    """A build's messages, in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"messages": [examples.MESSAGE]}]})

    messages: list[MessageOut]


class RestoreOut(BaseModel):
    """A restore of the workspace, and its outcome. Repeat the request to read it again."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RESTORE]})

    build_id: uuid.UUID
    number: int
    snapshot: int | None
    commit: str | None
    state: str = Field(description="requested, done or failed.")
    error: str | None = Field(description="Why it failed; the workspace was not changed.")
    kept_as: int | None = Field(description="The snapshot of the workspace before it.")
    stored_as: int | None = Field(description="The snapshot of the workspace after it.")
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, restore: Restore) -> Self:
        """The restore of the row."""
        values = {name: getattr(restore, name) for name in cls.model_fields if name != "snapshot"}
        return cls(**values, snapshot=restore.snapshot_number)


class PreviewOut(BaseModel):
    """A ready build's running product. `open` until `expires_at`, and longer on request."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PREVIEW]})

    build_id: uuid.UUID
    state: str = Field(description="opening, open, closed or failed.")
    url: str | None
    expires_at: datetime | None
    reason: str | None = Field(description="Why it failed, was closed early, or still waits.")
    log: str | None = Field(description="What the product's last start has printed, without its secrets.")

    @classmethod
    def of(cls, preview: Preview) -> Self:
        """The preview of the row."""
        return cls(
            build_id=preview.build_id,
            state=preview.state,
            url=preview.url,
            expires_at=preview.expires_at,
            reason=preview.reason,
            log=preview.log,
        )


class NewPreviewLink(Body):
    """How long a preview link works."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"hours": 48}]})

    hours: int = Field(default=LINK_HOURS, ge=1, le=LONGEST_LINK_HOURS, description="From now.")


class PreviewLinkOut(BaseModel):
    """A link with which anyone can see a build's preview, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PREVIEW_LINK]})

    id: uuid.UUID
    created_by: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, link: PreviewLink) -> Self:
        """The link of the row."""
        return cls(id=link.id, created_by=link.created_by, created_at=link.created_at, expires_at=link.expires_at)


class NewPreviewLinkOut(PreviewLinkOut):
    """A link that was just made."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_PREVIEW_LINK]})

    url: str = Field(description="The link itself. It is shown only now.")


class PreviewLinkList(BaseModel):
    """A build's preview links that work, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"links": [examples.PREVIEW_LINK]}]})

    links: list[PreviewLinkOut]


class SecretOut(BaseModel):
    """A secret of a product, without its value."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PRODUCT_SECRET]})

    name: str = Field(description="The environment variable from which the product reads it.")
    set_at: datetime

    @classmethod
    def of(cls, secret: ProjectSecret) -> Self:
        """The secret of the row."""
        return cls(name=secret.name, set_at=secret.set_at)


class SecretList(BaseModel):
    """A project's secrets, by name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"secrets": [examples.PRODUCT_SECRET]}]})

    secrets: list[SecretOut]


class SnapshotOut(BaseModel):
    """A verified archive of the workspace."""

    number: int
    reason: str = Field(description="Why it was taken, such as phase, gate or sleep.")
    final: bool = Field(description="Whether it is a ready build's last one, which is kept.")
    kept: bool = Field(description="Whether it is the last one of a git history that the agent has overwritten since.")
    bytes: int | None
    sha256: str | None
    files: int | None
    commit: str | None
    stored_at: datetime | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The snapshot of the row."""
        return cls(
            number=snapshot.number,
            reason=snapshot.reason,
            final=snapshot.final,
            kept=snapshot.kept,
            bytes=snapshot.archive_bytes,
            sha256=snapshot.archive_sha256,
            files=snapshot.files,
            commit=snapshot.commit,
            stored_at=snapshot.stored_at,
        )


class SnapshotList(BaseModel):
    """A build's snapshots, the current one first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"snapshots": [examples.SNAPSHOT]}]})

    snapshots: list[SnapshotOut]


class Viewport(StrEnum):
    """The sizes of screenshots."""

    DESKTOP = "desktop"
    MOBILE = "mobile"


class ScreenshotOut(BaseModel):
    """A picture of the product, and its path in this API."""

    id: str
    kind: ScreenshotKind = Field(description="gate: an evidence gate has taken it; agent: the agent, to look at it.")
    viewport: Viewport
    path: str = Field(description="Of the picture, a WebP. What is there never changes.")
    taken_at: datetime
    width: int | None = Field(description="In CSS pixels; null if it is not known.")
    height: int | None
    gate: int | None = Field(description="The number of the gate's run.")
    turn: int | None = Field(description="The agent's turn.")
    tool_use_id: str | None = Field(description="The agent's tool call.")
    kept: bool | None = Field(
        description="Whether the picture can still be had; null if the object store does not answer now."
    )

    @classmethod
    def of(cls, build_id: uuid.UUID, screenshot: Screenshot, kept: bool | None) -> Self:
        """The screenshot as the API shows it."""
        return cls(
            id=screenshot.id,
            kind=screenshot.kind,
            viewport=Viewport(screenshot.viewport),
            path=f"/v1/builds/{build_id}/screenshots/{screenshot.id}",
            taken_at=screenshot.taken_at,
            width=screenshot.width,
            height=screenshot.height,
            gate=screenshot.gate,
            turn=screenshot.turn,
            tool_use_id=screenshot.tool_use_id,
            kept=kept,
        )


class ScreenshotList(BaseModel):
    """Screenshots of a build, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SCREENSHOTS]})

    screenshots: list[ScreenshotOut]
    next_before: str | None = Field(description="`before` of the next page; null on the last page.")


class Usage(BaseModel):
    """Finished and running model calls, with their tokens and cost."""

    calls: int
    input_tokens: int = Field(description="Not cached.")
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_microdollars: _OnlyOperators
    judge_calls: int = Field(description="Of the calls, those that judged a product in the evidence gate.")
    judge_cost_microdollars: _OnlyOperators

    @staticmethod
    def values(sums: Sums, *, operator: bool) -> dict[str, int | None]:
        """The sums by field, as a founder or an operator sees them."""
        values: dict[str, int | None] = asdict(sums)
        costs = {f"{name}_microdollars": values.pop(name) for name in ("cost", "judge_cost")}
        return values | (costs if operator else dict.fromkeys(costs))


class DayUsage(Usage):
    """One UTC day's calls of one model."""

    day: date
    model: str
    percent: int | None = Field(
        description="Share of the day's allowance that these calls have used; null for an unlimited plan, and for a "
        "day whose allowance is not known any more."
    )

    @classmethod
    def of(cls, usage: UsageOfDay, allowance: int | None, *, operator: bool) -> Self:
        """The day's sums of the ledger. `allowance`: the day's, in µ$, if it is known and there is one."""
        percent = usage.sums.cost * 100 // allowance if allowance else None
        fields = {"day": usage.day, "model": usage.model, "percent": percent}
        return cls.model_validate(fields | cls.values(usage.sums, operator=operator))


class BuildUsage(Usage):
    """One build's calls in the requested days."""

    build_id: uuid.UUID
    project_id: uuid.UUID
    project_name: str

    @classmethod
    def of(cls, usage: UsageOfBuild, *, operator: bool) -> Self:
        """The build's sums of the ledger."""
        ids = {"build_id": usage.build_id, "project_id": usage.project_id, "project_name": usage.project_name}
        return cls.model_validate(ids | cls.values(usage.sums, operator=operator))


class UsageOut(BaseModel):
    """Tokens and cost of a user's model calls. `days` and `builds` have the same total."""

    model_config = ConfigDict(serialize_by_alias=True, json_schema_extra={"examples": [examples.USAGE]})

    from_day: date = Field(serialization_alias="from")
    to_day: date = Field(serialization_alias="to")
    cost_microdollars: _OnlyOperators
    days: list[DayUsage] = Field(description="By day, then model.")
    builds: list[BuildUsage] = Field(description="The newest build first.")


class ServerState(BaseModel):
    """Whether a server behind the API answers."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Whether the servers behind the API answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.READINESS]})

    ready: bool = Field(description="Whether the database answers; nothing works without it.")
    degraded: bool = Field(
        default=False, description="Temporal does not answer: builds can be read, but neither started nor changed."
    )
    dependencies: dict[str, ServerState]


class Live(BaseModel):
    """The process runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = "ok"


class ProblemOut(BaseModel):
    """A problem (RFC 9457). Some types have further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Compare this in programs; it never changes.", pattern="^urn:cofounder:problem:")
    title: str
    status: int
    detail: str = Field(description="For people: what is wrong and what to do.")
    errors: list[dict[str, str]] = Field(
        default=[], description="If the request is not valid: `field` and `message` of each mistake."
    )


def examples_of(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The examples of the model's schema."""
    extra: Any = model.model_config["json_schema_extra"]
    listed: list[dict[str, Any]] = extra["examples"]
    return listed
