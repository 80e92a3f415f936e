"""What operators switch off while everything runs, and what founders read then."""

from enum import StrEnum


class SwitchScope(StrEnum):
    """Whose builds a switch stops."""

    FLEET = "fleet"
    """All builds."""
    PLAN = "plan"
    USER = "user"
    MODEL = "model"


_WHAT_IS_OFF = {
    SwitchScope.FLEET: "Builds are switched off here for now.",
    SwitchScope.PLAN: "Builds on your plan are switched off for now.",
    SwitchScope.USER: "Builds of your account are switched off for now.",
    SwitchScope.MODEL: "Builds with this build's model are switched off for now.",
}


def hold_reason(scope: SwitchScope) -> str:
    """Return the reason of a build that is held, for its founder."""
    return (
        f"{_WHAT_IS_OFF[scope]} This build's work is kept, and it continues by itself when builds are switched on "
        "again."
    )


def refusal(scope: SwitchScope) -> str:
    """Return why no build was started, for its founder."""
    return f"{_what_is_off_for_new(scope)} No build was started. Try again later."


def notice(scope: SwitchScope) -> str:
    """Return why a founder can't start a build now, before they try."""
    return f"{_what_is_off_for_new(scope)} You can start one when they are switched on again."


def _what_is_off_for_new(scope: SwitchScope) -> str:
    return "Builds with your model are switched off for now." if scope is SwitchScope.MODEL else _WHAT_IS_OFF[scope]
