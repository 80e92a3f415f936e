"""Build the template of deploy/e2b in E2B's cloud, or ask an image whether it has what products need.

python -m scripts.e2b_template build --name cofounder   needs E2B_API_KEY; E2B builds, without Docker here
python -m scripts.e2b_template probe                    print the command that asks for every tool
python -m scripts.e2b_template lacking < OUTPUT         say what is lacking by that command's output
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from e2b import AsyncTemplate, LogEntry, TemplateClass
from e2b.exceptions import AuthenticationException, BuildException, SandboxException

from domain.sandbox_tools import lacks, probe_command, versions

DOCKERFILE = Path(__file__).parents[1] / "deploy" / "e2b" / "Dockerfile"
_ERRORS = (AuthenticationException, BuildException, SandboxException, httpx.HTTPError, OSError)


def template() -> TemplateClass:
    """The template as E2B's SDK reads the Dockerfile."""
    return AsyncTemplate().from_dockerfile(str(DOCKERFILE))


async def build(name: str, cpus: int, memory_mb: int) -> int:
    """Let E2B build the template, and print its log. Return the exit code."""
    try:
        built = await AsyncTemplate.build(
            template(), name, cpu_count=cpus, memory_mb=memory_mb, on_build_logs=_print_log_entry
        )
    except _ERRORS as error:
        sys.stderr.write(f"error: the template was not built: {error}\n")
        return 1
    sys.stdout.write(f"Built {built.name} ({built.template_id}). Use it with E2B_TEMPLATE={built.name}.\n")
    return 0


def tell_lacking(output: str) -> int:
    """Print what is lacking by the output of `probe`. Return the exit code."""
    found = versions(output)
    lacking = lacks(found)
    for each in lacking:
        sys.stdout.write(f"{each.text()}\n")
    if not lacking:
        sys.stdout.write(f"All {len(found)} tools are there.\n")
    return 1 if lacking else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.e2b_template", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builds = commands.add_parser("build", help="let E2B build the template")
    builds.add_argument("--name", default="cofounder", help="name of the template, for E2B_TEMPLATE")
    builds.add_argument("--cpus", type=int, default=2, help="processors of each sandbox")
    builds.add_argument("--memory-mb", type=int, default=4096, help="memory of each sandbox in MiB")
    commands.add_parser("probe", help="print the command that asks a sandbox for every tool")
    commands.add_parser("lacking", help="read that command's output, and say what is lacking")
    chosen = parser.parse_args(arguments)
    if chosen.command == "build":
        return asyncio.run(build(chosen.name, chosen.cpus, chosen.memory_mb))
    if chosen.command == "lacking":
        return tell_lacking(sys.stdin.read())
    sys.stdout.write(f"{probe_command()}\n")
    return 0


def _print_log_entry(entry: LogEntry) -> None:
    sys.stdout.write(f"{entry}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
