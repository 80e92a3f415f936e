"""What Temporal stores is encrypted as a whole, and plain and encrypted payloads mix."""

import base64

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from clients.payload_codec import EncryptingCodec
from clients.temporal import DATA_CONVERTER, data_converter
from domain.errors import PayloadUnreadable
from domain.payload_keys import PayloadKeys, lost_key, parse_payload_keys

OLD, NEW, OTHER = (f"{name}:{base64.b64encode(name[0].encode() * 32).decode()}" for name in ("old", "new", "third"))
OTHER_OLD = f"old:{base64.b64encode(b'x' * 32).decode()}"
WORDS = "a bakery that delivers by bicycle"


async def test_what_is_encrypted_is_read_with_each_key_and_plain_text_too() -> None:
    [plain] = await DATA_CONVERTER.encode([WORDS])
    [before] = await data_converter(parse_payload_keys(OLD)).encode([WORDS])
    rotated = data_converter(parse_payload_keys(f"{NEW},{OLD}"))
    [after] = await rotated.encode([WORDS])
    assert WORDS in plain.SerializeToString().decode()
    for payload in (before, after):
        assert WORDS.encode() not in payload.SerializeToString()
        assert b"json" not in payload.SerializeToString()
    assert await rotated.decode([plain, before, after], [str, str, str]) == [WORDS] * 3
    [written] = await data_converter(parse_payload_keys(f"plain,{OLD}")).encode([WORDS])
    assert written == plain


async def test_a_lost_and_a_wrong_key_are_named() -> None:
    [payload] = await EncryptingCodec(parse_payload_keys(OLD)).encode(await DATA_CONVERTER.encode([WORDS]))
    with pytest.raises(PayloadUnreadable, match="with the key old, which PAYLOAD_KEY does not have"):
        await EncryptingCodec(parse_payload_keys(NEW)).decode([payload])
    with pytest.raises(PayloadUnreadable, match="does not fit the key old in PAYLOAD_KEY"):
        await EncryptingCodec(parse_payload_keys(OTHER_OLD)).decode([payload])


async def test_error_texts_are_encrypted_with_their_causes() -> None:
    converter, failure = data_converter(parse_payload_keys(OLD)), Failure()
    try:
        try:
            raise ValueError(WORDS)
        except ValueError as cause:
            raise ApplicationError(f"{WORDS}!", type="BuildFailed") from cause
    except ApplicationError as error:
        await converter.encode_failure(error, failure)
    assert WORDS not in str(failure)
    assert failure.application_failure_info.type == "BuildFailed"
    decoded = await converter.decode_failure(failure)
    assert (str(decoded), WORDS in str(decoded.__cause__)) == (f"BuildFailed: {WORDS}!", True)


def test_a_users_label_is_their_id_only_if_nothing_is_encrypted() -> None:
    keys = parse_payload_keys(OLD)
    assert keys.label("founder-1") == keys.label("founder-1") != keys.label("founder-2")
    assert "founder" not in keys.label("founder-1")
    assert PayloadKeys().label("founder-1") == parse_payload_keys(f"plain,{OLD}").label("founder-1") == "founder-1"


def test_keys_that_builds_have_used_must_be_there() -> None:
    used = parse_payload_keys(OLD).check_values
    assert lost_key(parse_payload_keys(f"{NEW},{OLD}"), used) is None
    assert lost_key(PayloadKeys(), {}) is None
    assert "key old, which PAYLOAD_KEY does not have" in str(lost_key(parse_payload_keys(NEW), used))
    assert "key old, which PAYLOAD_KEY does not have" in str(lost_key(PayloadKeys(), used))
    assert "another one than the key old" in str(lost_key(parse_payload_keys(OTHER_OLD), used))


@pytest.mark.parametrize("text", ["plain", "old", "old:c2hvcnQ=", f"{OLD},{OLD}", f"{OLD},plain", ""])
def test_what_is_not_a_list_of_keys(text: str) -> None:
    with pytest.raises(ValueError, match=r"key|twice") as refused:
        parse_payload_keys(text)
    assert OLD.partition(":")[2] not in str(refused.value)
