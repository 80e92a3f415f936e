"""What a worker remembers of the conversations that it has sent."""

import uuid

from activities.sent import Sent, SentConversations

ONE, OTHER = uuid.uuid4(), uuid.uuid4()


def _sent(turn: int, text: str = "text") -> Sent:
    sent = Sent(bytearray(b"["))
    sent.add(turn, [text])
    return sent


def test_messages_are_joined() -> None:
    sent = Sent(bytearray(b"["))
    sent.add(1, ["ä"])
    sent.add(2, [])
    sent.add(3, ["b", "c"])
    assert (sent.text.decode(), sent.turn) == ("[ä,b,c", 3)


def test_whoever_takes_one_has_it_alone() -> None:
    kept = SentConversations()
    kept.keep(ONE, sent := _sent(3))
    assert kept.take(OTHER, 4) is None
    assert kept.take(ONE, 4) is sent
    assert kept.take(ONE, 4) is None


def test_a_turn_that_is_asked_again_finds_its_own_message_and_an_earlier_one_nothing() -> None:
    kept = SentConversations()
    kept.keep(ONE, sent := _sent(3))
    assert kept.take(ONE, 3) is sent
    kept.keep(ONE, sent)
    assert kept.take(ONE, 2) is None


def test_what_was_used_longest_ago_is_forgotten() -> None:
    kept = SentConversations(most_bytes=20)
    kept.keep(ONE, _sent(1, "x" * 9))
    kept.keep(OTHER, _sent(1, "y" * 9))
    kept.keep(OTHER, _sent(1, "z" * 10))
    assert kept.take(ONE, 2) is None
    assert kept.take(OTHER, 2) is not None
