"""The connection to Temporal: the client uses the environment and the profiles, and mistakes are named. Failures in
history are short."""

import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import ConnectConfig, TLSConfig

from clients.search_attributes import creation_command
from clients.temporal import _PROGRAM, DATA_CONVERTER, EncodedFailureConverter, _is_own, connect_temporal
from domain.errors import Misconfigured

CLOUD = {"TEMPORAL_ADDRESS": "eu-central-1.aws.api.temporal.io:7233", "TEMPORAL_NAMESPACE": "shop.a1b2c"}

PROFILES = """
[profile.default]
address = "temporal.example:7233"
namespace = "products"

[profile.cloud]
address = "shop.a1b2c.tmprl.cloud:7233"
namespace = "shop.a1b2c"

[profile.cloud.tls]
server_name = "temporal.internal"
client_cert_path = "{cert}"
client_key_path = "{key}"

[profile.cloud.grpc_meta]
x-team = "founders"
"""


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"
    cert.write_bytes(b"the certificate")
    key.write_bytes(b"its key")
    return cert, key


@pytest.fixture
def profiles(tmp_path: Path, certificate: tuple[Path, Path]) -> dict[str, str]:
    file = tmp_path / "temporal.toml"
    file.write_text(PROFILES.format(cert=certificate[0], key=certificate[1]))
    return {"TEMPORAL_CONFIG_FILE": str(file)}


async def connected(environment: Mapping[str, str]) -> tuple[Client, ConnectConfig]:
    """Return a client that has not connected yet, and its configuration."""
    client = await connect_temporal(environment, lazy=True)
    return client, client.service_client.config


async def test_api_key_of_temporal_cloud() -> None:
    client, config = await connected(CLOUD | {"TEMPORAL_API_KEY": "a-key"})
    assert (client.namespace, config.target_host) == ("shop.a1b2c", "eu-central-1.aws.api.temporal.io:7233")
    assert config.api_key == "a-key"
    assert config.tls


async def test_mutual_tls_by_variables(certificate: tuple[Path, Path]) -> None:
    paths = {"TEMPORAL_TLS_CLIENT_CERT_PATH": str(certificate[0]), "TEMPORAL_TLS_CLIENT_KEY_PATH": str(certificate[1])}
    name = {"TEMPORAL_TLS_SERVER_NAME": "temporal.internal"}
    _, config = await connected({"TEMPORAL_ADDRESS": "h:7233"} | paths | name)
    assert isinstance(config.tls, TLSConfig)
    assert (config.tls.client_cert, config.tls.client_private_key) == (b"the certificate", b"its key")
    assert config.tls.domain == "temporal.internal"


async def test_default_profile(profiles: dict[str, str]) -> None:
    client, config = await connected(profiles)
    assert (client.namespace, config.target_host, config.tls) == ("products", "temporal.example:7233", None)


async def test_named_profile(profiles: dict[str, str]) -> None:
    client, config = await connected(profiles | {"TEMPORAL_PROFILE": "cloud"})
    assert (client.namespace, config.target_host) == ("shop.a1b2c", "shop.a1b2c.tmprl.cloud:7233")
    assert isinstance(config.tls, TLSConfig)
    assert (config.tls.client_cert, config.tls.domain) == (b"the certificate", "temporal.internal")
    assert config.rpc_metadata == {"x-team": "founders"}


async def test_variables_go_before_the_profile(profiles: dict[str, str]) -> None:
    client, config = await connected(profiles | {"TEMPORAL_NAMESPACE": "other", "TEMPORAL_API_KEY": "a-key"})
    assert (client.namespace, config.api_key, config.target_host) == ("other", "a-key", "temporal.example:7233")


async def test_no_configuration_means_this_machine() -> None:
    client, config = await connected({"TEMPORAL_CONFIG_FILE": "/dev/null"})
    assert (client.namespace, config.target_host, config.tls) == ("default", "localhost:7233", None)


