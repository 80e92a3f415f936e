"""What a build leaves in metrics and logs, with the programs as operators run them."""

import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import ScheduleOverlapPolicy

from clients.temporal import connect_temporal
from local.stack import LocalStack
from observing import genai
from observing.trace_ids import TraceIds, build_ids, request_ids, turn_ids
from tests.harness.api_server import new_database
from tests.harness.observed_run import ObservedStack, observed_stack
from tests.harness.promql import metric_names
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.trace_receiver import ReceivedSpan, trace_receiver
from tests.harness.wait import wait_until
from tests.harness.worker import sample_brief, settings_of
from tests.workflows.scenarios import release_held

AFTER_A_FAULT = frozenset(
    {
        "temporal_workflow_task_execution_failed_total",
        "cofounder_reaper_failures_total",
        *("cofounder_wake_to_call_seconds_bucket", "cofounder_wake_to_call_seconds_count"),
    }
)
"""Metrics that nothing sets while all goes well. `tests/drills/test_alerts.py` has their alerts."""

PLANTED = "zinnober-im-april"
"""A word that a founder or an agent has written, which no log line and no span may have."""

NAMES_IN_SPANS = {
    *(value for name, value in vars(genai).items() if name.isupper() and value.startswith("gen_ai.")),
    *("cofounder.build_id", "cofounder.turn", "cofounder.attempt", "cofounder.outcome", "cofounder.tool_calls"),
    *("http.request.method", "http.response.status_code", "http.route", "server.address", "server.port", "error.type"),
}


@dataclass
class ObservedBuild:
    """A ready build, what the programs showed when it was ready, and the lines of their logs."""

    build: dict[str, Any]
    metrics: dict[str, str]
    meanwhile: dict[str, str]
    """What they showed while the build was open and watched."""
    failed: dict[str, Any]
    """A build that failed."""
    health: dict[str, int]
    lines: dict[str, list[dict[str, Any]]]
    spans: list[ReceivedSpan]
    open_metrics: str
    """What the worker shows to Prometheus, which asks for OpenMetrics."""


async def _look(running: ObservedStack, stack: LocalStack, spans: list[ReceivedSpan]) -> ObservedBuild:
    programs = {"api": running.api, "worker": running.worker}
    meanwhile: dict[str, str] = {}

    async def watch(build_id: uuid.UUID) -> None:
        events = _events_of(running, build_id)
        await _until_a_tool_is_seen(events)
        meanwhile.update({name: await program.scrape() for name, program in programs.items()})
        await release_held(settings_of(stack), build_id)
        await _until_a_tool_is_seen(events)  # it ends while it is watched, as the first may not have
        await events.aclose()

    await _run_schedules(stack, running.environment["TEMPORAL_TASK_QUEUE"])
    brief = {**sample_brief(), "problem": f"Our customers say {PLANTED}."}
    build = await running.build(brief, _SCRIPT, watch)
    metrics = {name: await program.scrape() for name, program in programs.items()}
    async with httpx2.AsyncClient(trust_env=False) as http:
        health = {
            path: (await http.get(f"{running.worker.metrics_url}{path}")).status_code for path in ("/livez", "/readyz")
        }
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        open_metrics = (await http.get(f"{running.worker.metrics_url}/metrics", headers=accept)).text
        # The API shows its metrics at their own port only.
        health["api"] = (await http.get(f"{running.api_url}/metrics")).status_code
    async with _unknown_model(running, PLANTED):
        failed = await running.build(brief, _SCRIPT)
    for program in programs.values():
        assert await program.stop() == 0
    lines = {name: each.lines() for name, each in programs.items()}
    return ObservedBuild(build, metrics, meanwhile, failed, health, lines, spans, open_metrics)


_SCRIPT = steps([bash(f"echo {PLANTED} >&2; exit 3")], [hold(PRODUCT)])


async def _run_schedules(stack: LocalStack, task_queue: str) -> None:
    """Let the worker run the reaper and the prober once, whatever an earlier worker of the schedules left open."""
    client = await connect_temporal(stack.environment)
    for name, workflow in (("reaper", "ReaperWorkflow"), ("prober", "ProberWorkflow")):
        schedule = client.get_schedule_handle(f"cofounder-{name}")
        await schedule.trigger(overlap=ScheduleOverlapPolicy.ALLOW_ALL)
        query = f"WorkflowType='{workflow}' AND TaskQueue='{task_queue}' AND ExecutionStatus='Completed'"

        async def has_run(query: str = query) -> bool:
            return (await client.count_workflows(query)).count > 0

        await wait_until(has_run)


