"""What a founder may choose for a build. Each option is declared once: the API takes and shows it, the row keeps it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from domain.status import MAX_NIGHTS, SleepPolicy


class BuildOptions(BaseModel):
    """To add one, add it here, a column of the same name to `db.models.Build`, and an option to `cofounder build`."""

    model_config = ConfigDict(frozen=True)

    sleep_policy: SleepPolicy = Field(
        default=SleepPolicy.SLEEP,
        description="When the day's allowance is used up: `sleep` until there is money again, or `stop` and fail; the "
        "work is kept.",
    )
    max_nights: int = Field(
        default=MAX_NIGHTS, ge=0, le=1000, description="Ask the founder after sleeping this many nights."
    )

    @classmethod
    def chosen_in(cls, source: object) -> "BuildOptions":
        """Take the options from an object that has them among its attributes."""
        return cls(**{name: getattr(source, name) for name in BuildOptions.model_fields})

    def changed(self) -> dict[str, Any]:
        """The options that differ from their default, as JSON."""
        return {
            name: value
            for name, value in self.model_dump(mode="json", include=set(BuildOptions.model_fields)).items()
            if value != BuildOptions.model_fields[name].default
        }
