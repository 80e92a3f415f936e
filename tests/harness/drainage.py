"""Lets Temporal notice within seconds what it otherwise notices after minutes: a version without work or workers."""

from collections.abc import Mapping

NOTICED_SOON: Mapping[str, str] = {
    "matching.wv.VersionDrainageStatusVisibilityGracePeriod": '"1s"',
    "matching.wv.VersionDrainageStatusRefreshInterval": '"1s"',
    "matching.PollerHistoryTTL": '"20s"',
    "matching.longPollExpirationInterval": '"5s"',
}
"""For a stack's `temporal_config`. A worker asks for work again whenever its long poll is over, so that has to be
shorter than the time after which a worker that does not ask is forgotten."""
