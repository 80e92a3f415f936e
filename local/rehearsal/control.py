"""The server's control interface for tests: faults, limits, and scripts other than the normal one."""

import itertools
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.rehearsal.error_faults import ErrorKind
from local.rehearsal.hostile_replies import HostileKind
from local.rehearsal.judge import JudgeManner
from local.rehearsal.rates import Rate, RateLimits
from local.rehearsal.requests import MAX_BODY_BYTES, MAX_IMAGES
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
"""Faults that the fault runs draw from (`tests/faults/plan.py`)."""

CompactionFaultKind = Literal[
    "compaction_max_tokens",
    "compaction_refusal",
    "compaction_tool_use",
    "compaction_end_turn",
    "compaction_context_exceeded",
    "compaction_unavailable",
]
"""Ways in which a compaction gives no summary, as "Compaction on demand" lists them. They strike only compactions."""

StreamKind = Literal["endless_pings", "zero_usage"]
"""A stream that opens and then only sends pings; an answer whose counts are all 0."""

Category = Literal["cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"]
"""Values of `stop_details.category` (SDK `RefusalStopDetails`)."""


class Fault(BaseModel):
    """A fault to inject into requests whose system prompt contains `match`."""

    model_config = ConfigDict(extra="forbid")

    kind: FaultKind | ErrorKind | HostileKind | CompactionFaultKind | StreamKind
    match: str = Field(default="", description="Text in the system prompt; empty matches every request.")
    within: str = Field(
        default="", description="Text in the messages; the fault strikes only while they contain it. Empty: always."
    )
    request: Literal["any", "turn", "compaction", "judge"] = Field(
        default="any", description="Kind of request that it strikes."
    )
    after: int = Field(default=0, ge=0, description="Number of matching requests to serve normally first.")
    times: int | None = Field(
        default=1, ge=1, description="Number of requests that get the fault before it ends; null for no end."
    )
    seconds: float = Field(default=30.0, ge=0, description="stall: seconds without output.")
    interval: float = Field(default=1.0, gt=0, description="endless_pings: seconds between two pings.")
    retry_after: float = Field(default=1.0, ge=0, description="rate_limited: seconds in the retry-after header.")
    category: Category | None = Field(default=None, description="refusal: the policy category.")
    explanation: str | None = Field(default=None, description="refusal: the text for people.")
    partial: bool = Field(default=True, description="refusal: after some output, or before any.")
    lasting: bool = Field(
        default=False,
        description="refusal: every later request that still has the refused output in its messages is refused, too.",
    )
    models: tuple[str, ...] = Field(
        default=(), description="refusal: models that decline; empty for the requested one, `*` for all of a chain."
    )
    id: int = 0

    def strikes(self, system: str, messages: str, request: str) -> bool:
        """Whether the fault applies to a request of this kind."""
        if self.match not in system or self.within not in messages:
            return False
        if self.kind.startswith("compaction_") and request != "compaction":
            return False
        return self.request in ("any", request)


class Registration(BaseModel):
    """A script for conversations whose system prompt contains `match`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = ""
    script: AnyScript
    notes: Literal["wire", "lenient", "updates", "silent"] = Field(
        default="lenient",
        description="How a note before a tool call is said on models with progress updates. wire: as the API does. "
        "lenient: the same, but as text if `display` is `summarized`. updates: always as a progress update, however "
        "short it is. silent: never.",
    )


class Limits(BaseModel):
    """Limits of conversations whose system prompt contains `match`, smaller than the API's so that tests reach them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = ""
    window_tokens: int | None = Field(default=None, gt=0, description="Input and output; null for the model's own.")
    body_bytes: int = Field(default=MAX_BODY_BYTES, gt=0)
    images: int = Field(default=MAX_IMAGES, ge=0)


class Control:
    """The registered faults, limits, rates, scripts and judges. Of all but faults, later ones take precedence."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rates = RateLimits(clock)
        self.faults: list[Fault] = []
        self.limits: list[Limits] = []
        self.scripts: list[Registration] = []
        self.judges: list[JudgeManner] = []
        self._ids = itertools.count(1)

    def add_fault(self, fault: Fault) -> Fault:
        """Register a fault; return it with its id."""
        fault = fault.model_copy(update={"id": next(self._ids)})
        self.faults.append(fault)
        return fault

    def load(self, registrations: dict[str, Any]) -> None:
        """Register everything in `{"scripts": […], "judges": […], "limits": […], "rates": […], "faults": […]}`."""
        self.judges += [JudgeManner.model_validate(entry) for entry in registrations.get("judges", [])]
        self.scripts += [Registration.model_validate(entry) for entry in registrations.get("scripts", [])]
        self.limits += [Limits.model_validate(entry) for entry in registrations.get("limits", [])]
        for entry in registrations.get("rates", []):
            self.rates.add(Rate.model_validate(entry))
        for entry in registrations.get("faults", []):
            self.add_fault(Fault.model_validate(entry))

    def take_fault(self, system: str, messages: str = "", request: str = "turn") -> Fault | None:
        """Return the fault for this request, if any. Counts the request for every fault that it matches."""
        hit: Fault | None = None
        for fault in [fault for fault in self.faults if fault.strikes(system, messages, request)]:
            if fault.after > 0:
                fault.after -= 1
            elif hit is None:
                hit = fault
                if fault.times is not None:
                    fault.times -= 1
        self.faults = [fault for fault in self.faults if fault.times is None or fault.times > 0]
        return hit

    @property
    def reads_messages(self) -> bool:
        """Whether a fault depends on what the messages contain."""
        return any(fault.within for fault in self.faults)

    def limits_for(self, system: str) -> Limits:
        """Return the limits of this conversation."""
        return next((entry for entry in reversed(self.limits) if entry.match in system), Limits())

    def registration_for(self, system: str) -> Registration:
        """Return the script of this conversation, and how it speaks."""
        matching = (entry for entry in reversed(self.scripts) if entry.match in system)
        return next(matching, Registration(script=ProductScript()))

    def judge_for(self, system: str) -> JudgeManner | None:
        """Return how this conversation's product is judged; None if nothing is registered for it."""
        return next((entry for entry in reversed(self.judges) if entry.match in system), None)

    def script_for(self, system: str) -> AnyScript:
        """Return the script for this conversation."""
        return self.registration_for(system).script
