"""Ports of servers that are away: nobody answers there, and no other process gets them meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held(*ports: int) -> Iterator[None]:
    """Hold ports without listening: connections are refused, and a server of this test may come back there.

    A port that was given free may be the next one that the system hands to any other process.
    """
    with ExitStack() as stack:
        for port in ports:
            end = stack.enter_context(socket.socket())
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: both may have it
            end.bind(("127.0.0.1", port))
        yield
