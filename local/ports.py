"""Ports on the loopback interface."""

import os
import random
import socket
import sys

from local.errors import PortBusy

LOOPBACK = "127.0.0.1"

# Below the range from which kernels take the ports of outgoing connections, so that none of those is in the way.
_LOWEST, _HIGHEST = 20_000, 32_000


class Ports:
    """The ports of one stack, kept from other stacks on this machine from the choice until `release`.

    Between the choice of a port and the moment when a server listens on it lies about a second, in which another stack
    that starts could choose it too. So each is reserved by a socket with a name that the kernel keeps only as long as
    the socket (Linux's abstract namespace): nothing to clean up, whatever happens to this process.
    """

    def __init__(self) -> None:
        self._reserved: dict[int, socket.socket] = {}

    def take(self, port: int) -> bool:
        """Reserve this port; say whether a server could listen on it now."""
        if not _is_free(port):
            return False
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if sys.platform.startswith("linux"):
            try:
                reservation.bind(f"\0cofounder-port-{port}")
            except OSError:
                reservation.close()
                return False
        self._reserved[port] = reservation
        return True

    def demand(self, port: int, part: str) -> None:
        """Reserve a port that somebody asked for; raise `PortBusy` where that cannot be."""
        if self.take(port):
            return
        reason = "may not be used without being root" if port < 1024 and os.geteuid() != 0 else "is in use"
        raise PortBusy(
            f"{part}: port {port} {reason}. Choose another with --port, leave --port out to get a free one, "
            f"or see who has it: ss -ltnp 'sport = :{port}'"
        )

    def choose(self, avoid: set[int]) -> int:
        """Reserve any free port that is not in `avoid`, and return it."""
        for _ in range(1000):
            port = random.randint(_LOWEST, _HIGHEST)
            if port not in avoid and self.take(port):
                return port
        raise PortBusy(f"No free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}.")

    def release(self) -> None:
        """Give all reservations back."""
        for reservation in self._reserved.values():
            reservation.close()
        self._reserved.clear()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just been closed is no obstacle
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError:
            return False
    return True
