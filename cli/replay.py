"""Replays histories with this version's workflows: stored ones in CI, a build's for operators before a deploy."""

from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from clients.temporal import data_converter, payload_keys
from domain.errors import InvalidInput
from domain.names import build_workflow_id
from workflows.build import BuildWorkflow
from workflows.bulk import BulkWorkflow
from workflows.erasure import ErasureWorkflow
from workflows.export import ExportWorkflow
from workflows.preview import PreviewWorkflow
from workflows.prober import ProberWorkflow
from workflows.reaper import ReaperWorkflow
from workflows.webhook import WebhookWorkflow


@dataclass(frozen=True)
class ReplayResult:
    """Whether a history replays; `problem` says where it and the code differ."""

    workflow_id: str
    events: int
    problem: str | None = None

    @property
    def replays(self) -> bool:
        """Whether this version can continue from the history."""
        return self.problem is None


def load_history(path: Path) -> WorkflowHistory:
    """Read a history as `temporal workflow show --output json` and `tests/replay/record.py` write it.

    Raises:
        InvalidInput: the file can't be read or is not a history.
    """
    try:
        return WorkflowHistory.from_json(path.stem, path.read_text())
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}.") from error
    except Exception as error:
        raise InvalidInput(
            f"{path} is not a workflow history. Export one with: temporal workflow show -w ID --output json ({error})"
        ) from error


async def replay_history(history: WorkflowHistory) -> ReplayResult:
    """Replay one history, without a server. One that is encrypted is read with PAYLOAD_KEY.

    Raises:
        Misconfigured: PAYLOAD_KEY is wrong.
    """
    replayer = Replayer(
        workflows=[
            BuildWorkflow,
            PreviewWorkflow,
            ReaperWorkflow,
            ProberWorkflow,
            WebhookWorkflow,
            ErasureWorkflow,
            ExportWorkflow,
            BulkWorkflow,
        ],
        data_converter=data_converter(payload_keys()),
    )
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    problem = None if result.replay_failure is None else str(result.replay_failure)
    return ReplayResult(history.workflow_id, len(history.events), problem)


async def replay_file(path: Path) -> ReplayResult:
    """Replay a stored history."""
    return await replay_history(load_history(path))


async def replay_build(client: Client, build_id: str) -> ReplayResult:
    """Replay the latest run of a build from the server."""
    return await replay_history(await client.get_workflow_handle(build_workflow_id(build_id)).fetch_history())
