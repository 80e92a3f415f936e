"""Names that cross the wire to Temporal, so that clients can use them without importing workflows."""

import uuid

BUILD_WORKFLOW = "BuildWorkflow"
"""Workflow type of a build; takes `domain.payloads.BuildInput`."""

PREVIEW_WORKFLOW = "PreviewWorkflow"
"""Workflow type of a preview; takes `domain.payloads.PreviewInput`."""

WAKE = "wake"
"""Signal to a build, without an argument: check again whether the build can continue."""

MONEY = "money"
"""Signal to a build, without an argument: the account's money or standing has changed, so check it again. It does not
end a wait for a founder's decision, because no person has decided anything."""

ADMIT = "admit"
"""Signal to a queued build, without an argument: check whether a slot is free."""

RECOVERED = "recovered"
"""Signal to a build, without an argument: the dependency that it waits for answers again."""

PERMIT = "permit"
"""Signal to a build or a preview, without an argument: a permit to have a sandbox running may be free."""

RECLAIM = "reclaim"
"""Signal to a preview, without an argument: close, as a build waits for its permit. An extension that follows opens it
again."""

FINISH = "finish"
"""Signal to a build, without an argument: finish with the work done so far."""

MESSAGE = "message"
"""Signal to a build, with a number as its argument: its founder has sent messages up to this one, stored as rows."""

RESTORE = "restore"
"""Signal to a build, with a number as its argument: its founder has requested restores up to this one, also rows."""

SETTINGS = "settings"
"""Signal to a build, with a number as its argument: its settings were changed, up to this version of them."""

UPGRADE = "upgrade"
"""Signal to a build, without an argument: move to the version that its workers are to have, also in a wait."""

EXTEND = "extend"
"""Signal to a preview, with seconds as its argument: stay open for at least this long from now."""

BUILD_STATUS = "BuildStatus"
BUILD_WAITING_FOR = "BuildWaitingFor"
BUILD_USER = "BuildUser"
BUILD_PROJECT = "BuildProject"
BUILD_PLAN = "BuildPlan"

SEARCH_ATTRIBUTES = (BUILD_STATUS, BUILD_WAITING_FOR, BUILD_USER, BUILD_PROJECT, BUILD_PLAN)
"""Each is a keyword."""

WORKER_VERSION = "TemporalWorkerDeploymentVersion"
"""Temporal's own search attribute: the version of the workers that run a workflow, as `deployment:build id`."""

REPORTED_PROBLEMS = "TemporalReportedProblems"
"""Temporal's own search attribute: what is wrong with a workflow whose tasks fail again and again."""

FINISH_ACTIVITY = "finish_build"
"""The activity that closes a build as ready; takes `domain.payloads.FinishBuild`."""

THINK_ACTIVITY = "think"
COMPACT_ACTIVITY = "compact"
GATE_ACTIVITY = "run_evidence_gate"

BUILD_FAILED = "BuildFailed"
"""The error type of a build's workflow that failed. Its message is for the founder."""

REAPER_WORKFLOW = "ReaperWorkflow"

REAPER_ID = "cofounder-reaper"
"""The id of the reaper's schedule and of its workflow."""

WEBHOOK_WORKFLOW = "WebhookWorkflow"
"""Workflow type of one delivery to a webhook; takes `domain.payloads.DeliveryRef`."""

BULK_WORKFLOW = "BulkWorkflow"
"""Workflow type of an act on many builds; takes `domain.payloads.BulkRef`."""

GO_ON = "go_on"
"""Signal to a bulk run, without an argument: its row says that it runs, so look for builds again."""

ERASURE_WORKFLOW = "ErasureWorkflow"
"""Workflow type of an erasure; takes `domain.payloads.ErasureRef`."""

EXPORT_WORKFLOW = "ExportWorkflow"
"""Workflow type of an export; takes `domain.payloads.ExportRef`."""

PROBER_WORKFLOW = "ProberWorkflow"

PROBER_ID = "cofounder-prober"
"""The id of the prober's schedule and of its workflow."""


def build_workflow_id(build_id: uuid.UUID | str) -> str:
    """Return the id of a build's workflow."""
    return f"build-{build_id}"


def preview_workflow_id(build_id: uuid.UUID | str) -> str:
    """Return the id of a build's preview workflow."""
    return f"preview-{build_id}"


def erasure_workflow_id(erasure_id: uuid.UUID | str) -> str:
    """Return the id of the workflow of an erasure."""
    return f"erase-{erasure_id}"


def export_workflow_id(export_id: uuid.UUID | str) -> str:
    """Return the id of the workflow of an export."""
    return f"export-{export_id}"


def delivery_workflow_id(delivery_id: uuid.UUID | str) -> str:
    """Return the id of the workflow of a delivery to a webhook."""
    return f"webhook-{delivery_id}"


def bulk_workflow_id(run_id: uuid.UUID | str) -> str:
    """Return the id of the workflow of an act on many builds."""
    return f"bulk-{run_id}"


def build_of_workflow(workflow_id: str) -> uuid.UUID | None:
    """Return the build of a workflow, of its own or its preview's; None if the id is another one's."""
    kind, _, build_id = workflow_id.partition("-")
    if kind not in ("build", "preview"):
        return None
    try:
        return uuid.UUID(build_id)
    except ValueError:
        return None


def wake_command(build_id: uuid.UUID | str) -> str:
    """Return the command that wakes a build. The signal takes no argument, so that any client can send it."""
    return f"temporal workflow signal --workflow-id {build_workflow_id(build_id)} --name {WAKE}"
