"""Ends the work of a request whose client has gone away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed its connection; no one reads the answer."""


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run the work, and cancel it when the client goes away or the server stops. Call it once the body is read.

    Raises:
        ClientGone: the client went away, and the work has ended.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return await working
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.wait({working, leaving})


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
