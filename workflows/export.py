"""An export: writes all that a project has, or what is known of a user, into the object store."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.export import ExportActivities
    from domain.names import EXPORT_WORKFLOW
    from domain.payloads import ExportFailure, ExportRef

from workflows import policies

_CANCELLED = "It was stopped, as what it was to have is being deleted."
_GIVEN_UP = "It could not be written. Ask for it again; if it fails again, ask the operator, whose logs name it."


@workflow.defn(name=EXPORT_WORKFLOW)
class ExportWorkflow:
    """A step that is repeated begins with a new file, so a worker that is killed costs only time."""

    @workflow.run
    async def run(self, request: ExportRef) -> None:
        """Write the file; if that is impossible, or the export is stopped, note why."""
        try:
            await workflow.execute_activity_method(ExportActivities.write_export, request, **policies.EXPORT)
        except ActivityError as error:
            problem = _CANCELLED if is_cancelled_exception(error) else _GIVEN_UP
            workflow.logger.warning("an export was given up", extra={"error": error.cause})
            failure = ExportFailure(export_id=request.export_id, problem=problem)
            await workflow.execute_activity_method(ExportActivities.fail_export, failure, **policies.DATABASE)
