"""The settings that shape a build. Each is declared here, once: `Settings` reads it, `BuildContext` takes it along."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from domain.worker_roles import parse_separate_roles

Model = TypeVar("Model", bound=BaseModel)


class BuildSettings(BaseModel):
    """A build uses the values that its worker had when the build started.

    A build that started before a setting existed takes the setting's default. So a default never changes for builds
    that run: before you change one here, declare the field in `BuildContext` again, with the old default.
    """

    model_config = ConfigDict(frozen=True)

    tool_call_cap: int | None = Field(
        default=None, ge=1, description="Tool calls per build; unset means the plan's limit."
    )
    tool_timeout_max_seconds: int = Field(
        default=600, ge=1, description="Longest timeout that a bash call may ask for, in seconds."
    )
    gate_attempts: int = Field(default=3, ge=1, description="Evidence gates before a person is asked.")
    continue_as_new_turns: int | None = Field(
        default=None, ge=1, description="Turns per workflow run; unset means until the server suggests a new run."
    )
    preview_seconds: int = Field(default=3600, ge=60, description="Seconds that a preview stays open.")
    morning_seconds: int = Field(
        default=1800,
        ge=0,
        le=43_200,
        description="Spread the builds that wake for a new UTC day over this many seconds after midnight; 0 for none.",
    )
    sandbox_max_seconds: int | None = Field(
        default=3600,
        ge=1,
        description="Replace a sandbox before it has run for this many seconds; E2B: 3600 on Hobby, 86400 on Pro.",
    )

    separate_roles: Annotated[str | None, AfterValidator(parse_separate_roles)] = Field(
        default=None,
        description="Roles of WORKER_ROLES whose work goes to a task queue of its own: `archive`, `browser`, or both "
        "with a comma. Workers with these roles must run (docs/operating.md). Unset: all work is on one queue.",
    )

    def build_values(self) -> dict[str, Any]:
        """The values of these settings by name, without the others that a subclass adds."""
        return {name: getattr(self, name) for name in BuildSettings.model_fields}


def without_bounds(payload: type[Model]) -> type[Model]:
    """Drop the bounds of a payload's fields, so that raising one makes no build unreadable that runs with less."""
    bounded = {name: field for name, field in payload.model_fields.items() if field.metadata}
    fields: dict[str, Any] = {name: (field.annotation, _default(field)) for name, field in bounded.items()}
    return create_model(
        payload.__name__, __base__=payload, __module__=payload.__module__, __doc__=payload.__doc__, **fields
    )


def _default(field: FieldInfo) -> Any:
    if field.is_required():
        return Field(alias=field.alias)
    if field.default_factory is not None:
        return Field(default_factory=field.default_factory, alias=field.alias)
    return Field(default=field.default, alias=field.alias)
