"""Asks a Prometheus what it sees."""

from contextlib import suppress

import httpx2

from tests.harness.wait import DEADLINE, wait_until


async def until_targets_are_up(url: str) -> None:
    """Wait until Prometheus serves and has reached each of its targets."""
    async with httpx2.AsyncClient(base_url=url, timeout=DEADLINE, trust_env=False) as http:

        async def are_up() -> bool:
            with suppress(httpx2.HTTPError):
                targets = (await http.get("/api/v1/targets")).raise_for_status().json()["data"]["activeTargets"]
                return bool(targets) and all(each["health"] == "up" for each in targets)
            return False

        await wait_until(are_up, look_seconds=0.5)
