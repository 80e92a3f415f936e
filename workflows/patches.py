"""Every patch of the workflows: its id, since when it exists, what it gates, and when it goes.

A run that started before a patch replays without it: `workflow.patched(patches.NAME.id)` is False there, and the run
continues as it began. The id is in the histories of runs, so it never changes, even if the words for things do.

A patch goes in two steps, each with a release of its own:

1. Deprecate: keep only the new path and call `workflow.deprecate_patch(patches.NAME.id)` before it. Due when
   `deprecate_when` holds.
2. Delete the call and the entry here. Due when no run that has the patch's marker is open, and the histories that have
   it are recorded again (`make histories`).

The runs that hold a patch up are counted by `cofounder deploy patches`: open ones that lack its marker. A run that
began with the patch and has not come to it yet lacks it, too, so the count is too high rather than too low. Closed runs
don't count: they are never replayed.

A worker with a version (`TEMPORAL_WORKER_BUILD_ID`) replays only runs that began with that version, and `cofounder
deploy settle` begins a new run of every build. Patches are for workers without one.
"""

from dataclasses import dataclass
from datetime import date

from domain.names import BUILD_WORKFLOW, PREVIEW_WORKFLOW, REAPER_WORKFLOW


@dataclass(frozen=True)
class Patch:
    """One entry of this page."""

    id: str
    since: date
    commit: str
    """The commit that added it."""
    gates: str
    """What a run does with it, and what an older run does without it."""
    deprecate_when: str
    """When no run and no stored history without it is left."""
    dropped_in: str = "0.3.0"
    """The release that drops it, if `cofounder deploy patches` counts no open run without it: a test fails then."""
    workflow: str = BUILD_WORKFLOW
    """The type of the workflows that ask for it."""


OUTAGES = Patch(
    "outages",
    since=date(2026, 11, 29),
    commit="9ca700b",
    gates="Wait as `waiting` for a dependency that is away, and start a step over after the database was away. Before, "
    "a person was asked.",
    deprecate_when="no build run that began without it is open, and the histories in which a person is asked because "
    "of an outage are recorded again",
)

SLOTS = Patch(
    "places",
    since=date(2026, 11, 24),
    commit="267ad13",
    gates="Wait for a slot before the build starts, and for budget before its sandbox is opened. Before, a build "
    "started at once, and migration 0003 gave it a slot.",
    deprecate_when="no build run that began without it is open, and the build histories of 2026-11-20, such as "
    "ready-build-1.json, are recorded again",
)

REPLACES = Patch(
    "replaces",
    since=date(2026, 11, 26),
    commit="f7de67a",
    gates="Replace a lost, full or unreachable sandbox automatically; if it was lost before the gate, tell the agent "
    "first. Before, an operator was asked.",
    deprecate_when="no build run that began without it is open",
)

QUESTIONS = Patch(
    "questions",
    since=date(2026, 11, 26),
    commit="49d3d90",
    gates="Ask the founder a question when the guard against circles fires twice. Before, the build just waited.",
    deprecate_when="no build run that began without it is open, and repeating-build-1.json is recorded again",
)

FRUITLESS_TURNS = Patch(
    "fruitless",
    since=date(2026, 11, 26),
    commit="d00b736",
    gates="Stop after several turns in a row without a usable answer. Before, a build continued indefinitely.",
    deprecate_when="no build run that began without it is open",
)

FINISH = Patch(
    "finish-leads-out",
    since=date(2026, 11, 28),
    commit="20225ae",
    gates="Check the product at once if the founder asks to finish and the model cannot be asked: the call has failed, "
    "does not end, or has no budget. Before, the build waited for an answer, in a loop if the founder was to help.",
    deprecate_when="no build run that began without it is open",
)

REFUSALS = Patch(
    "refusals",
    since=date(2026, 11, 28),
    commit="20225ae",
    gates="Let the agent go on without what a safety check has declined, and ask the founder at the third refusal in a "
    "row. Before, the founder was asked at once.",
    deprecate_when="no build run that began without it is open, and the histories of 2026-11-26 with a refusal, such "
    "as refused-build-1.json, are recorded again",
)

PLAN = Patch(
    "plan",
    since=date(2026, 11, 28),
    commit="be73f9b",
    gates="Read the agent's plan when it ends its turn, before the evidence gate. Before, every ended turn went to the "
    "gate.",
    deprecate_when="no build run that began without it is open",
)

MORNINGS = Patch(
    "mornings",
    since=date(2026, 11, 29),
    commit="8cf2fe9",
    gates="Wake for a new day at a time of the build's own after midnight. Before, every sleeping build woke at "
    "00:00:00 UTC.",
    deprecate_when="no build run that began without it is open, and the histories of builds that slept, such as "
    "three_nights-build-1.json, are recorded again",
)

