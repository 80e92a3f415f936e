"""What the account's feed says of a build."""

import uuid
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from db.build_states import BuildState
from domain.budget import Level
from domain.status import Status, WaitingFor


class PreviewStateOut(BaseModel):
    """The preview of a ready build."""

    state: str = Field(description="opening, open, closed or failed.")
    url: str | None
    expires_at: datetime | None
    reason: str | None = Field(description="Why it failed, was closed early, or still waits.")


class BuildStateOut(BaseModel):
    """How a build stands now."""

    build_id: uuid.UUID
    project_id: uuid.UUID
    status: Status
    waiting_for: WaitingFor | None = Field(description="Who can end `needs_input`.")
    phase: int = Field(description="How many phases have ended.")
    turn: int = Field(description="The number of its last turn; 0 before the first.")
    level: Level = Field(description="Of the budget of the user who started it: green, yellow or red.")
    last_event_id: int = Field(description="The last event of its own feed.")
    preview: PreviewStateOut | None = Field(description="Null if it never had one.")

    @classmethod
    def of(cls, state: BuildState, level: Level) -> Self:
        """The state with the level of the payer's budget."""
        preview = state.preview
        return cls(
            build_id=state.build_id,
            project_id=state.project_id,
            status=Status(state.status),
            waiting_for=None if state.waiting_for is None else WaitingFor(state.waiting_for),
            phase=state.phase,
            turn=state.turn,
            level=level,
            last_event_id=state.last_event_id,
            preview=None
            if preview is None
            else PreviewStateOut(
                state=preview.state, url=preview.url, expires_at=preview.expires_at, reason=preview.reason
            ),
        )
