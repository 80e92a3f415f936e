"""The port at which a process shows how it is."""

import socket

import httpx2
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from pydantic import ValidationError

from domain.errors import Misconfigured
from observing import metrics
from observing.health import SignOfLife, health_port
from settings import Settings


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_it_says_whether_the_process_lives_and_is_ready() -> None:
    address, problems = _free_address(), ["it starts"]

    async def more() -> bytes:
        return b"temporal_workers 1\n"

    async with (
        health_port(address, ready=lambda: problems[0] if problems else None, prepare=more),
        httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http,
    ):
        assert (await http.get("/livez")).status_code == 200
        unready = await http.get("/readyz")
        assert (unready.status_code, unready.text) == (503, "it starts\n")
        problems.clear()
        assert (await http.get("/readyz")).status_code == 200
        shown = (await http.get("/metrics")).text
        assert "cofounder_builds" in shown
        assert "\ntemporal_workers 1.0\n" in shown
        assert (await http.get("/")).status_code == 404
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(trust_env=False) as http:
            await http.get(f"http://{address}/livez")


async def test_a_process_whose_task_hangs_is_not_live() -> None:
    clock, address = [1000.0], _free_address()
    sign = SignOfLife("announced itself", 300.0, lambda: clock[0])
    async with (
        health_port(address, live=sign.problem),
        httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http,
    ):
        clock[0] += 300
        assert (await http.get("/livez")).status_code == 200
        clock[0] += 1
        hangs = await http.get("/livez")
        assert hangs.status_code == 503
        assert "not announced itself for 301 s" in hangs.text
        sign.note()
        assert (await http.get("/livez")).status_code == 200


async def test_prometheus_gets_exemplars() -> None:
    """Prometheus asks for OpenMetrics; others get the text format, which has none."""
    trace = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    metrics.TURN_OVERHEAD.observe(0.2, trace)
    address = _free_address()

    async def more() -> bytes:
        return (
            b"# HELP temporal_request_total Requests\n# TYPE temporal_request_total counter\n"
            b'temporal_request_total{operation="a"} 3\n'
            b"# TYPE temporal_latency_seconds histogram\n"
            b'temporal_latency_seconds_bucket{le="0.1"} 1\ntemporal_latency_seconds_bucket{le="+Inf"} 2\n'
            b"temporal_latency_seconds_sum 0.7\ntemporal_latency_seconds_count 2\n"
        )

    async with (
        health_port(address, prepare=more),
        httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http,
    ):
        asked = await http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain"})
        plain = await http.get("/metrics")
    parsed = openmetrics.text_string_to_metric_families(asked.text)  # type: ignore[no-untyped-call]
    families = {each.name: each for each in parsed}
    exemplars = [sample.exemplar for sample in families["cofounder_turn_overhead_seconds"].samples if sample.exemplar]
    assert trace in [each.labels for each in exemplars]
    assert [sample.value for sample in families["temporal_request"].samples] == [3]
    assert len(families["temporal_latency_seconds"].samples) == 4
    assert "4bf92f3577b34da6a3ce929d0e0e4736" not in plain.text


async def test_an_address_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Misconfigured, match="METRICS_ADDRESS is"):
            async with health_port(address):
                pass


@pytest.mark.parametrize("address", ["9464", "localhost", "host:", ":9464", "host:0", "host:99999", "host:port"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValidationError, match="host:port"):
        Settings(metrics_address=address)
