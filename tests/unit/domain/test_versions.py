"""Which versions of the workers can be forgotten."""

import pytest

from domain.versions import DeploymentVersion, VersionState, to_delete


@pytest.mark.parametrize("state", [state for state in VersionState if state is not VersionState.DRAINED])
def test_a_version_that_is_not_drained_stays(state: VersionState) -> None:
    assert to_delete([DeploymentVersion("old", state)], {}) == []


def test_drained_versions_go_in_the_order_of_the_deployment() -> None:
    versions = [
        DeploymentVersion("new", VersionState.CURRENT),
        DeploymentVersion("middle", VersionState.DRAINED),
        DeploymentVersion("old", VersionState.DRAINED),
    ]
    assert to_delete(versions, {"new": 3}) == ["middle", "old"]
    assert to_delete(versions, {"new": 3, "old": 0}) == ["middle", "old"]


def test_a_version_stays_if_a_build_was_just_seen_on_it() -> None:
    """Temporal notices some minutes later that a version has work again, such as after a reset."""
    drained = [DeploymentVersion("old", VersionState.DRAINED)]
    assert to_delete(drained, {"old": 1}) == []
