"""The ids of operations, from which programs make names of functions. Made of method and path, which never change."""

from fastapi.routing import APIRoute

_OWN = {
    "POST /v1/sign-ins": "signIn",
    "DELETE /v1/sign-ins/current": "signOut",
    "GET /v1/events": "followBuilds",
    "GET /v1/builds/{build_id}/events": "followBuild",
    "GET /v1/builds/{build_id}/snapshots/current/archive": "readBuildArchive",
    "POST /v1/builds/{build_id}/preview": "openBuildPreview",
    "GET /v1/ops/bulk": "listOpsBulkRuns",
    "POST /v1/ops/bulk": "createOpsBulkRun",
    "GET /v1/ops/bulk/{run_id}": "readOpsBulkRun",
    "POST /v1/ops/bulk/{run_id}/stop": "stopOpsBulkRun",
    "POST /v1/ops/bulk/{run_id}/resume": "resumeOpsBulkRun",
    "PUT /v1/ops/switches": "setOpsSwitch",
    "DELETE /v1/ops/switches": "deleteOpsSwitch",
    "GET /v1/ops/fleet": "readFleet",
    "GET /v1/ops/builds": "listFleetBuilds",
    "GET /v1/ops/builds/{build_id}": "readFleetBuild",
    "GET /v1/ops/stuck": "listStuckBuilds",
    "GET /v1/ops/spend": "readSpend",
    "GET /v1/ops/checks": "listChecks",
    "POST /v1/ops/users/{user}/erase": "eraseUser",
}
"""Ids that the rule would make misleading."""

_VERBS = {"PUT": "set", "PATCH": "change", "DELETE": "delete"}
_NOT_PLURAL = ("progress",)


def operation_id(route: APIRoute) -> str:
    """Return the id, such as `listBuilds`, `readBuild` or `cancelBuild`."""
    method = min((route.methods or set()) - {"HEAD"})
    if own := _OWN.get(f"{method} {route.path}"):
        return own
    parts = [part for part in route.path.split("/") if part and part != "v1"] or ["root"]
    # The name of a list is singular where it names one of its entries.
    nouns = [
        _singular(part) if following.startswith("{") else part
        for part, following in zip(parts, [*parts[1:], ""], strict=True)
        if not part.startswith("{")
    ]
    *context, last = nouns
    if method == "GET":
        is_list = last == parts[-1] and _singular(last) != last
        return _camel("list" if is_list else "read", *nouns)
    if method == "POST":
        if _singular(last) != last:
            return _camel("create", *context, _singular(last))
        return _camel(last, *context)
    return _camel(_VERBS[method], *nouns)


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    return noun[:-1] if noun.endswith("s") and noun not in _NOT_PLURAL else noun


def _camel(*parts: str) -> str:
    first, *others = "-".join(parts).split("-")
    return first + "".join(word.capitalize() for word in others)
