"""Which recorded edits are applied again after a workspace was restored to its snapshot. Commands never are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.manifest import bounded

EDITS = frozenset({"write_file", "edit_file"})
"""Tools whose effect is fully known from their recorded input. The effect of a command is not."""


@dataclass(frozen=True)
class RecordedCall:
    """A mutating call that ended after the snapshot.

    `succeeded`: it is known to have succeeded. `unsure`: it started before the snapshot, which may therefore contain
    its change.
    """

    id: str
    name: str
    summary: str
    input: dict[str, Any]
    succeeded: bool
    unsure: bool = False


@dataclass(frozen=True)
class Reapplied:
    """How many of the edits were applied, in order, and why the next one was not; `problem` is empty if all were."""

    applied: int = 0
    problem: str = ""


def edits_to_reapply(calls: Sequence[RecordedCall]) -> list[RecordedCall]:
    """Return the edits to apply again, in order."""
    return [call for call in calls if call.name in EDITS and call.succeeded]


def reapplicable(edits: Sequence[RecordedCall]) -> list[RecordedCall]:
    """Return the edits before the first `unsure` replacement in a file: it could put its text there twice.

    Writing a whole file again does no harm.
    """
    doubtful = (number for number, edit in enumerate(edits) if edit.unsure and edit.name != "write_file")
    return list(edits[: next(doubtful, len(edits))])


def describe_reapplied(calls: Sequence[RecordedCall], reapplied: Reapplied) -> list[str]:
    """Describe to the founder and the agent what was done about the calls made since the snapshot."""
    edits = edits_to_reapply(calls)
    commands = [call.summary for call in calls if call.name not in EDITS]
    applied, skipped = edits[: reapplied.applied], edits[reapplied.applied :]
    sentences = []
    if applied:
        sentences.append(f"Edits made since were applied again: {_listed(applied)}.")
    if skipped:
        why = reapplied.problem or "It may be in the snapshot already."
        sentences.append(
            f"Edits not applied again, as the first of them does not fit any more: {_listed(skipped)}. ({why})"
        )
    if commands:
        sentences.append(
            "Commands that had run since were not run again; what they changed in the workspace is lost: "
            + "; ".join(bounded(commands))
            + "."
        )
    return sentences


def _listed(edits: Sequence[RecordedCall]) -> str:
    return "; ".join(bounded([edit.summary for edit in edits]))
