"""Erasures as people read them."""

from collections.abc import Iterable, Mapping
from typing import Any


def sentence_of(erasure: Mapping[str, Any]) -> str:
    """What is erased, and how far that is."""
    what = f"project {erasure['project_id']}" if erasure["project_id"] else f"all that {erasure['user_id']} had"
    state = f"erased {erasure['finished_at']}" if erasure["finished_at"] else f"asked for {erasure['requested_at']}"
    return f"{what}: {state}"


def rows_of(erasure: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The erasure, or its certificate, as rows."""
    yield "erasure", erasure["id"]
    yield "of", sentence_of(erasure).partition(":")[0]
    yield "asked for", f"{erasure['requested_at']} by {erasure['requested_by']}"
    yield "finished", erasure["finished_at"] or "not yet"
    for kind, count in sorted(erasure["counts"].items()):
        yield kind.replace("_", " "), str(count)
    if erasure["sha256"]:
        yield "sha-256", erasure["sha256"]