async def test_empty_variables_are_none() -> None:
    """Compose passes on empty variables; an empty key must not switch on TLS."""
    empty = dict.fromkeys(("TEMPORAL_API_KEY", "TEMPORAL_NAMESPACE", "TEMPORAL_PROFILE", "TEMPORAL_TLS"), "")
    client, config = await connected({"TEMPORAL_ADDRESS": "h:1", "TEMPORAL_CONFIG_FILE": "/dev/null"} | empty)
    assert (client.namespace, config.api_key, config.tls) == ("default", None, None)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"TEMPORAL_API_KEY": "geheim\n"}, "TEMPORAL_API_KEY has a line break"),
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "/nowhere.pem"}, "No such file or directory: '/nowhere.pem'"),
        ({"TEMPORAL_TLS_CLIENT_CERT_DATA": "a certificate"}, "certificate and its key .* go together"),
        ({"TEMPORAL_CONFIG_FILE": "/nowhere.toml", "TEMPORAL_PROFILE": "cloud"}, "Correct TEMPORAL_PROFILE"),
    ],
)
async def test_mistakes_are_named(environment: dict[str, str], says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as refused:
        await connected({"TEMPORAL_ADDRESS": "h:1"} | environment)
    assert "geheim" not in str(refused.value)


async def test_a_server_that_wants_another_key_is_not_said_to_be_down() -> None:
    with pytest.raises(Misconfigured, match=r"at 127\.0\.0\.1:1\. Check TEMPORAL_ADDRESS, and the key or certificate"):
        await connect_temporal({"TEMPORAL_ADDRESS": "127.0.0.1:1", "TEMPORAL_API_KEY": "a-key"})


async def test_search_attributes_are_created_with_the_tool_of_the_server() -> None:
    cloud, _ = await connected(CLOUD | {"TEMPORAL_API_KEY": "a-key"})
    assert creation_command(cloud, ("BuildUser", "BuildPlan")) == (
        "tcld namespace search-attributes add --namespace shop.a1b2c "
        "--search-attribute BuildUser=Keyword --search-attribute BuildPlan=Keyword"
    )
    own, _ = await connected({"TEMPORAL_ADDRESS": "temporal.example:7233", "TEMPORAL_NAMESPACE": "products"})
    assert creation_command(own, ("BuildUser",)) == (
        "temporal operator search-attribute create --address temporal.example:7233 --namespace products "
        "--name BuildUser --type Keyword"
    )


@pytest.fixture
def own_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this file for the program's."""
    monkeypatch.setattr("clients.temporal._OWN_PACKAGES", ("tests",))


def _fail_below(frames: int, error: Exception) -> None:
    if frames == 0:
        raise error from OSError("refused")
    _go_on(frames - 1, error)  # not itself: Python shows the same line only three times in a row


def _go_on(frames: int, error: Exception) -> None:
    if frames == 0:
        raise error from OSError("refused")
    _fail_below(frames - 1, error)


def _raised(fail: Callable[[], object]) -> Exception:
    try:
        fail()
    except Exception as error:
        return error
    raise AssertionError


def _failure_of(error: Exception) -> Failure:
    failure = Failure()
    DATA_CONVERTER.failure_converter.to_failure(error, DATA_CONVERTER.payload_converter, failure)
    return failure


@pytest.mark.usefixtures("own_frames")
@pytest.mark.parametrize(("frames", "kept"), [(0, 3), (1, 4), (2, 4), (40, 4)])
def test_a_failure_in_history_has_the_innermost_frames(frames: int, kept: int) -> None:
    error = _raised(lambda: _fail_below(frames, ApplicationError("The object store does not let us write.")))
    whole = traceback.extract_tb(error.__traceback__)
    failure = _failure_of(error)
    assert failure.stack_trace.count("  File ") == kept
    assert "raise error from OSError" in failure.stack_trace, "where it happened"
    assert (failure.message, failure.cause.message) == ("The object store does not let us write.", "refused")
    assert traceback.extract_tb(error.__traceback__) == whole, "the log still has all of them"


@pytest.mark.usefixtures("own_frames")
def test_a_failure_within_a_library_says_from_where_it_was_called() -> None:
    pattern = "(" * 300 + ")" * 300  # the parser of regular expressions calls itself for each
    whole = _raised(lambda: re.compile(pattern + "("))
    failure = _failure_of(whole)
    assert len(traceback.extract_tb(whole.__traceback__)) > 7
    lines = [line for line in failure.stack_trace.splitlines() if line.startswith("  File ")]
    assert [__file__ in line for line in lines] == [True, True, False, False]


@pytest.mark.usefixtures("own_frames")
def test_a_failure_for_a_codec_has_nothing_in_plain() -> None:
    failure = Failure()
    error = _raised(lambda: _fail_below(40, ApplicationError("The object store does not let us write.")))
    EncodedFailureConverter().to_failure(error, DATA_CONVERTER.payload_converter, failure)
    assert (failure.message, failure.stack_trace) == ("Encoded failure", "")
    [hidden] = DATA_CONVERTER.payload_converter.from_payloads([failure.encoded_attributes], [dict[str, str]])
    assert hidden["stack_trace"].count("  File ") == 4


@pytest.mark.parametrize(
    ("path", "is_own"),
    [
        ("activities/think.py", True),
        ("clients/model/anthropic.py", True),
        (".venv/lib/python3.11/site-packages/activities/think.py", False),
        ("sqlalchemy/engine/base.py", False),
        ("typing_extensions.py", False),
    ],
)
def test_the_program_is_told_from_libraries_also_in_a_wheel(path: str, is_own: bool) -> None:
    assert _is_own(f"{_PROGRAM}/{path}") is is_own
    assert not _is_own(f"/usr/lib/python3.11/{path}")
