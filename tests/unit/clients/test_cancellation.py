"""A cancel is kept even if a library loses it."""

import asyncio

import pytest

from clients.cancellation import cancel_and_wait, preserve_cancel
from clients.sandbox import SandboxConfig, Sandboxes


async def _as_libraries_wait(answer: asyncio.Future[str]) -> str:
    return await asyncio.wait_for(answer, 60)


async def test_a_cancel_at_the_moment_of_the_answer_is_not_lost_with_it() -> None:
    sandboxes = Sandboxes(SandboxConfig(api_key="k"))
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(sandboxes.ask("wait", _as_libraries_wait(answer)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result("there")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_block_that_is_not_cancelled_keeps_its_answer_and_its_error() -> None:
    with preserve_cancel():
        answer = await asyncio.sleep(0, "there")
    assert answer == "there"
    with pytest.raises(ValueError, match="no"), preserve_cancel():
        raise ValueError("no")
    with pytest.raises(TimeoutError), preserve_cancel():
        async with asyncio.timeout(0):
            await asyncio.sleep(60)

    async def under_a_deadline() -> None:
        async with asyncio.timeout(0):
            with preserve_cancel():
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await under_a_deadline()


async def test_what_ran_beside_a_block_tells_its_error_and_lets_our_own_cancel_through() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    failing = asyncio.create_task(fails())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="broken"):
        await cancel_and_wait(failing)

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)

    beside = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    ending = asyncio.create_task(cancel_and_wait(beside))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await asyncio.wait({beside})
