"""Run benchmarks by name, print a table for each, and with `--json` write all figures."""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from bench import turns


async def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--turns", default="25")
    p.add_argument("--json", type=Path)
    g = p.parse_args()
    found = await turns.measure([int(x) for x in g.turns.split(",")])
    for f in found:
        print(json.dumps({k: round(v, 3) for k, v in f.figures().items()}))


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)
