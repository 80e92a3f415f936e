"""The bodies of responses about a build's conversation. All texts are as the model or a tool has written them: show
them as text, never as HTML."""

import uuid
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from db.conversation import ReadTurn
from db.models import Event, GateRun, ToolCall
from db.progress import BuildProgress
from domain.conversation import ResultImage, ResultText, input_of_call, read_result, text_of_answer

_CALL: dict[str, Any] = {
    "tool_use_id": "toolu_01A09q90qw90lq917835lq9",
    "name": "bash",
    "summary": "make test",
    "state": "done",
    "is_error": True,
    "lost": False,
    "started_at": "2026-11-24T12:00:04Z",
    "ended_at": "2026-11-24T12:00:09Z",
    "commit": None,
}
_TURN: dict[str, Any] = {
    "number": 7,
    "text": "The page is there. I run its tests.",
    "calls": [_CALL],
    "outcome": "tool_use",
    "tokens": {"input": 210, "cache_write": 3_100, "cache_read": 41_000, "output": 980},
    "attempts": 1,
    "cost_microdollars": None,
    "started_at": "2026-11-24T12:00:00Z",
    "answered_at": "2026-11-24T12:00:04Z",
}
_BUILD_ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class CallOut(BaseModel):
    """A tool call, without its input and result."""

    tool_use_id: str
    name: str
    summary: str = Field(description="The call on one line.")
    state: Literal["requested", "intended", "done"] = Field(
        description="requested: the model has asked for it; intended: it runs, or was about to; done: it has a result."
    )
    is_error: bool | None = Field(description="Whether it failed; null until it is done.")
    lost: bool = Field(description="The sandbox was lost before or during it, so its outcome is unknown.")
    started_at: datetime | None
    ended_at: datetime | None
    commit: str | None = Field(description="The workspace's commit, if the call has changed it.")

    @staticmethod
    def values(row: ToolCall) -> dict[str, Any]:
        """The fields of the row."""
        names = ("tool_use_id", "name", "summary", "state", "is_error", "lost", "commit")
        return {name: getattr(row, name) for name in names} | {"started_at": row.intended_at, "ended_at": row.done_at}


class TurnTokens(BaseModel):
    """What the model calls of a turn have read and written, in tokens."""

    input: int = Field(description="Not cached.")
    cache_write: int
    cache_read: int
    output: int


class TurnOut(BaseModel):
    """A turn: what the model has written, and the tool calls that it has asked for."""

    number: int
    text: str
    calls: list[CallOut]
    outcome: str | None = Field(description="Why the model's answer ended, such as tool_use; null until it has.")
    tokens: TurnTokens
    attempts: int = Field(description="How many model calls were made for it.")
    cost_microdollars: int | None = Field(description="For operators; null for founders.")
    started_at: datetime
    answered_at: datetime | None

    @classmethod
    def of(cls, read: ReadTurn, *, operator: bool) -> Self:
        """The turn as a founder or an operator sees it."""
        row, sums = read.turn, read.sums
        return cls(
            number=row.number,
            text="" if read.answer is None else text_of_answer(read.answer),
            calls=[CallOut(**CallOut.values(call)) for call in read.calls],
            outcome=row.outcome,
            tokens=TurnTokens(
                input=sums.input_tokens,
                cache_write=sums.cache_write_tokens,
                cache_read=sums.cache_read_tokens,
                output=sums.output_tokens,
            ),
            attempts=sums.calls,
            cost_microdollars=sums.cost if operator else None,
            started_at=row.claimed_at,
            answered_at=row.answered_at,
        )


class TurnList(BaseModel):
    """Turns of a build, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"turns": [_TURN], "next_before": None}]})

    turns: list[TurnOut]
    next_before: int | None = Field(description="`before` of the next page; null on the last page.")


class TextPart(BaseModel):
    """A text of a result."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(BaseModel):
    """An image of a result, and its path in this API."""

    type: Literal["image"] = "image"
    sha256: str
    path: str


class ToolCallOut(CallOut):
    """A tool call with its input and result."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _CALL
                | {
                    "turn": 7,
                    "input": {"command": "make test"},
                    "result": [{"type": "text", "text": "1 failed, 13 passed\n[exit code 2]"}],
                },
                _CALL
                | {
                    "name": "take_screenshot",
                    "is_error": False,
                    "turn": 9,
                    "input": {"path": "/"},
                    "result": [
                        {"type": "image", "sha256": _SHA256, "path": f"/v1/builds/{_BUILD_ID}/images/{_SHA256}"}
                    ],
                },
            ]
        }
    )

    turn: int
    input: dict[str, Any] = Field(description="As the model has written it.")
    result: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] | None = Field(
        description="What the agent got, in order; null until the call is done. Long texts have a gap in the middle "
        "that says so, and secrets are blanked."
    )

    @classmethod
    def of(cls, row: ToolCall, answer: str | None) -> Self:
        """The call of the row. `answer`: the stored answer that has asked for it."""
        parts = None if row.result is None else [_part(row.build_id, part) for part in read_result(row.result)]
        return cls(
            **CallOut.values(row),
            turn=row.turn,
            input={} if answer is None else input_of_call(answer, row.tool_use_id),
            result=parts,
        )


def _part(build_id: uuid.UUID, part: ResultText | ResultImage) -> TextPart | ImagePart:
    if isinstance(part, ResultText):
        return TextPart(text=part.text)
    return ImagePart(sha256=part.sha256, path=f"/v1/builds/{build_id}/images/{part.sha256}")


class EventOut(BaseModel):
    """An event of a build's feed. Programs ignore types that they do not know."""

    id: int
    type: str
    turn: int | None
    created_at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, row: Event) -> Self:
        """The event of the row."""
        return cls(id=row.id, type=row.type, turn=row.turn, created_at=row.created_at, data=row.data)


