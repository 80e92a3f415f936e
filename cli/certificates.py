"""Certificates of archives and exports as people read them."""

from collections.abc import Iterable, Mapping
from typing import Any

_KINDS = {"archive": "archived the conversation and the feed", "export": "exported all that there was"}


def sentence_of(certificate: Mapping[str, Any]) -> str:
    """What was done, when and why."""
    what = _KINDS.get(certificate["kind"], certificate["kind"])
    of = f" of build {certificate['build_id']}" if certificate["build_id"] else ""
    return f"{what}{of} {certificate['issued_at']} ({certificate['rule']})"


def rows_of(certificate: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The certificate as rows."""
    yield "certificate", certificate["id"]
    yield "what", _KINDS.get(certificate["kind"], certificate["kind"])
    for name in ("user_id", "project_id", "build_id", "rule", "issued_at"):
        if certificate[name]:
            yield name.removesuffix("_id").replace("_", " "), certificate[name]
    for kind, count in sorted(certificate["counts"].items()):
        yield kind.replace("_", " "), f"{count:,}"
    yield "sha-256 of the file", certificate["file_sha256"]
    yield "sha-256 of the manifest", certificate["manifest_sha256"]
    yield "sha-256", certificate["sha256"]
