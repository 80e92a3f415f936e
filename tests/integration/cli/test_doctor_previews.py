"""`cofounder doctor` shows whether the addresses of previews lead to the API."""

import asyncio

from checks.check import CheckContext
from checks.services import check_previews
from settings import Settings


async def test_an_address_that_leads_elsewhere_is_reported() -> None:
    hosts: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        hosts.extend(line for line in head.lower().split(b"\r\n") if line.startswith(b"host:"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nConnection: close\r\n\r\nother")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    context = CheckContext(Settings(preview_url=f"http://*.localhost:{port}"), None)
    async with server:
        elsewhere = await check_previews(context)
    assert (elsewhere.state, "status 401, not as the API does" in elsewhere.detail) == ("fail", True)
    assert hosts == [f"host: {'0' * 32}.localhost:{port}".encode()]
    gone = await check_previews(context)
    assert (gone.state, "does not answer" in gone.detail) == ("fail", True)
    assert "docs/previews.md" in (gone.remedy or "")