class EventList(BaseModel):
    """Events of a build's feed, the newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "id": 7,
                            "type": "status",
                            "turn": None,
                            "created_at": "2026-11-24T12:00:00Z",
                            "data": {"status": "code"},
                        }
                    ],
                    "next_before": None,
                }
            ]
        }
    )

    events: list[EventOut]
    next_before: int | None = Field(description="`before` of the next page; null on the last page.")


class PhaseOut(BaseModel):
    """A phase that a commit has ended."""

    number: int
    title: str = Field(description="The subject of the commit.")
    commit: str | None
    turn: int | None
    ended_at: datetime


class GateOut(BaseModel):
    """A run of the evidence gate."""

    number: int
    snapshot: int = Field(description="The number of the snapshot that it checks.")
    passed: bool | None = Field(description="Null while it runs.")
    findings: list[str] = Field(description="What it holds against the product.")
    tests_run: int | None = Field(description="How many of the product's tests have run.")
    screenshots: dict[str, str] = Field(description="The path of each in this API, by viewport.")
    started_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, run: GateRun, *, passed: bool) -> Self:
        """The gate of the row."""
        names = {
            viewport: str(key).removeprefix("images/").removesuffix(".webp")
            for viewport, key in run.screenshots.items()
        }
        return cls(
            number=run.number,
            snapshot=run.snapshot_number,
            passed=None if run.ended_at is None else passed,
            findings=[str(finding) for finding in run.findings or []],
            tests_run=run.tests_run,
            screenshots={viewport: f"/v1/builds/{run.build_id}/images/{name}" for viewport, name in names.items()},
            started_at=run.started_at,
            ended_at=run.ended_at,
        )


class SleepOut(BaseModel):
    """A time in which the build slept."""

    since: datetime
    until: datetime | None = Field(description="Null while it sleeps.")
    reason: str | None
    wakes_at: str | None = Field(description="When it was to wake by itself.")


class ProgressOut(BaseModel):
    """How far a build has come."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "turn": 41,
                    "calls": 96,
                    "failed_calls": 3,
                    "unread": 1,
                    "queue_place": None,
                    "phases": [
                        {
                            "number": 1,
                            "title": "A page with a waitlist",
                            "commit": "4f9d2ac1b7e05d3c8a6f4e2d1c0b9a8f7e6d5c4b",
                            "turn": 12,
                            "ended_at": "2026-11-24T12:09:00Z",
                        }
                    ],
                    "gates": [
                        {
                            "number": 1,
                            "snapshot": 5,
                            "passed": False,
                            "findings": ["The tests fail: 1 of 14."],
                            "tests_run": 14,
                            "screenshots": {"desktop": f"/v1/builds/{_BUILD_ID}/images/{_SHA256}"},
                            "started_at": "2026-11-24T12:20:00Z",
                            "ended_at": "2026-11-24T12:21:30Z",
                        }
                    ],
                    "sleeps": [
                        {
                            "since": "2026-11-24T12:22:00Z",
                            "until": None,
                            "reason": "Not enough of today's budget is left for the next step.",
                            "wakes_at": "2026-11-25T00:00:00Z",
                        }
                    ],
                }
            ]
        }
    )

    turn: int = Field(description="The number of the last turn; 0 before the first.")
    calls: int = Field(description="Tool calls that the agent has asked for.")
    failed_calls: int
    unread: int = Field(description="The founder's messages that no turn has read yet.")
    queue_place: int | None = Field(
        description="Its place among the builds that wait until their user may run another, from 1; null if it does "
        "not wait for that."
    )
    phases: list[PhaseOut]
    gates: list[GateOut]
    sleeps: list[SleepOut]

    @classmethod
    def of(cls, progress: BuildProgress, queue_place: int | None) -> Self:
        """The progress as the API shows it."""
        milestones = progress.milestones
        return cls(
            turn=progress.turn,
            calls=progress.calls,
            failed_calls=progress.failed_calls,
            unread=progress.unread,
            queue_place=queue_place,
            phases=[PhaseOut(**asdict(phase)) for phase in milestones.phases],
            gates=[GateOut.of(run, passed=run.number in milestones.passed_gates) for run in progress.gates],
            sleeps=[SleepOut(**asdict(sleep)) for sleep in milestones.sleeps],
        )
