"""Whether a database and a Temporal namespace belong together. In another namespace, no build would be found."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

RECOVER_COMMAND = "cofounder recover --temporal"
"""Binds the database to another namespace and starts its open builds there again, from their rows."""


@dataclass(frozen=True)
class Namespace:
    """A Temporal namespace. Its id is another one after the namespace was created again under the same name.

    `id` is None if Temporal does not let this client read it. Then only the name is compared.
    """

    name: str
    address: str
    id: str | None


@dataclass(frozen=True)
class Binding:
    """The namespace that a database is bound to, and since when."""

    namespace: Namespace
    bound_at: datetime

    def is_to(self, namespace: Namespace) -> bool:
        """Whether it is this namespace. The address is not compared: a server may be reached by several."""
        ours = self.namespace
        if ours.id is None or namespace.id is None:
            return ours.name == namespace.name
        return ours.id == namespace.id


@dataclass(frozen=True)
class DatabaseContents:
    """What speaks for or against binding a database to the namespace that a process is connected to."""

    address: str
    """host:port/name"""
    has_builds: bool
    started: int
    """Open builds whose workflow was started somewhere."""
    is_one_found: bool
    """Whether the namespace has the workflow of one of those."""


class BindingVerdict(Enum):
    """Whether a process may start."""

    BOUND = auto()
    """The database is bound to this namespace."""
    BIND = auto()
    """It is bound to none, or has no builds, and may be bound to this one."""
    REFUSE = auto()
    """Its builds are in another namespace, as far as anyone can tell."""


def judge_binding(bound: Binding | None, here: Namespace, contents: DatabaseContents) -> BindingVerdict:
    """Judge whether a process that is connected to the database and to the namespace `here` may start."""
    if bound is not None and bound.is_to(here):
        return BindingVerdict.BOUND
    if not contents.has_builds:
        return BindingVerdict.BIND
    if bound is None and (contents.started == 0 or contents.is_one_found):
        return BindingVerdict.BIND
    return BindingVerdict.REFUSE


def refusal(bound: Binding | None, here: Namespace, contents: DatabaseContents) -> str:
    """Say why a start is refused and what to do."""
    this = f"{here.name} at {here.address}"
    if bound is None:
        builds = "the open build" if contents.started == 1 else f"any of the {contents.started} open builds"
        return (
            f"Temporal's namespace {this} has no workflow of {builds} in the database {contents.address}. Nothing was "
            "changed. Set DATABASE_URL, TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE to a database and a namespace that "
            f"belong together. If the namespace was lost, run `{RECOVER_COMMAND}`."
        )
    there = f"{bound.namespace.name} at {bound.namespace.address}"
    if bound.namespace.name == here.name and bound.namespace.address == here.address:
        return (
            f"Temporal's namespace {this} was created again and has lost the builds of the database "
            f"{contents.address}. Nothing was changed. Run `{RECOVER_COMMAND}`: it starts them again from their rows."
        )
    return (
        f"The database {contents.address} belongs to Temporal's namespace {there}, but this process is connected to "
        f"{this}. Nothing was changed. Correct TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE or DATABASE_URL. If the builds are "
        f"to go on in {this}, because the other namespace was lost or is given up, run `{RECOVER_COMMAND}`."
    )
