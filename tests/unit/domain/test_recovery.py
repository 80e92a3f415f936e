"""What is applied again to a restored workspace, and what the agent is told about it."""

from domain import recovery
from domain.recovery import RecordedCall


def test_what_is_told_of_edits_that_were_applied_again() -> None:
    def call(name: str, summary: str, *, succeeded: bool = True, unsure: bool = False) -> RecordedCall:
        return RecordedCall(summary, name, summary, {}, succeeded, unsure)

    calls = [
        call("write_file", "a", unsure=True),
        call("bash", "make", succeeded=False),
        call("edit_file", "b", succeeded=False),
        call("edit_file", "c"),
        call("edit_file", "d", unsure=True),
        call("write_file", "e"),
    ]
    edits = recovery.edits_to_reapply(calls)
    assert [edit.id for edit in edits] == ["a", "c", "d", "e"]
    assert [edit.id for edit in recovery.reapplicable(edits)] == ["a", "c"]
    applied, left, commands = recovery.describe_reapplied(calls, recovery.Reapplied(2))
    assert applied.endswith(": a; c.")
    assert left.endswith(": d; e. (It may be in the snapshot already.)")
    assert commands.endswith(": make.")
    assert recovery.describe_reapplied([], recovery.Reapplied()) == []
