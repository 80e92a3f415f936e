"""Which builds of all users an operator means, as values, as text such as `status=sleeping and plan=partner`, and as a
query for Temporal."""

import re
import shlex
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from domain.errors import InvalidInput
from domain.names import (
    BUILD_PLAN,
    BUILD_STATUS,
    BUILD_USER,
    BUILD_WAITING_FOR,
    BUILD_WORKFLOW,
    WAKE,
    build_workflow_id,
)
from domain.status import CLOSED, Dependency, Status, WaitingFor

TEXT_MAX_CHARACTERS = 4_000
"""Longest text of a filter. A hundred ids of builds fit into it."""

_Member = TypeVar("_Member", bound=StrEnum)

_AND = "and"
_FIELD = "where"
_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\["\\])*)"|([=,])|([^\s"=,]+))')
_PLAIN = re.compile(r'[^\s"=,]+')


class SortKey(StrEnum):
    """By what builds are sorted."""

    CREATED_AT = "created_at"
    SINCE = "since"
    """Since when it has its status."""
    SPENT = "spent"
    TURN = "turn"
    WAKES_AT = "wakes_at"
    """Builds that do not wake by themselves come as if they woke last."""
    LAST_EVENT_AT = "last_event_at"


SORT_PATTERN = f"^-?({'|'.join(SortKey)})$"
"""What `FleetOrder.parse` reads."""


@dataclass(frozen=True)
class FleetOrder:
    """The order of a list of builds."""

    key: SortKey
    is_descending: bool

    @classmethod
    def parse(cls, text: str) -> "FleetOrder":
        """Read a key, with a minus in front of it for the highest or newest first. It has to match `SORT_PATTERN`."""
        return cls(SortKey(text.removeprefix("-")), text.startswith("-"))

    def __str__(self) -> str:
        return f"{'-' if self.is_descending else ''}{self.key}"


@dataclass(frozen=True)
class TemporalQuery:
    """A filter as Temporal understands it."""

    text: str
    left_out: tuple[str, ...]
    """Fields that no search attribute has, so that the query may match more builds than the filter."""

    def list_command(self, namespace: str) -> str:
        """The command of Temporal's CLI that lists these workflows."""
        return shlex.join(["temporal", "workflow", "list", "--namespace", namespace, "--query", self.text])

    def wake_command(self, namespace: str) -> str:
        """The command of Temporal's CLI that wakes these builds in a batch job."""
        words = ["temporal", "workflow", "signal", "--namespace", namespace, "--name", WAKE, "--query", self.text]
        return shlex.join([*words, "--reason", "wake builds"])


@dataclass(frozen=True)
class FleetFilter:
    """A build matches if it matches every field that is set. A field with several values matches any of them."""

    id: tuple[uuid.UUID, ...] = ()
    status: tuple[Status, ...] = ()
    waiting_for: tuple[WaitingFor, ...] = ()
    dependency: tuple[Dependency, ...] = ()
    plan: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    """Versions of the workers that run it, as TEMPORAL_WORKER_BUILD_ID names them; `unversioned`: without one."""
    older_than_seconds: int | None = None
    """It has had its status for at least this long."""
    open: bool | None = None
    """Whether it has not ended."""
    closed_since: datetime | None = None
    """It has ended at this time or later."""

    @classmethod
    def of(
        cls,
        *,
        id: Sequence[str] = (),
        status: Sequence[str] = (),
        waiting_for: Sequence[str] = (),
        dependency: Sequence[str] = (),
        plan: Sequence[str] = (),
        model: Sequence[str] = (),
        user: Sequence[str] = (),
        version: Sequence[str] = (),
        older_than_seconds: int | None = None,
        open: bool | None = None,
        closed_since: str | None = None,
    ) -> "FleetFilter":
        """Make it of texts.

        Raises:
            InvalidInput: a field has a value that does not exist; names both, and the values that do.
        """
        return cls(
            id=_ids(id),
            status=_members(Status, "status", status),
            waiting_for=_members(WaitingFor, "waiting_for", waiting_for),
            dependency=_members(Dependency, "dependency", dependency),
            plan=_distinct(plan),
            model=_distinct(model),
            user=_distinct(user),
            version=_distinct(version),
            older_than_seconds=older_than_seconds,
            open=open,
            closed_since=None if closed_since is None else _moment(closed_since),
        )

    @classmethod
    def parse(cls, text: str) -> "FleetFilter":
        """Read conditions such as `status=sleeping,waiting and plan=partner`; an empty text matches every build.

        A value with a space, a comma or `=` is written in double quotes.

        Raises:
            InvalidInput: says what is wrong, and what is allowed there.
        """
        if len(text) > TEXT_MAX_CHARACTERS:
            raise InvalidInput(f"The filter is longer than {TEXT_MAX_CHARACTERS} characters. Shorten it.", _FIELD)
        values: dict[str, list[str]] = {}
        for name, given in _conditions(text):
            if name not in _NAMES:
                raise InvalidInput(f"There is no field {name!r}. Use one of {', '.join(_NAMES)}.", _FIELD)
            if name in values:
                raise InvalidInput(f"{name} is named twice. Name it once, with its values: {name}=a,b", _FIELD)
            values[name] = given
        seconds = values.pop("older_than_seconds", None)
        is_open = values.pop("open", None)
        since = values.pop("closed_since", None)
        return cls.of(
            id=values.get("id", ()),
            status=values.get("status", ()),
            waiting_for=values.get("waiting_for", ()),
            dependency=values.get("dependency", ()),
            plan=values.get("plan", ()),
            model=values.get("model", ()),
            user=values.get("user", ()),
            version=values.get("version", ()),
            older_than_seconds=None if seconds is None else _seconds(seconds),
            open=None if is_open is None else _yes_or_no(is_open),
            closed_since=None if since is None else ",".join(since),
        )

    def as_text(self) -> str:
        """The text from which `parse` makes this filter; empty for one that matches every build."""
        conditions = []
        for name in _NAMES:
            value = getattr(self, name)
            if value is None or value == ():
                continue
            values = value if isinstance(value, tuple) else (_as_text(value),)
            conditions.append(f"{name}={','.join(_quoted(str(each)) for each in values)}")
        return f" {_AND} ".join(conditions)

    @property
    def is_empty(self) -> bool:
        """Whether it matches every build."""
        return self == FleetFilter()

    @property
    def implies_open(self) -> bool:
        """Whether only open builds can match, whatever `open` is."""
        return bool(
            self.waiting_for
            or self.dependency
            or self.version
            or (self.status and not CLOSED.intersection(self.status))
        )

    def temporal_query(self, label: Callable[[str], str] = str) -> TemporalQuery:
        """The same filter for Temporal, as far as builds have search attributes for it.

        Args:
            label: what stands there for a user's id; see `PayloadKeys.label`.
        """
        execution = 'ExecutionStatus != "ContinuedAsNew"'  # the earlier runs of builds that go on
        if self.open is not None:
            execution = 'ExecutionStatus = "Running"' if self.open else f'{execution} AND ExecutionStatus != "Running"'
        conditions = [f'WorkflowType = "{BUILD_WORKFLOW}"', execution]
        if self.id:
            conditions.append(_is_one_of("WorkflowId", [build_workflow_id(each) for each in self.id]))
        for attribute, values in (
            (BUILD_STATUS, self.status),
            (BUILD_WAITING_FOR, (*self.waiting_for, *self.dependency) if self._waits_for_one_kind else ()),
            (BUILD_PLAN, self.plan),
            (BUILD_USER, tuple(map(label, self.user))),
        ):
            if values:
                conditions.append(_is_one_of(attribute, values))
        if self.closed_since is not None:
            conditions.append(f'CloseTime >= "{_as_time(self.closed_since)}"')
        left_out = [name for name in ("model", "version", "older_than_seconds") if getattr(self, name)]
        if not self._waits_for_one_kind:
            left_out += ["waiting_for", "dependency"]
        return TemporalQuery(" AND ".join(conditions), tuple(left_out))

    @property
    def _waits_for_one_kind(self) -> bool:
        """Whether the attribute, which has a person or a dependency, can say both fields."""
        return not (self.waiting_for and self.dependency)


_NAMES = tuple(field.name for field in fields(FleetFilter))


def _conditions(text: str) -> Iterable[tuple[str, list[str]]]:
    """The names and values of the conditions."""
    tokens = _tokens(text)
    at = 0
    while at < len(tokens):
        if at and tokens[at] != (_AND, False):
            raise InvalidInput(f"Write `and` between two conditions, before {tokens[at][0]!r}.", _FIELD)
        at += 1 if at else 0
        name = tokens[at][0] if at < len(tokens) else ""
        if not name or name in "=," or at + 1 >= len(tokens) or tokens[at + 1] != ("=", False):
            what = f"after {name!r}" if name and name not in "=," else "here"
            raise InvalidInput(
                f"A condition is incomplete {what}. Write field=value, such as status=sleeping and plan=partner.",
                _FIELD,
            )
        at += 2
        values = []
        while True:
            if at >= len(tokens) or (tokens[at][0] in ("=", ",") and not tokens[at][1]):
                raise InvalidInput(f"{name} has no value. Write {name}=value, or {name}=a,b for any of them.", _FIELD)
            values.append(tokens[at][0])
            at += 1
            if at < len(tokens) and tokens[at] == (",", False):
                at += 1
                continue
            break
        yield name, values


def _tokens(text: str) -> list[tuple[str, bool]]:
    """The words and signs of the text, each with whether it is quoted."""
    text, at, tokens = text.strip(), 0, []
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidInput(f"A double quote is not closed: {text[at:].strip()[:40]}", _FIELD)
        quoted, sign, word = match.groups()
        is_quoted = quoted is not None
        tokens.append((re.sub(r"\\(.)", r"\1", quoted) if is_quoted else sign or word, is_quoted))
        at = match.end()
    return tokens


def _members(kind: type[_Member], name: str, values: Sequence[str]) -> tuple[_Member, ...]:
    allowed = [str(each) for each in kind]
    for value in values:
        if value not in allowed:
            raise InvalidInput(f"{name} can't be {value!r}. Use one of {', '.join(allowed)}.", name)
    return tuple(dict.fromkeys(kind(value) for value in values))


def _ids(values: Sequence[str]) -> tuple[uuid.UUID, ...]:
    try:
        return tuple(dict.fromkeys(uuid.UUID(value) for value in values))
    except ValueError:
        raise InvalidInput(
            "id has a value that is not the id of a build. Copy it from the list of builds.", "id"
        ) from None


def _distinct(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _seconds(given: list[str]) -> int:
    if len(given) == 1 and given[0].isascii() and given[0].isdigit() and len(given[0]) < 10:
        return int(given[0])
    raise InvalidInput(f"older_than_seconds can't be {','.join(given)!r}. Use a number of seconds.", _FIELD)


def _yes_or_no(given: list[str]) -> bool:
    if given in (["true"], ["false"]):
        return given == ["true"]
    raise InvalidInput(f"open can't be {','.join(given)!r}. Use true or false.", _FIELD)


def _moment(text: str) -> datetime:
    """A day, which begins at 00:00 UTC, or a time with its zone."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"closed_since can't be {text!r}. Use a day such as 2026-12-01, or a time such as 2026-12-01T08:30:00Z.", _FIELD
    )


def _as_time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _as_text(value: object) -> str:
    return _as_time(value) if isinstance(value, datetime) else str(value).lower()


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_one_of(attribute: str, values: Sequence[str]) -> str:
    texts = ['"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return f"{attribute} = {texts[0]}" if len(texts) == 1 else f"{attribute} IN ({', '.join(texts)})"
