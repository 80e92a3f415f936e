"""What Temporal says of the attempt at an activity that runs."""

from datetime import UTC, date

from temporalio import activity


def attempt_day() -> date:
    """The UTC day on which the attempt started. Its calls count as that day's, however long they take."""
    return activity.info().started_time.astimezone(UTC).date()
