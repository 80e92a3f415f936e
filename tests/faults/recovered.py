"""What an operator's recoveries may take from a build, so that the invariants demand all the rest."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from db.models import Event, ToolCall
from db.recovery import SKIPPED_EVENTS
from tests.harness.fault_waits import Request


@dataclass(frozen=True, order=True)
class LostTime:
    """The time that a database does not know after it was put back, as seconds since 1970: from before its backup
    began until the programs ran again."""

    began: float
    ended: float

    def covers(self, moment: float) -> bool:
        """Whether the moment may be lost."""
        return self.began <= moment < self.ended


@dataclass(frozen=True)
class Past:
    """A build's past. `goal`: the one that the API has acknowledged; a row that is written again has another one.
    `lost`: the times that the build's rows do not know. `skips`: how often its feed may have left out ids.
    `has_history`: its workflow was not lost after its end."""

    goal: str
    lost: Sequence[LostTime] = ()
    skips: int = 0
    has_history: bool = True

    def courses(self, requests: Sequence[Request]) -> list[list[Request]]:
        """The requests of each course that the build took, the last one last. A restore ends a course, and the next
        one goes on from before the lost time."""
        courses, known = [], list(requests)
        for time in sorted(self.lost):
            courses.append([request for request in known if request.arrived_at < time.ended])
            known = [request for request in known if not time.covers(request.arrived_at)]
        return [*courses, known]

    def last_course(self, requests: Sequence[Request]) -> list[Request]:
        """The requests of the course that led to the build's end. If there were none after a restore, that is the one
        before."""
        *earlier, last = self.courses(requests)
        for time, course in zip(sorted(self.lost, reverse=True), reversed(earlier), strict=True):
            if any(request.arrived_at >= time.ended for request in last):
                break
            last = course
        return last

    def calls_to_book(self, unrecorded: Sequence[Request]) -> int:
        """How many estimated entries stand for these calls. Temporal knows how often each turn of a lost time was
        tried, but not which of the tries were billed."""
        calls, turns = 0, set()
        for request in unrecorded:
            lost = [number for number, time in enumerate(self.lost) if time.covers(request.arrived_at)]
            messages = request.body["messages"]
            if lost:
                turns.add((lost[0], json.dumps(messages[0]), len(messages)))
            else:
                calls += 1
        return calls + len(turns)

    def was_lost(self, call: ToolCall, started_at: Sequence[float]) -> bool:
        """Whether the call was run in a lost time, and its rows have learnt of it again only afterwards."""
        intended_at = 0.0 if call.intended_at is None else call.intended_at.timestamp()
        return any(
            time.covers(moment) and (intended_at == 0.0 or intended_at >= time.ended)
            for time in self.lost
            for moment in started_at
        )

    def is_complete(self, events: Sequence[Event], last_event_id: int) -> bool:
        """Whether the feed has no gaps but those that a restore leaves, one for each at most."""
        gaps = [after - before - 1 for before, after in itertools.pairwise([0, *(event.id for event in events)])]
        # The preview may have added an event since the row was read.
        gaps.append(max(0, last_event_id - (events[-1].id if events else 0)))
        left_out = [gap for gap in gaps if gap]
        return sum(left_out) <= SKIPPED_EVENTS * self.skips and all(gap % SKIPPED_EVENTS == 0 for gap in left_out)
