"""Manifests of up to a million files: read, written and compared in a thread, so that heartbeats go on meanwhile."""

import asyncio
from collections.abc import Sequence

from domain.manifest import Entry, compare, digest, parse_manifest, render_manifest


async def read_manifest(text: str) -> list[Entry]:
    """Parse a manifest; see `parse_manifest`."""
    return await asyncio.to_thread(parse_manifest, text)


async def write_manifest(entries: Sequence[Entry]) -> tuple[str, str]:
    """Return the manifest's text and its SHA-256."""

    def write() -> tuple[str, str]:
        text = render_manifest(entries)
        return text, digest(text)

    return await asyncio.to_thread(write)


async def compare_manifests(stored: Sequence[Entry], actual: Sequence[Entry]) -> list[str]:
    """Return how a workspace differs from its manifest; see `compare`."""
    return await asyncio.to_thread(compare, stored, actual)
