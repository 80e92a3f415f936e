"""Takes over the settings that an operator has changed for a build that runs."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from domain.payloads import BuildRef, ChangedSettings, LoopState

from workflows import patches, policies
from workflows.waiting import Waiting


class SettingsChanges:
    """The build learns of a change by a signal or from its next turn, and takes it over before the turn after that."""

    def __init__(self, build_id: str, state: LoopState, waiting: Waiting) -> None:
        self._build = BuildRef(build_id=build_id)
        self._state = state
        self._waiting = waiting

    def note(self, version: int) -> None:
        """Record that the settings have this version."""
        self._state.settings_changed = max(self._state.settings_changed, version)

    async def take_over(self) -> None:
        """Work with the changed settings from now on, if there are any."""
        state = self._state
        if state.settings_changed <= state.settings_taken or not workflow.patched(patches.SETTINGS.id):
            return
        changed = await self._waiting.retry_with_help(self._load)
        before = state.loaded_context
        state.context = before.model_copy(update=changed.changes)
        state.tool_calls_allowed += state.context.tool_call_cap - before.tool_call_cap
        state.settings_taken = changed.version
        self.note(changed.version)

    async def _load(self) -> ChangedSettings:
        return await workflow.execute_activity_method(
            ContextActivities.load_changed_settings, self._build, **policies.DATABASE, summary="changed settings"
        )
