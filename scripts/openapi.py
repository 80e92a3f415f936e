"""Write the description of the API (OpenAPI) to a file, or to standard output. Starts no server.

.venv/bin/python -m scripts.openapi web/openapi.json
"""

import json
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from api.app import create_app
from api.deps import Resources


class _Unopened(AbstractAsyncContextManager[Resources]):
    """Resources that nothing opens: the description needs none."""

    async def __aexit__(self, *error: object) -> None:
        return None


def description() -> str:
    """The description as the API serves it at /openapi.json, in JSON."""
    return json.dumps(create_app(_Unopened()).openapi(), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the description. Return an exit code."""
    if len(arguments) > 1:
        sys.stderr.write("usage: python -m scripts.openapi [FILE]\n")
        return 2
    if arguments:
        Path(arguments[0]).write_text(description(), encoding="utf-8")
    else:
        sys.stdout.write(description())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
