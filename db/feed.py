"""Writing the live feed: events with a per-build sequence, and the nudges of its readers."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import JSON, UUID, bindparam, text

from db.nudges import CHANNEL
from db.transaction import Transaction
from domain.events import BuildEvent, StatusEvent


def append_events_cte(condition: str | None = None) -> str:
    """The SQL of two common table expressions, `seq` and `made`, that append `:events` to the feed of `:build`.

    They take one round trip, because every turn appends several times. The update locks the build's row before
    anything is inserted.

    `condition` names a common table expression before these two. It is evaluated first, and if it has no row, nothing
    is appended.
    """
    source = f" from {condition}" if condition else ""
    return f"""
    seq as (
        update builds set last_event_id = last_event_id + json_array_length(:events){source}
        where builds.id = :build
        returning last_event_id as last, last_event_id - json_array_length(:events) as before
    ), made as (
        insert into events (build_id, id, type, turn, data)
        select :build, seq.before + new.position, new.type, new.turn, new.data
        from seq, rows from (json_to_recordset(:events) as (type text, turn integer, data jsonb))
            with ordinality as new (type, turn, data, position)
    )"""


def append_params(build_id: uuid.UUID, events: Sequence[BuildEvent], turn: int | None) -> dict[str, Any]:
    """The parameters of `append_events_cte`. `turn`: the turn that the events belong to."""
    rows = [{"type": event.type, "turn": turn, "data": event.to_data()} for event in events]
    return {"build": build_id, "events": rows}


LAST_EVENT = "select seq.last from seq"
"""The SQL that returns the last event's id."""

APPEND_BINDS = (bindparam("build", type_=UUID(as_uuid=True)), bindparam("events", type_=JSON))

_APPEND = text(f"with {append_events_cte()} {LAST_EVENT}").bindparams(*APPEND_BINDS)
_APPEND_AND_NOTIFY = text(
    f"with {append_events_cte()} select seq.last, pg_notify('{CHANNEL}', cast(:build as text)) from seq"
).bindparams(*APPEND_BINDS)


async def append_events(
    tx: Transaction, build_id: uuid.UUID, events: Sequence[BuildEvent], *, turn: int | None = None
) -> int:
    """Append events to a build's feed; returns the last one's id. `turn`: the turn that they belong to, if to one.

    Ids come from an update of the build's row, which stays locked until the commit. So no reader can see an event
    before the ones with lower ids.

    Events of a turn nudge readers after the commit; others follow soon if the process dies in between. All other events
    may be the last for long, so they do it with the commit, which is slow while many commit (`db/nudges.py`).
    """
    is_rare = turn is None or any(isinstance(event, StatusEvent) for event in events)
    statement = _APPEND_AND_NOTIFY if is_rare else _APPEND
    last = (await tx.execute(statement, append_params(build_id, events, turn))).scalar()
    if last is None:
        raise LookupError(f"there is no build {build_id}")
    if not is_rare:
        tx.nudged.add(build_id)
    return int(last)
