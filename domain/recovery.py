"""What is done again when a workspace goes back to its snapshot: recorded edits, in order. Commands never are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.manifest import bounded

EDITS = frozenset({"write_file", "edit_file"})
"""Tools whose recorded input says all that they did. What a command did, nobody knows."""


@dataclass(frozen=True)
class RecordedCall:
    """A mutating call that was done since the snapshot.

    `succeeded`: it is known to have done what it was asked. `unsure`: it was begun before the snapshot and done after
    it, so that its change may be in the snapshot or not.
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
    """The edits to try, in order."""
    return [call for call in calls if call.name in EDITS and call.succeeded]


def reapplicable(edits: Sequence[RecordedCall]) -> list[RecordedCall]:
    """Those before the first that may not be tried: a piece that may have been replaced already would be twice. To
    write a whole file again does no harm."""
    doubtful = (number for number, edit in enumerate(edits) if edit.unsure and edit.name != "write_file")
    return list(edits[: next(doubtful, len(edits))])


def describe_reapplied(calls: Sequence[RecordedCall], reapplied: Reapplied) -> list[str]:
    """Sentences for the founder and the agent about the calls made since the snapshot."""
    edits = edits_to_reapply(calls)
    commands = [call.summary for call in calls if call.name not in EDITS]
    done, left = edits[: reapplied.applied], edits[reapplied.applied :]
    sentences = []
    if done:
        sentences.append(f"Edits made since were applied again: {_listed(done)}.")
    if left:
        why = reapplied.problem or "It may be in the snapshot already."
        sentences.append(
            f"Edits not applied again, as the first of them does not fit any more: {_listed(left)}. ({why})"
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
