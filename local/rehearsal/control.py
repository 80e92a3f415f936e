"""The server's control interface for tests: faults, and scripts other than the normal one."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.rehearsal.errors import ApiError
from local.rehearsal.replies import PAUSE_TEXT, Part, Reply, TextPart, ToolPart, truncate
from local.rehearsal.script import AnyScript, ProductScript

FaultKind = Literal[
    # an error instead of an answer
    "overloaded",
    "rate_limited",
    "spend_limit",
    "server_error",
    "authentication",
    # while the answer is streamed
    "stream_error",
    "cut",
    "early_end",
    "stall",
    # a different answer
    "broken_tool_json",
    "max_tokens",
    "refusal",
    "empty",
    "pause_turn",
    "context_exceeded",
    "unknown_stop_reason",
]


class Fault(BaseModel):
    """A fault to inject into requests whose system prompt contains `match`."""

    model_config = ConfigDict(extra="forbid")

    kind: FaultKind
    match: str = Field(default="", description="Text in the system prompt; empty matches every request.")
    after: int = Field(default=0, ge=0, description="Number of matching requests to serve normally first.")
    times: int = Field(default=1, ge=1, description="Number of requests that get the fault before it ends.")
    seconds: float = Field(default=30.0, ge=0, description="stall: seconds without output.")
    retry_after: float = Field(default=1.0, ge=0, description="rate_limited: seconds in the retry-after header.")
    id: int = 0


class Registration(BaseModel):
    """A script for conversations whose system prompt contains `match`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = ""
    script: AnyScript


class Control:
    """The registered faults and scripts. A later script takes precedence."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.scripts: list[Registration] = []
        self._ids = itertools.count(1)

    def add_fault(self, fault: Fault) -> Fault:
        """Register a fault; return it with its id."""
        fault = fault.model_copy(update={"id": next(self._ids)})
        self.faults.append(fault)
        return fault

    def load(self, registrations: dict[str, Any]) -> None:
        """Register everything in `{"scripts": […], "faults": […]}`."""
        self.scripts += [Registration.model_validate(entry) for entry in registrations.get("scripts", [])]
        for entry in registrations.get("faults", []):
            self.add_fault(Fault.model_validate(entry))

    def take_fault(self, system: str) -> Fault | None:
        """Return the fault for this request, if any. Counts the request for every fault that matches it."""
        hit: Fault | None = None
        for fault in [fault for fault in self.faults if fault.match in system]:
            if fault.after > 0:
                fault.after -= 1
            elif hit is None:
                hit = fault
                fault.times -= 1
        self.faults = [fault for fault in self.faults if fault.times > 0]
        return hit

    def script_for(self, system: str) -> AnyScript:
        """Return the script for this conversation."""
        return next((entry.script for entry in reversed(self.scripts) if entry.match in system), ProductScript())


def raise_fault(fault: Fault | None) -> None:
    """Raise the fault if it is an error instead of an answer.

    Raises:
        ApiError: the API's answer for this kind of fault.
    """
    match fault.kind if fault else None:
        case "overloaded":
            raise ApiError("overloaded_error", "Overloaded")
        case "rate_limited":
            headers = {"retry-after": f"{fault.retry_after:g}" if fault else "1"}
            raise ApiError("rate_limit_error", "This request would exceed your rate limit.", headers=headers)
        case "spend_limit":
            error = {"error_code": "enforced_spend_limit_reached"}
            fields = {**error, "details": error}
            raise ApiError("rate_limit_error", "Your organization has reached its spend limit.", fields=fields)
        case "server_error":
            raise ApiError("api_error", "Internal server error")
        case "authentication":
            raise ApiError("authentication_error", "invalid x-api-key")
        case _:
            return


def change_reply(reply: Reply, fault: Fault | None) -> Reply:
    """Return the reply as the fault changes it."""
    match fault.kind if fault else None:
        case "broken_tool_json":
            return Reply(_broken(reply.parts), reply.stop_reason)
        case "max_tokens":
            return truncate(reply, "max_tokens")
        case "refusal":
            details = {"type": "refusal", "category": None, "explanation": "This rehearsal refuses once."}
            return Reply(truncate(_without_tools(reply), "refusal").parts, "refusal", details)
        case "empty":
            return Reply((), "end_turn")
        case "pause_turn":
            return Reply((TextPart(PAUSE_TEXT),), "pause_turn")
        case "context_exceeded":
            return truncate(_without_tools(reply), "model_context_window_exceeded")
        case "unknown_stop_reason":
            return Reply(_without_tools(reply).parts, "a_reason_of_tomorrow")
        case _:
            return reply


def _without_tools(reply: Reply) -> Reply:
    parts = tuple(part for part in reply.parts if not isinstance(part, ToolPart))
    return Reply(parts or (TextPart("I was about to say something."),), reply.stop_reason)


def _broken(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(
        ToolPart(part.id, part.name, part.input_json.replace(":", ": oops ", 1)) if isinstance(part, ToolPart) else part
        for part in parts
    )
