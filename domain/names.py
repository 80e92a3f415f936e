"""Names on the wire between the program's parts and Temporal: what clients say without importing workflows."""

import uuid

BUILD_WORKFLOW = "BuildWorkflow"
"""Workflow type of a build; takes `domain.payloads.BuildInput`."""

PREVIEW_WORKFLOW = "PreviewWorkflow"
"""Workflow type of a preview; takes `domain.payloads.PreviewInput`."""

WAKE = "wake"
"""Signal to a build, without an argument: look again whether you can go on."""

MONEY = "money"
"""Signal to a build, without an argument: the account's money or standing has changed, look at it again. Not a
person's word: it ends no wait for a founder's decision."""

ADMIT = "admit"
"""Signal to a queued build, without an argument: look whether a slot is free."""

FINISH = "finish"
"""Signal to a build, without an argument: finish with what there is."""

MESSAGE = "message"
"""Signal to a build, with a number as its argument: its founder has sent messages up to this one. They are rows."""

RESTORE = "restore"
"""Signal to a build, with a number as its argument: its founder has asked for restores up to this one. Rows, too."""

EXTEND = "extend"
"""Signal to a preview, with seconds as its argument: stay open for at least so long from now."""

BUILD_STATUS = "BuildStatus"
BUILD_WAITING_FOR = "BuildWaitingFor"
BUILD_USER = "BuildUser"
BUILD_PROJECT = "BuildProject"
BUILD_PLAN = "BuildPlan"

SEARCH_ATTRIBUTES = (BUILD_STATUS, BUILD_WAITING_FOR, BUILD_USER, BUILD_PROJECT, BUILD_PLAN)
"""All of them keywords."""

REAPER_WORKFLOW = "ReaperWorkflow"

REAPER_ID = "cofounder-reaper"
"""Id of the reaper's schedule and workflow."""


def build_workflow_id(build_id: uuid.UUID | str) -> str:
    """The id of a build's workflow."""
    return f"build-{build_id}"


def preview_workflow_id(build_id: uuid.UUID | str) -> str:
    """The id of a build's preview workflow."""
    return f"preview-{build_id}"


def wake_command(build_id: uuid.UUID | str) -> str:
    """What an operator types to wake a build; the signal takes no argument, so that any client can send it."""
    return f"temporal workflow signal --workflow-id {build_workflow_id(build_id)} --name {WAKE}"
