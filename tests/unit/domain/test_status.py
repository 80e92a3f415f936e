"""The order of a build's statuses."""

from domain.status import CLOSED, WORKING, Status, may_follow


def test_status_order() -> None:
    assert may_follow(Status.QUEUED, Status.STARTING)
    assert may_follow(Status.CHECKS, Status.READY)
    assert may_follow(Status.CHECKS, Status.CODE)
    assert not may_follow(Status.CODE, Status.READY), "only the gate makes a build ready"
    for status in WORKING:
        assert may_follow(status, Status.SLEEPING)
        assert may_follow(Status.SLEEPING, status)
        assert may_follow(status, Status.CANCELLED)
    for closed in CLOSED:
        assert not any(may_follow(closed, status) for status in Status)
