"""Servers that speak through pyigtl, so that an independent implementation is always in the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import WireError
from .process import announce, stop_signal


@contextmanager
def pyigtl_server(name: str, port: int, with_parent: bool) -> Iterator[tuple[Any, threading.Event]]:
    """A listening ``pyigtl.OpenIGTLinkServer`` and the event that ends it. Raises WireError when it cannot listen.

    It serves one peer at a time, and notices that one has left only when it sends to it.
    """
    try:
        import pyigtl
    except ImportError as error:
        raise WireError(f"the simulated {name} needs pyigtl; get it with 'pip install pyigtl'") from error
    try:
        server = pyigtl.OpenIGTLinkServer(port=port, local_server=True)
    except OSError as error:
        raise WireError(f"cannot listen on port {port}: {error.strerror or error}; choose another port") from error
    # After pyigtl has put its own signal handlers in place.
    stop = stop_signal(with_parent)
    try:
        announce(name, server.server_address[1])
        yield server, stop
    finally:
        server.stop()


def stream_to_peer(server: Any, stop: threading.Event, rate_hz: float, make: Callable[[float], list[Any]]) -> None:
    """Send ``make(seconds since the peer came)`` at ``rate_hz`` while a peer is there, until ``stop``."""
    start = due = time.monotonic()
    connected = False
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + 1 / rate_hz, time.monotonic() - 1 / rate_hz)
        if not server.is_connected():
            # pyigtl would keep 100 old messages for the next peer.
            connected = False
            with server.lock_outgoing_messages:
                server.outgoing_messages.clear()
            continue
        if not connected:
            connected, start = True, time.monotonic()
        for message in make(time.monotonic() - start):
            server.send_message(message, wait=False)
