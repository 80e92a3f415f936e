"""Each operation says which scope it needs."""

import importlib
import pkgutil

from fastapi.routing import APIRoute

from api import routes
from api.deps import scope_needed
from api.routes import health, sign_ins


def test_each_operation_needs_one_scope() -> None:
    modules = [importlib.import_module(f"api.routes.{each.name}") for each in pkgutil.iter_modules(routes.__path__)]
    described = [
        route
        for module in modules
        if module is not health
        for route in module.router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
    ]
    assert len(described) > 40
    for route in described:
        scopes = [scope for each in route.dependencies if (scope := scope_needed(each)) is not None]
        needed = 2 if (route.path, route.methods) == ("/account", {"DELETE"}) else 1  # it ends builds, too
        assert len(scopes) == needed, f"{route.methods} {route.path} declares {scopes or 'no scope'}"


def test_only_signing_in_and_out_need_no_identity() -> None:
    opened = [route for route in sign_ins.open_router.routes if isinstance(route, APIRoute)]
    paths = {route.path: route.methods for route in opened}
    assert paths == {"/sign-ins": {"POST"}, "/sign-ins/current": {"DELETE"}}
