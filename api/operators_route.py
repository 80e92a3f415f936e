"""Routes of which founders find nothing, whatever they send."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api.deps import check_operator


class OperatorsRoute(APIRoute):
    """A route that only operators find.

    FastAPI reads a body before it asks the dependencies, so a body that is not JSON would be answered before anyone
    has looked at who sends it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Answer as FastAPI does, and with a 404 if someone else sends what can't be read."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                await check_operator(request)
                raise
            except HTTPException as error:
                if error.status_code != 404:  # a 404 is the answer of `for_operators`, which has looked
                    await check_operator(request)
                raise

        return answer
