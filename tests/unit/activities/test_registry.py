"""Every activity of the program is registered with the worker."""

import importlib
import inspect
import pkgutil
from pathlib import Path

from temporalio import activity

import activities
from activities.registry import all_activities
from clients.browser import Browser
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore, store_config
from clients.sandbox import SandboxConfig, Sandboxes
from clients.temporal import connect_temporal
from clients.worker_clients import WorkerClients
from db.session import open_sessions
from observing.activities import COUNTS, ENDS_WAIT
from settings import Settings


async def test_every_activity_is_registered_once() -> None:
    settings = Settings()
    temporal = await connect_temporal({}, lazy=True)
    clients = WorkerClients(
        ObjectStore(store_config(settings)),
        {},
        Sandboxes(SandboxConfig("k")),
        Browser(Path("/no/browser")),
        BuildWorkflows(temporal, "queue"),
    )
    async with open_sessions(settings.database_url) as sessions:
        registered = [_name(each) for each in all_activities(settings, sessions, clients)]
    assert len(registered) == len(set(registered))
    assert set(registered) == set(_defined())


def _defined() -> list[str | None]:
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(activities.__path__, "activities.")]
    methods = {
        method
        for module in modules
        for _, owner in inspect.getmembers(module, inspect.isclass)
        for _, method in inspect.getmembers(owner, inspect.isfunction)
        if activity._Definition.from_callable(method) is not None
    }
    return [_name(method) for method in methods]


def _name(method: object) -> str | None:
    assert callable(method)
    return activity._Definition.must_from_callable(method).name


def test_what_is_measured_exists() -> None:
    assert {*COUNTS, *ENDS_WAIT} <= set(_defined())
