"""The hash of a build's request is stored, so it must not change between versions."""

import uuid

from db.builds import BuildRequest
from domain.build_options import BuildOptions
from domain.status import MAX_NIGHTS, SleepPolicy

_PROJECT = uuid.UUID("9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11")


def test_hashes_are_those_that_earlier_versions_stored() -> None:
    plain = BuildRequest(_PROJECT, "ada", "A list.")
    options = BuildRequest(_PROJECT, "ada", "A list.", None, BuildOptions(sleep_policy=SleepPolicy.STOP, max_nights=7))
    unicode = BuildRequest(_PROJECT, "ada", "Größe ✓", None, BuildOptions(max_nights=0))
    assert plain.body_hash == "908d9d24aff26c49d803bdaaa292121e42b66841ffdc41c5354c6fd0adcc6276"
    assert options.body_hash == "dd923daead35021319dcf1ee2b218f2fc13b51d97bb277109abebac575f219ab"
    assert unicode.body_hash == "d1692f13e9b6943c2c570b0c421a977c0b7159b87e8861073212ccdc52ec0622"


def test_user_key_and_defaults_do_not_count() -> None:
    plain = BuildRequest(_PROJECT, "ada", "A list.")
    assert (
        BuildRequest(_PROJECT, "eve", "A list.", "key", BuildOptions(max_nights=MAX_NIGHTS)).body_hash
        == plain.body_hash
    )
