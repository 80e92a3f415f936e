"""Telling a build's founder of hosts that the sandbox was not let out to."""

import uuid
from collections.abc import Iterable

from sqlalchemy import select

from db.feed import append_events
from db.models import Build, Event
from db.transaction import Transaction
from domain.egress import HOSTS_TOLD, way_to_allow
from domain.events import HostRefusedEvent


async def announce_refused_hosts(
    tx: Transaction, build_id: uuid.UUID, hosts: Iterable[str], *, turn: int | None = None
) -> None:
    """Append an event for each host that the build's feed does not name yet, up to `HOSTS_TOLD` in all."""
    # The append locks this row, too. Before the query, so that two calls do not both find a host missing.
    await tx.session.execute(select(Build.id).where(Build.id == build_id).with_for_update())
    query = select(Event.data["host"].astext).where(Event.build_id == build_id, Event.type == HostRefusedEvent.type)
    told = set((await tx.session.scalars(query)).all())
    new = [host for host in dict.fromkeys(hosts) if host not in told][: max(0, HOSTS_TOLD - len(told))]
    if new:
        events = [HostRefusedEvent(host=host, remedy=way_to_allow(host)) for host in new]
        await append_events(tx, build_id, events, turn=turn)
