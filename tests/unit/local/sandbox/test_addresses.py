"""The addresses that sandboxes reach, whatever DNS answers."""

import asyncio
from collections.abc import Iterator, Sequence

import psutil
import pytest

from domain.errors import Misconfigured
from local.operator_network import operator_network
from local.sandbox.addresses import AddressRules, OffLimits, Resolve
from local.sandbox.egress import EgressProxy
from local.sandbox.http_head import Refused
from settings import load_settings

HOST = "mirror.example"


def answers(*addresses: str, **others: str) -> Resolve:
    """Return a DNS resolver that knows HOST, and other hosts by the first part of their names."""

    async def resolve(host: str) -> Sequence[str]:
        if host == HOST:
            return addresses
        if (name := host.partition(".")[0]) in others:
            return [others[name]]
        raise OSError(f"{host} is not known")

    return resolve


def rules(resolve: Resolve, *off_limits: OffLimits) -> AddressRules:
    return AddressRules([HOST], off_limits, resolve=resolve)


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "172.31.255.1", "192.168.77.1", "100.64.3.4", "198.18.0.9", "203.0.113.80", "fd12:3456::1", "8.8.8.8"],
)
async def test_a_listed_host_is_reached_at_a_private_address_and_another_is_not(address: str) -> None:
    assert await rules(answers(address)).address_of(HOST) == address
    unlisted = AddressRules(["other.example"], resolve=answers(address))
    if address == "8.8.8.8":
        assert await unlisted.address_of(HOST) == address
    else:
        with pytest.raises(
            Refused, match=f"{HOST}: its address is private.*SANDBOX_PRIVATE_HOSTS.*--private-host {HOST}"
        ):
            await unlisted.address_of(HOST)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.8.9.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("2002:7f00:1::1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("64:ff9b::a9fe:a9fe", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fd00:ec2::254", "a cloud's metadata service"),
        ("100.100.100.200", "a cloud's metadata service"),
        ("0.0.0.0", "the unspecified address"),
        ("0.1.2.3", "the unspecified address"),
        ("::", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("240.0.0.1", "a reserved address"),
        ("255.255.255.255", "a reserved address"),
        ("::7f00:1", "a reserved address"),
        ("64:ff9b:1::a00:1", "a reserved address"),
        ("64:ff9b::a00:1", "not a plain"),
        ("2002:a00:1::1", "not a plain"),
        ("2001:0:7f00:1::1", "not a plain"),
        ("fec0::1", "not a plain"),
        ("fe80::1%eth0", "not a plain"),
    ],
)
async def test_a_listed_host_never_reaches(address: str, kind: str) -> None:
    with pytest.raises(Refused, match=f"{HOST}: its address is .*{kind}.*SANDBOX_PRIVATE_HOSTS never allows"):
        await rules(answers(address)).address_of(HOST)


def own_addresses() -> Iterator[str]:
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family.name in ("AF_INET", "AF_INET6"):
                yield entry.address.partition("%")[0]


@pytest.mark.parametrize("address", sorted(set(own_addresses())))
async def test_no_host_reaches_this_machine(address: str) -> None:
    for resolve in (answers(address), answers(f"::ffff:{address}" if "." in address else address)):
        for hosts in ([HOST], []):
            with pytest.raises(Refused, match="never allows"):
                await AddressRules(hosts, resolve=resolve).address_of(HOST)


async def test_a_listed_host_with_the_address_of_a_server_is_refused_and_the_setting_is_named() -> None:
    database = OffLimits("DATABASE_URL", "db.example")
    store = OffLimits("S3_ENDPOINT_URL", "::ffff:10.0.0.9")

    async def literal_too(host: str) -> Sequence[str]:
        return [host] if ":" in host else await answers("10.0.0.9", db="10.0.0.8")(host)

    assert await rules(answers("10.0.0.9", db="10.0.0.8"), database).address_of(HOST) == "10.0.0.9"
    with pytest.raises(Refused, match=f"{HOST}: it has the address of DATABASE_URL"):
        await rules(answers("::ffff:10.0.0.9", db="10.0.0.9"), database).address_of(HOST)
    with pytest.raises(Refused, match=f"{HOST}: it has the address of S3_ENDPOINT_URL"):
        await rules(literal_too, database, store).address_of(HOST)
    with pytest.raises(Refused, match="host of DATABASE_URL can't be resolved"):
        await rules(answers("10.0.0.9"), database).address_of(HOST)


