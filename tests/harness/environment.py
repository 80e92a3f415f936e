"""Which variables of the machine's owner the tests do without, so that no test reaches a real service."""

from collections.abc import Iterable

from settings import Settings

_PREFIXES = ("ANTHROPIC_", "AWS_", "COFOUNDER_", "E2B_", "PG", "TEMPORAL_")
"""Of what vendors' libraries read by themselves, and of the sandboxes' own marks."""

_NAMES = {"BRIEF", "EXIT", "IDEA", "REAL"}
"""Options of `make demo`."""


def outside_variables(environment: Iterable[str], settings: type[Settings] = Settings) -> list[str]:
    """Return the variables that point to something real: every setting, and what libraries read by themselves."""
    names = _NAMES | set(settings.variables())
    return [
        variable
        for variable in environment
        if (name := variable.upper()) in names or name.startswith(_PREFIXES) or name.endswith("_PROXY")
    ]