async def _events_of(running: ObservedStack, build_id: uuid.UUID) -> AsyncGenerator[str]:
    """The lines of the build's feed, from its beginning."""
    async with running.client() as http, http.stream("GET", f"/builds/{build_id}/events", timeout=None) as answer:
        async for line in answer.raise_for_status().aiter_lines():
            yield line


async def _until_a_tool_is_seen(events: AsyncGenerator[str]) -> None:
    """Read on until a command of the agent has ended."""
    async for line in events:
        if line == "event: tool_done":
            return
    raise AssertionError("the feed ended before the agent's next command")


@asynccontextmanager
async def _unknown_model(running: ObservedStack, name: str) -> AsyncIterator[None]:
    """The founder's builds are to use a model that has no price."""
    connection = await asyncpg.connect(running.environment["DATABASE_URL"].replace("+asyncpg", ""))
    change = "update users set model_overrides = $1::text::jsonb where id = 'founder'"
    try:
        await connection.execute(change, json.dumps({"coder": name}))
        yield
        await connection.execute(change, "{}")
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def observed(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ObservedBuild]:
    directory = tmp_path_factory.mktemp("observed")
    # The reaper starts whatever other tests have left unstarted in the session's database, and it would be counted.
    own = {"DATABASE_URL": await new_database(stack)}
    async with (
        trace_receiver() as (endpoint, spans),
        observed_stack(
            stack, directory, f"test-{uuid.uuid4()}", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **own
        ) as running,
    ):
        yield await _look(running, stack, spans)