CHECKS_FOR_CANCEL = Patch(
    "cancel-is-looked-for",
    since=date(2026, 11, 24),
    commit="c76ffdd",
    gates="Honour a cancel that arrived during an activity of a preview. Before, such a cancel was lost, and the "
    "preview stayed open until its time was over.",
    deprecate_when="no preview that began without it is open: previews last an hour, or as long as they are extended",
    workflow=PREVIEW_WORKFLOW,
)

PERMITS = Patch(
    "permits",
    since=date(2026, 11, 29),
    commit="0c09931",
    gates="Pause the workspace's sandbox before the gate starts its own, so that the build needs one permit; resume it "
    "if the product does not pass; and snapshot no sandbox that is paused and saved. Before, both sandboxes ran.",
    deprecate_when="no build run that began without it is open, and the build histories before 2026-11-29, such as "
    "ready-build-1.json, are recorded again",
)

SAVES = Patch(
    "saves",
    since=date(2026, 11, 29),
    commit="2a22ca9",
    gates="Take the last snapshot of a build that ends once more if the database was away, and take it of a paused "
    "sandbox in which the agent has worked since the one before. Before, that work was lost with the sandbox.",
    deprecate_when="no build run that began without it is open",
)

COMPACTION = Patch(
    "compaction",
    since=date(2026, 11, 28),
    commit="cb360e5",
    gates="Sum up a long conversation after the turn's calls, instead of a wind-down if that was due. Before, a "
    "conversation grew until the model's window was full.",
    deprecate_when="no build run that began without it is open",
)

RECOVERY = Patch(
    "recovery",
    since=date(2026, 11, 29),
    commit="5368af7",
    gates="Ask the build's rows where to go on when a run starts without a state, as in an empty namespace. Before, it "
    "started from nothing.",
    deprecate_when="no build run that began without it is open, and earlier histories such as "
    "ready-build-1.json, are recorded again",
)

PREVIEW_ONCE = Patch(
    "preview-once",
    since=date(2026, 11, 29),
    commit="5368af7",
    gates="Start the preview by an activity, which does so once. Before, it was a child workflow, and Temporal "
    "starts a child once more when its parent is reset.",
    deprecate_when="no build run that began without it is open, and earlier histories such as "
    "ready-build-1.json, are recorded again",
)

SETTINGS = Patch(
    "settings",
    since=date(2026, 11, 29),
    commit="fcfa453",
    gates="Take over the settings that an operator has changed for the build. Before, a build kept those that it began "
    "with.",
    deprecate_when="no build run that began without it is open",
)

REAPER_STEPS = Patch(
    "reaper-steps",
    since=date(2026, 11, 29),
    commit="9c5b029",
    gates="Run the reaper as steps, each an activity of its own. Before, one activity did everything, and a slow part "
    "of it kept the others waiting.",
    deprecate_when="no reaper run that began without it is open: they last minutes",
    workflow=REAPER_WORKFLOW,
)

PREVIEW_WAITS = Patch(
    "preview-waits",
    since=date(2026, 11, 29),
    commit="1a20a60",
    gates="Let a preview that can't open in an outage wait and try again. Before, it failed.",
    deprecate_when="no preview that began without it is open",
    workflow=PREVIEW_WORKFLOW,
)

WAITS_ON = Patch(
    "waits-on",
    since=date(2026, 11, 30),
    commit="46adc11",
    gates="Stay `waiting` for a dependency that fails the step after another wait, such as a resume after a wake. "
    "Before, each attempt took the status of the wait before, without whom or what it was for, which no row takes.",
    deprecate_when="no build run that began without it is open",
)

GATE_WAITS_ON = Patch(
    "gate-waits-on",
    since=date(2026, 11, 30),
    commit="91c605b",
    gates="Wait on for the store in a new run of a build that continued as new at the gate. Before, the new run took "
    "the status `checks` and tried the snapshot at once, even of a paused sandbox.",
    deprecate_when="no build run that began without it is open",
)

BEGINS = Patch(
    "begins",
    since=date(2026, 11, 30),
    commit="bf9612c",
    gates="Begin a build with four activities: the slot and the workspace record the status that comes with them, and "
    "context, model and budget are one step. Before, there were eight.",
    deprecate_when="no build run that began without it is open",
)

LONG_RESTS = Patch(
    "long-rests",
    since=date(2026, 11, 30),
    commit="306f0fe",
    gates="Continue as new in a wait for a person or for budget once the history is long, as each wake that does not "
    "help makes it longer. Before, such a run went on until Temporal ended it, as does one that had waited with a long "
    "history before its worker was replaced.",
    deprecate_when="no build run that began without it is open",
)

EVERY_PATCH = tuple(each for each in list(globals().values()) if isinstance(each, Patch))
