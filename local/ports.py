"""Ports on the loopback interface."""

import random
import socket

from local.errors import PortBusy

LOOPBACK = "127.0.0.1"

# Below the range from which kernels take the ports of outgoing connections, so that none of those is in the way.
_LOWEST, _HIGHEST = 20_000, 32_000


def check(port: int, part: str) -> None:
    """Raise `PortBusy` unless a server could listen on this port of the loopback interface now."""
    try:
        _listen(port).close()
    except OSError as error:
        reason = "is in use" if not isinstance(error, PermissionError) else "may not be used without being root"
        raise PortBusy(
            f"{part}: port {port} {reason}. Choose another with --port, leave --port out to get a free one, "
            f"or see who has it: ss -ltnp 'sport = :{port}'"
        ) from None


def is_free(port: int) -> bool:
    """Say whether a server could listen on this port of the loopback interface now."""
    try:
        _listen(port).close()
    except OSError:
        return False
    return True


def choose(taken: set[int]) -> int:
    """Return a port that is free now and not in `taken`.

    Chosen at random: two stacks that start at the same time are unlikely to choose the same one.
    """
    for _ in range(1000):
        port = random.randint(_LOWEST, _HIGHEST)
        if port not in taken and is_free(port):
            return port
    raise PortBusy(f"No free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}.")


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just been closed is no obstacle
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