def _samples(text: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def _value(samples: dict[str, dict[frozenset[tuple[str, str]], float]], name: str, **labels: str) -> float:
    wanted = frozenset(labels.items())
    return sum(value for having, value in samples[name].items() if wanted <= having)


async def test_a_build_is_counted(observed: ObservedBuild) -> None:
    assert observed.build["status"] == "ready"
    worker = _samples(observed.metrics["worker"])
    assert _value(worker, "cofounder_turns_total", outcome="tool_use") > 0
    assert _value(worker, "cofounder_model_calls_total", outcome="answered") > 0
    assert _value(worker, "cofounder_model_tokens_total", kind="output") > 0
    assert _value(worker, "cofounder_start_to_call_seconds_count") == 1
    assert _value(worker, "cofounder_snapshots_total", result="stored") > 0
    assert _value(worker, "cofounder_gates_total", result="passed") == 1
    for name in ("database", "temporal", "store", "sandbox", "model"):
        assert _value(worker, "cofounder_dependency_up", dependency=name) == 1
    assert _value(worker, "cofounder_ledger_drift_microdollars") == 0
    assert _value(worker, "temporal_activity_execution_latency_seconds_count", activity_type="think") > 0
    api = _samples(observed.metrics["api"])
    route = "/v1/projects/{project_id}/builds"
    assert _value(api, "cofounder_api_requests_total", method="POST", route=route, status="201") == 1


def _jobs_that_show(metric: str) -> set[str]:
    """The programs whose figures rules and dashboards ask for."""
    if metric.startswith(("cofounder_api_", "cofounder_feed_")):
        return {"api"}
    return {"api", "worker"} if metric.startswith(("process_", "cofounder_pool_")) else {"worker"}


def _names_with_values(text: str) -> set[str]:
    """The names of all samples. A histogram has values once something was measured: an empty one is printed, too."""
    names = set[str]()
    for family in text_string_to_metric_families(text):
        count = sum(each.value for each in family.samples if each.name == f"{family.name}_count")
        if family.type != "histogram" or count > 0:
            names |= {each.name for each in family.samples}
    return names


async def test_every_metric_of_rules_and_dashboards_is_there(observed: ObservedBuild) -> None:
    shown = {
        job: _names_with_values(observed.meanwhile[job]) | _names_with_values(text)
        for job, text in observed.metrics.items()
    }
    named = metric_names()
    assert len(named) > 30
    assert named > AFTER_A_FAULT
    missing = {(name, job) for name in named - AFTER_A_FAULT for job in _jobs_that_show(name) if name not in shown[job]}
    assert not missing


async def test_slow_turns_lead_to_their_traces(observed: ObservedBuild) -> None:
    parsed = openmetrics.text_string_to_metric_families(observed.open_metrics)  # type: ignore[no-untyped-call]
    families = {each.name: each for each in parsed}
    build_id = uuid.UUID(observed.build["id"])
    turns = {f"{turn_ids(build_id, turn).trace_id:032x}" for turn in range(1, 20)}
    for name in ("turn_overhead", "start_to_call", "model_call", "model_first_chunk"):
        samples = families[f"cofounder_{name}_seconds"].samples
        assert {each.exemplar.labels["trace_id"] for each in samples if each.exemplar} & turns, name
    assert families["temporal_request"].samples


async def test_no_label_has_an_id(observed: ObservedBuild) -> None:
    for text in observed.metrics.values():
        assert observed.build["id"] not in text
        assert observed.build["project_id"] not in text


async def test_the_worker_says_how_it_is_and_the_api_does_not_tell_everyone(observed: ObservedBuild) -> None:
    assert observed.health == {"/livez": 200, "/readyz": 200, "api": 404}


async def test_requests_and_activities_have_their_ids_in_the_log(observed: ObservedBuild) -> None:
    [started] = [line for line in observed.lines["api"] if line.get("request_id") == observed.build["request_id"]]
    assert started["event"] == "request"
    assert (started["method"], started["status"]) == ("POST", 201)
    assert started["user"] not in (None, "founder")
    errors = [line for line in _of_builds(observed.lines["worker"]) if line["level"] == "error"]
    assert {line["build_id"] for line in errors} == {observed.failed["id"]}


async def test_a_turn_is_a_trace_that_leads_back_to_the_request(observed: ObservedBuild) -> None:
    build_id = uuid.UUID(observed.build["id"])
    request, build, turn = (
        _by_ids(observed, ids)
        for ids in (request_ids(observed.build["request_id"]), build_ids(build_id), turn_ids(build_id, 1))
    )
    assert request.name == "POST /v1/projects/{project_id}/builds"
    assert (build.name, turn.name) == ("build", "turn 1")
    assert turn.links == [build.ids]
    assert build.links == [request.ids]
    assert request.links == [build.ids]
    [think] = _below(observed, turn, "think")
    [chat] = _below(observed, think, "chat claude-sonnet-5-5")
    [http] = _below(observed, chat, "POST")
    assert http.attributes["http.response.status_code"] == 200
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    tools = [
        each for each in observed.spans if each.parent_id == turn.span_id and each.name.startswith("execute_tool ")
    ]
    assert len(tools) == turn.attributes["cofounder.tool_calls"] > 0
    assert {each.trace_id for each in tools} == {turn.trace_id}
    assert _below(observed, build, "open_workspace")


async def test_no_span_is_made_twice(observed: ObservedBuild) -> None:
    assert len({span.ids for span in observed.spans}) == len(observed.spans)


async def test_a_failure_is_its_type(observed: ObservedBuild) -> None:
    assert observed.failed["status"] == "failed"
    failed = [span for span in observed.spans if span.status == Status.STATUS_CODE_ERROR]
    assert [(span.name, span.attributes["error.type"]) for span in failed] == [("prepare_build", "ApplicationError")]


async def test_spans_have_no_content(observed: ObservedBuild) -> None:
    assert {key for span in observed.spans for key in span.attributes} <= NAMES_IN_SPANS
    assert {span.attributes["cofounder.build_id"] for span in observed.spans if "cofounder.build_id" in span.attributes}
    texts = [text for span in observed.spans for text in span.texts]
    for said in (PLANTED, "Build the first version", str(sample_brief()["name"]).rsplit(" ", 1)[0], "/home/user"):
        assert not [text for text in texts if said in text]


async def test_logs_have_no_content(observed: ObservedBuild) -> None:
    lines = [line for each in observed.lines.values() for line in each]
    assert [line for line in lines if line["event"].startswith("Completing activity as failed")]
    assert not [line for line in lines if PLANTED in json.dumps(line)]
    assert not [line for line in lines if "founder" in (line.get("user_id"), line.get("whose"))]


async def test_log_lines_of_activities_name_their_trace(observed: ObservedBuild) -> None:
    lines = _of_builds(observed.lines["worker"])
    assert lines
    assert not [line for line in lines if "trace_id" not in line]


def _of_builds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of builds' activities. The reaper's name their workflow."""
    return [line for line in lines if "activity" in line and "workflow_id" not in line]


def _by_ids(observed: ObservedBuild, ids: TraceIds) -> ReceivedSpan:
    [span] = [each for each in observed.spans if each.ids == (ids.trace_id, ids.span_id)]
    return span


def _below(observed: ObservedBuild, parent: ReceivedSpan, name: str) -> list[ReceivedSpan]:
    return [
        each
        for each in observed.spans
        if each.trace_id == parent.trace_id and each.parent_id == parent.span_id and each.name == name
    ]
