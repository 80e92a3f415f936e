"""Ports on the loopback interface."""

import os
import random
import socket
import sys

from local.errors import PortBusy

LOOPBACK = "127.0.0.1"

# Below the range from which kernels take the ports of outgoing connections, so that those never collide with ours.
_LOWEST, _HIGHEST = 20_000, 32_000


class Ports:
    """The ports of one stack, reserved from the choice until `release`: no other stack on this machine takes them.

    A server listens on its port about a second after the port was chosen. Another stack that starts meanwhile could
    choose the same one. So a socket in Linux's abstract namespace, named after the port, reserves it. The kernel drops
    the name with the socket, so nothing needs cleaning up, whatever happens to this process.
    """

    def __init__(self) -> None:
        self._reserved: dict[int, socket.socket] = {}

    def take(self, port: int) -> bool:
        """Reserve this port. Return False if a server could not listen on it now."""
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
        """Reserve a requested port. Raises `PortBusy` if it is taken or not allowed."""
        if self.take(port):
            return
        reason = "may not be used without being root" if port < 1024 and os.geteuid() != 0 else "is in use"
        raise PortBusy(
            f"{part}: port {port} {reason}. Choose another with --port, leave --port out to get a free one, "
            f"or see which program has it: ss -ltnp 'sport = :{port}'"
        )

    def choose(self, avoid: set[int]) -> int:
        """Reserve a free port that is not in `avoid`, and return it.

        Raises `PortBusy` if there is none.
        """
        for _ in range(1000):
            port = random.randint(_LOWEST, _HIGHEST)
            if port not in avoid and self.take(port):
                return port
        raise PortBusy(
            f"All ports between {_LOWEST} and {_HIGHEST} on {LOOPBACK} are taken. "
            "Stop programs that listen there; see them with: ss -ltnp"
        )

    def release(self) -> None:
        """Release all reservations."""
        for reservation in self._reserved.values():
            reservation.close()
        self._reserved.clear()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # accept a port that was just closed
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError:
            return False
    return True
