"""Finds the search attributes of builds that a namespace lacks, and registers them if this client may.

Starting a build fails in a namespace that lacks one of them. A self-hosted server lists and registers them for its
clients. Temporal Cloud refuses both to a worker's key; its own tool (`tcld`) and its web pages do it.
"""

import shlex
from dataclasses import dataclass

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from clients.temporal import ask
from domain.errors import Misconfigured
from domain.names import SEARCH_ATTRIBUTES

_KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
_REFUSALS = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
_CLOUD_DOMAINS = (".tmprl.cloud", ".api.temporal.io")


@dataclass(frozen=True)
class SearchAttributeStatus:
    """Which search attributes of a namespace are wrong. None are if both tuples are empty."""

    namespace: str
    missing: tuple[str, ...]
    mistyped: tuple[str, ...]
    """Registered, but not as keywords."""
    may_register: bool
    """Whether this client was allowed to list them. Then it may probably register them, too."""
    command: str
    """The command that creates the missing ones; empty if none are missing."""

    def problem(self) -> str | None:
        """What is wrong and what to do, in sentences; None if nothing is wrong."""
        if self.mistyped:
            names = ", ".join(self.mistyped)
            return (
                f"In Temporal's namespace {self.namespace}, these search attributes do not have the type Keyword: "
                f"{names}. Remove them there and create them as Keyword, or set TEMPORAL_NAMESPACE to another "
                "namespace."
            )
        if self.missing:
            refusal = "" if self.may_register else ", and this client may not register them"
            return (
                f"Temporal's namespace {self.namespace} lacks search attributes{refusal}. Have its administrator run: "
                f"{self.command}"
            )
        return None


async def find_search_attributes(client: Client) -> SearchAttributeStatus:
    """Find which of the program's search attributes the client's namespace lacks. Changes nothing.

    Raises:
        Misconfigured: the namespace does not exist, this client may not read in it, or Temporal does not answer.
    """
    try:
        request = ListSearchAttributesRequest(namespace=client.namespace)
        listed = await ask(lambda: client.operator_service.list_search_attributes(request))
    except RPCError as error:
        if error.status not in _REFUSALS:
            raise _read_error(client, error) from error
        return _status(client, missing=await _unknown_to_queries(client), may_register=False)
    types = listed.custom_attributes
    mistyped = [name for name in SEARCH_ATTRIBUTES if name in types and types[name] != _KEYWORD]
    return _status(client, missing=[name for name in SEARCH_ATTRIBUTES if name not in types], mistyped=mistyped)


async def register_search_attributes(client: Client) -> None:
    """Register the program's search attributes that are missing.

    Raises:
        Misconfigured: some are missing and this client may not register them; names the command that does. Also see
            `find_search_attributes`.
    """
    status = await find_search_attributes(client)
    if status.mistyped or (status.missing and not status.may_register):
        raise Misconfigured(str(status.problem()))
    if not status.missing:
        return
    try:
        request = AddSearchAttributesRequest(
            namespace=client.namespace, search_attributes=dict.fromkeys(status.missing, _KEYWORD)
        )
        await ask(lambda: client.operator_service.add_search_attributes(request))
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:  # another worker was faster
            raise Misconfigured(f"{status.problem()} (Temporal says: {error.message})") from error


def creation_command(client: Client, names: tuple[str, ...]) -> str:
    """The command that creates these search attributes in the client's namespace."""
    address = client.service_client.config.target_host
    if address.rpartition(":")[0].endswith(_CLOUD_DOMAINS):
        words = ["tcld", "namespace", "search-attributes", "add", "--namespace", client.namespace]
        words += [word for name in names for word in ("--search-attribute", f"{name}=Keyword")]
    else:
        words = ["temporal", "operator", "search-attribute", "create", "--address", address]
        words += ["--namespace", client.namespace]
        words += [word for name in names for word in ("--name", name, "--type", "Keyword")]
    return shlex.join(words)


async def _unknown_to_queries(client: Client) -> list[str]:
    """The missing ones, for clients that may not list them: a query that names an unknown attribute is invalid."""
    unknown = []
    for name in SEARCH_ATTRIBUTES:
        try:
            await client.count_workflows(f'{name} = "-"')
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise _read_error(client, error) from error
            unknown.append(name)
    return unknown


def _status(
    client: Client, *, missing: list[str], mistyped: list[str] | None = None, may_register: bool = True
) -> SearchAttributeStatus:
    command = creation_command(client, tuple(missing)) if missing else ""
    return SearchAttributeStatus(client.namespace, tuple(missing), tuple(mistyped or ()), may_register, command)


def _read_error(client: Client, error: RPCError) -> Misconfigured:
    namespace = client.namespace
    match error.status:
        case RPCStatusCode.NOT_FOUND:
            return Misconfigured(
                f"Temporal has no namespace {namespace}. Set TEMPORAL_NAMESPACE to one that exists, or create it: "
                f"temporal operator namespace create --namespace {namespace}"
            )
        case RPCStatusCode.PERMISSION_DENIED | RPCStatusCode.UNAUTHENTICATED:
            return Misconfigured(
                f"Temporal refuses this client in the namespace {namespace} ({error.message}). Check TEMPORAL_NAMESPACE"
                " and that TEMPORAL_API_KEY, or the certificate, may use it."
            )
        case _:
            return Misconfigured(
                f"The search attributes of Temporal's namespace {namespace} can't be read ({error.message}). Check that"
                " Temporal runs."
            )
