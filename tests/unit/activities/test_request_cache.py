"""A worker's cache of request prefixes: what it keeps, returns and evicts."""

import uuid

from activities.turn.request_cache import PrefixCache, RequestPrefix
from clients.model.protocol import StoredConversation

ONE, OTHER = uuid.uuid4(), uuid.uuid4()


def _prefix(turn: int, text: str = "text") -> RequestPrefix:
    prefix = RequestPrefix(StoredConversation(b"s", b""))
    prefix.add(turn, [text])
    return prefix


def test_messages_are_added() -> None:
    prefix = RequestPrefix(StoredConversation(b"[]", b"[]"))
    prefix.add(1, ["ä"])
    prefix.add(2, [])
    prefix.add(3, ["b", "c"])
    assert prefix.conversation.messages == ("ä".encode(), b"b", b"c")
    assert (prefix.turn, prefix.size) == (3, 8)


def test_a_prefix_is_handed_to_one_attempt_only() -> None:
    cache = PrefixCache()
    cache.put(ONE, prefix := _prefix(3))
    assert cache.pop(OTHER, 0, 4) is None
    assert cache.pop(ONE, 0, 4) is prefix
    assert cache.pop(ONE, 0, 4) is None


def test_a_repeated_turn_finds_its_own_message_and_an_earlier_one_nothing() -> None:
    cache = PrefixCache()
    cache.put(ONE, prefix := _prefix(3))
    assert cache.pop(ONE, 0, 3) is prefix
    cache.put(ONE, prefix)
    assert cache.pop(ONE, 0, 2) is None


def test_the_least_recently_used_is_evicted() -> None:
    cache = PrefixCache(max_bytes=20)
    cache.put(ONE, _prefix(1, "x" * 9))
    cache.put(OTHER, _prefix(1, "y" * 9))
    cache.put(OTHER, _prefix(1, "z" * 10))
    assert cache.pop(ONE, 0, 2) is None
    assert cache.pop(OTHER, 0, 2) is not None


def test_another_prefix_of_the_conversation_is_not_handed_out() -> None:
    cache = PrefixCache()
    cache.put(ONE, _prefix(3))
    assert cache.pop(ONE, 1, 4) is None
    assert cache.pop(ONE, 0, 4) is None, "it is not needed any more"
