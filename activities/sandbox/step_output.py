"""What a product's commands print in a sandbox, and the reports that its test runner writes there."""

import shlex
from collections import Counter
from pathlib import PurePosixPath

from clients.archive import read_beginning
from clients.sandbox import CallOutcome, Sandbox
from clients.sandbox_runner import JOURNAL, WORKSPACE
from domain.check_summary import REPORT_ELEMENTS, Tally, tally_report
from domain.egress import refused_hosts
from domain.errors import InvalidInput
from domain.evidence import StepOutcome
from domain.findings import Output

KEPT_OUTPUTS = f"{JOURNAL}/gate"
"""Folder in the agent's sandbox with the outputs that are too long for a finding."""

HALF_BYTES = 500_000
"""How much of the beginning of an output is read, and again of its end."""

_SECONDS = 60.0
_REPORTS_MAX = 200
_REPORT_KILOBYTES = 20_000


async def step_outcome(sandbox: Sandbox, command: str, outcome: CallOutcome) -> StepOutcome:
    """The outcome of a command, with as much of its output as a finding may need."""
    output = Output(outcome.text, outcome.tail, outcome.output_bytes)
    if outcome.tail:
        output = await read_output(sandbox, outcome.output_path, outcome.output_bytes) or output
    refused = refused_hosts(outcome.refused_hosts)
    return StepOutcome(command, outcome.exit_code, outcome.timed_out, outcome.seconds, output, refused)


async def read_output(sandbox: Sandbox, path: str, size: int | None = None) -> Output | None:
    """Read a file with the output of a command: all of it, or its beginning and end.

    Args:
        size: how many bytes of the file belong to the output, if it may have grown since.

    Returns:
        None if there is no such file.
    """
    try:
        if size is None:
            stat = await sandbox.run(f"stat --format=%s {shlex.quote(path)}", timeout_seconds=_SECONDS, cwd="/")
            size = int(stat.stdout) if stat.exit_code == 0 else 0
        head = await read_beginning(sandbox, path, size if size <= 2 * HALF_BYTES else HALF_BYTES)
    except (FileNotFoundError, InvalidInput):
        return None
    if size <= 2 * HALF_BYTES:
        return Output(head.decode("utf-8", "replace"), bytes=size)
    end = f"head --bytes={size} {shlex.quote(path)} | tail --bytes={HALF_BYTES}"
    tail = await sandbox.run(end, timeout_seconds=_SECONDS, cwd="/")
    return Output(head.decode("utf-8", "replace"), tail.stdout, size)


async def read_reports(sandbox: Sandbox, call_id: str) -> Tally:
    """The tally of the JUnit XML reports that have been written in the workspace since a call began.

    The elements are counted in the sandbox: this program parses no XML of a product.
    """
    script = f"""
find {WORKSPACE} \\( -name .git -o -name node_modules \\) -prune -o -type f -name '*.xml' -size -{_REPORT_KILOBYTES}k \
  -newer {JOURNAL}/calls/{call_id}/keeper -print0 2>/dev/null | head -z -n {_REPORTS_MAX} |
while IFS= read -r -d '' file; do
  grep -q '<testsuite' "$file" || continue
  printf '%s\\t' "${{file#{WORKSPACE}/}}" | tr -d '\\n'
  grep -oE '<({"|".join(REPORT_ELEMENTS)})[ />]' "$file" | tr -d '<> /' | sort | uniq -c | tr '\\n' ' '
  echo
done
"""
    output = await sandbox.run(script, timeout_seconds=_SECONDS, cwd="/")
    total = Tally()
    for line in output.stdout.splitlines():
        path, _, counts = line.rpartition("\t")
        words = counts.split()
        total += tally_report(
            Counter({name: int(number) for number, name in zip(words[::2], words[1::2], strict=False)}), path
        )
    return total


async def keep_outputs(sandbox: Sandbox, number: int, outputs: dict[str, str]) -> None:
    """Write the outputs of a gate run to where its findings say that the agent can read them."""
    for step, text in outputs.items():
        path = kept_output(number, step)
        if not await sandbox.exists(path):
            await sandbox.write(path, text)


def kept_output(number: int, step: str) -> str:
    """The file in the agent's sandbox that has the output of a step of a gate run."""
    return str(PurePosixPath(KEPT_OUTPUTS) / f"{number}-{step}.txt")
