"""The bodies of requests and responses about switches and limits."""

from datetime import date, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.bulk_schemas import REASON_MAX_CHARACTERS
from api.schemas import Body
from db.limits import FleetSpending
from db.models import Limit, Switch
from domain.limits import LimitName
from domain.switches import SwitchScope

_KEY = "The user's id, or the name of the plan or model; left out for the whole fleet."
KEY_MAX_CHARACTERS = 200


class NewSwitch(Body):
    """Builds to switch off."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scope": "plan", "key": "partner", "reason": "The model is too slow today."}]}
    )

    scope: SwitchScope
    key: str | None = Field(default=None, description=_KEY, min_length=1, max_length=KEY_MAX_CHARACTERS)
    reason: str = Field(description="Why, for other operators.", min_length=1, max_length=REASON_MAX_CHARACTERS)


class SwitchOut(BaseModel):
    """Builds that are switched off."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SWITCH]})

    scope: SwitchScope
    key: str | None = Field(description=_KEY)
    off_since: datetime
    reason: str
    by: str

    @classmethod
    def of(cls, row: Switch) -> Self:
        """From the row."""
        return cls(
            scope=SwitchScope(row.scope), key=row.key or None, off_since=row.off_since, reason=row.reason, by=row.by
        )


class SwitchList(BaseModel):
    """All that is switched off."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"autonomous_agent": True, "off": [examples.SWITCH]}]})

    autonomous_agent: bool = Field(
        description="AUTONOMOUS_AGENT of this process. If it is false, all builds are off whatever the switches say."
    )
    off: list[SwitchOut]


class SwitchedOn(BaseModel):
    """Builds that are on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"was_off": True}]})

    was_off: bool = Field(description="False if they were on already.")


class LimitChange(Body):
    """The new value of a limit."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"value_microdollars": 200_000_000}]})

    value_microdollars: int | None = Field(
        description="For all builds together in a UTC day; null removes the limit.", ge=0, le=10**15
    )


class LimitOut(BaseModel):
    """A limit of the whole service."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LIMIT]})

    name: LimitName
    value_microdollars: int | None = Field(description="Null: there is no limit.")
    spent_microdollars: int = Field(description="Today.")
    reserved_microdollars: int = Field(description="For calls in progress.")
    reached_on: date | None = Field(description="The last day on which it was reached.")
    set_by: str | None
    set_at: datetime | None

    @classmethod
    def of(cls, name: LimitName, row: Limit | None, today: FleetSpending) -> Self:
        """From the row."""
        return cls(
            name=name,
            value_microdollars=None if row is None else row.value,
            spent_microdollars=today.spent,
            reserved_microdollars=today.reserved,
            reached_on=None if row is None else row.reached_on,
            set_by=None if row is None else row.set_by,
            set_at=None if row is None else row.set_at,
        )


class LimitList(BaseModel):
    """All limits."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": [examples.LIMIT]}]})

    limits: list[LimitOut]
