"""How OpenAPI describes the API's errors."""

from typing import Any

from api.errors import MEDIA_TYPE
from api.schemas import ProblemOut

_MEANS = {
    400: "The body is not JSON.",
    401: "The token is missing or wrong.",
    403: "The account is suspended.",
    404: "There is no such thing, or it is another user's.",
    409: "The request contradicts what is there.",
    413: "The body is too large.",
    422: "The request is not valid; `errors` names the fields.",
    500: "An error in the program.",
    503: "A server behind the API does not answer, or no builds are started at the moment.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with."""
    # Not FastAPI's `model`, which would describe it as application/json.
    content = {MEDIA_TYPE: {"schema": ProblemOut.model_json_schema()}}
    return {status: {"description": _MEANS[status], "content": content} for status in statuses}