async def test_an_address_that_may_be_reached_is_chosen_among_several() -> None:
    assert await rules(answers("127.0.0.1", "169.254.169.254", "10.0.0.9")).address_of(HOST) == "10.0.0.9"


async def test_the_checked_address_is_the_one_that_is_connected_to() -> None:
    """A DNS server that answers with a good address first and another later must not lead a sandbox elsewhere."""
    reached: list[str] = []

    def answer_at(address: str):  # type: ignore[no-untyped-def]
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.append(address)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        return answer

    lookups = iter(["127.0.0.2", *["127.0.0.3"] * 100])

    async def rebinding(host: str) -> Sequence[str]:
        return [next(lookups)]

    good = await asyncio.start_server(answer_at("127.0.0.2"), "127.0.0.2", 0)
    port = good.sockets[0].getsockname()[1]
    bad = await asyncio.start_server(answer_at("127.0.0.3"), "127.0.0.3", port)
    # Only a test may allow loopback addresses. It allows both, so that only the order of lookups matters.
    allowed = AddressRules(resolve=rebinding, also_allowed=["127.0.0.2", "127.0.0.3"])
    listener = (await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)).sockets[0]
    inside = await EgressProxy([HOST], allowed, http_port=port).serve(listener.dup(), "i")
    async with good, bad, inside:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(f"GET http://{HOST}:{port}/ HTTP/1.1\r\n\r\n".encode())
        assert b" 200 " in await reader.read()
        writer.close()
    assert reached == ["127.0.0.2"]


def test_servers_of_every_setting_are_off_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "DATABASE_URL": "postgresql://u:secret@/d?host=db1.example:5432&host=db2.example:5433",
        "S3_ENDPOINT_URL": "https://s3.example:9000",
        "ANTHROPIC_BASE_URL": "https://model.example/v1",
        "E2B_API_URL": "https://api.e2b.example",
        "E2B_SANDBOX_URL": "https://envd.e2b.example",
        "COFOUNDER_API_URL": "https://cofounder.example",
        "PUBLIC_URL": "https://public.example",
        "AWS_ENDPOINT_URL_S3": "https://aws.example",
        "TEMPORAL_ADDRESS": "temporal.example:7233",
        "SANDBOX_PRIVATE_HOSTS": "pypi.example, NPM.example.",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    network = operator_network(load_settings(), environment, ["other.example"])
    assert network.private_hosts == ("pypi.example", "npm.example", "other.example")
    assert set(network.off_limits) == {
        ("DATABASE_URL", "db1.example"),
        ("DATABASE_URL", "db2.example"),
        ("S3_ENDPOINT_URL", "s3.example"),
        ("ANTHROPIC_BASE_URL", "model.example"),
        ("PUBLIC_URL", "public.example"),
        ("E2B_API_URL", "api.e2b.example"),
        ("E2B_SANDBOX_URL", "envd.e2b.example"),
        ("COFOUNDER_API_URL", "cofounder.example"),
        ("AWS_ENDPOINT_URL_S3", "aws.example"),
        ("TEMPORAL_ADDRESS", "temporal.example"),
    }
    assert "secret" not in " ".join(network.options())


def test_a_private_host_is_a_name() -> None:
    with pytest.raises(Misconfigured, match=r"--private-host: https://pypi\.example is not a host's name"):
        operator_network(load_settings(), {}, ["https://pypi.example"])
