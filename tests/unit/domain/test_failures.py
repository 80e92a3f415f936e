"""What an activity's failure means for its build."""

from domain.failures import judge_failure
from domain.status import WaitingFor


def test_failures() -> None:
    assert judge_failure("BuildFailed", "no brief", []).waiting_for is None
    assert judge_failure("AccountSuspended", "suspended", []).waiting_for is None
    assert judge_failure("NeedsPerson", "no key", ["operator"]).waiting_for is WaitingFor.OPERATOR
    assert judge_failure("NeedsPerson", "no bucket", ["store"]).waiting_for is WaitingFor.STORE
    assert judge_failure("SnapshotFailed", "differs", []).waiting_for is WaitingFor.STORE
    assert judge_failure("SandboxUnavailable", "away", []).waiting_for is WaitingFor.OPERATOR
    assert judge_failure(None, "who knows", []).waiting_for is WaitingFor.OPERATOR
