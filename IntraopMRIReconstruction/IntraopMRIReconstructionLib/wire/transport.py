"""OpenIGTLink over TCP: a client and a server with the same face, see :class:`Endpoint`."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from functools import partial
from typing import Unpack

from ..errors import WireError
from .connection import TICK_S, Limits
from .endpoint import LATEST_TYPES, Counters, Endpoint, LinkEvent, Options
from .intake import IdentityGuard, Received

__all__ = [
    "LATEST_TYPES",
    "Client",
    "Counters",
    "Endpoint",
    "IdentityGuard",
    "Limits",
    "LinkEvent",
    "Received",
    "Server",
]

DEFAULT_PORT = 18944
LOOPBACK = "127.0.0.1"

#: First and longest pause between two attempts to connect again.
BACK_OFF_S = (0.05, 2.0)
#: A link that brought no more and ended as soon was a greeting: a server that has no place for us says so and hangs up.
GREETING = 10


class Server(Endpoint):
    """Listens on ``host``:``port`` (0 takes a free one, see :attr:`port`). Loopback unless another host is named."""

    def __init__(self, port: int = 0, host: str = LOOPBACK, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.host, self._asked_port = host, port
        self._listener: socket.socket | None = None
        self._port = port

    @property
    def port(self) -> int:
        """The port that is listened on, or was before :meth:`close`."""
        return self._port

    @property
    def address(self) -> str:
        """Host and port, for a person."""
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        """Stop listening, end all links and threads."""
        self._closing.set()
        if self._listener is not None:
            # Wakes the accepting thread where the system does so (Linux); elsewhere it looks up after a tick.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        super().close()
        if self._listener is not None:
            self._listener.close()

    def _open(self) -> None:
        try:
            self._listener = socket.create_server((self.host, self._asked_port), backlog=self.limits.peers)
        except OSError as error:
            raise WireError(
                f"cannot listen on {self.host}:{self._asked_port}: {error.strerror or error}; choose another port, "
                "or end the program that uses it"
            ) from error
        self._listener.settimeout(TICK_S)
        self._port = self._listener.getsockname()[1]
        reach = "this computer only" if _is_loopback(self.host) else "EVERYBODY ON THE NETWORK can connect"
        self._tell(self.address, "listening", f"listening on {self.address} ({reach})")
        self._start(self._accept, f"server {self.port}")

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._closing.is_set():
            try:
                sock, address = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._closing.is_set():
                    return
                # Too many open files: the peer waits in the backlog until one is free.
                self._closing.wait(0.1)
                continue
            peer = f"{address[0]}:{address[1]}"
            if len(self.peers) >= self.limits.peers:
                sock.close()
                with self._lock:
                    self._counters.lost["too many peers"] += 1
                self._tell(peer, "lost", f"{peer} was turned away: {self.limits.peers} peers are connected")
                continue
            self._start(partial(self._serve, sock), f"peer {peer}")


class Client(Endpoint):
    """Connects to ``host``:``port``. Entering raises WireError when that fails; later losses are healed by itself.

    ``reconnect`` False: a lost link stays lost. ``connect_s``: how long one attempt may take.
    """

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        *,
        reconnect: bool = True,
        connect_s: float = 5.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self.host, self.port = host, port
        self._reconnect, self._connect_s = reconnect, connect_s

    @property
    def address(self) -> str:
        """Host and port, for a person."""
        return f"{self.host}:{self.port}"

    @property
    def connected(self) -> bool:
        """Whether the link is up now."""
        return bool(self.peers)

    def _open(self) -> None:
        sock = connect(self.host, self.port, self._connect_s)
        self._start(lambda: self._keep(sock), f"client {self.address}")
        with self._changed:
            # Not for a peer that is there now: one that hung up at once would be waited for.
            self._changed.wait_for(lambda: self._counters.connections > 0 or self._closing.is_set(), self._connect_s)

    def _keep(self, sock: socket.socket | None) -> None:
        pause_s = BACK_OFF_S[0]
        while not self._closing.is_set():
            if sock is not None:
                before, since_s = self.counters.received, time.monotonic()
                self._serve(sock)
                # Somebody who hangs up on us at once, perhaps with a word, is not asked twenty times a second.
                if self.counters.received > before + GREETING or time.monotonic() - since_s > BACK_OFF_S[1]:
                    pause_s = BACK_OFF_S[0]
            if not self._reconnect or self._closing.wait(pause_s):
                return
            pause_s = min(2 * pause_s, BACK_OFF_S[1])
            try:
                sock = connect(self.host, self.port, self._connect_s)
            except WireError:
                sock = None
        if sock is not None:
            sock.close()


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected TCP socket. Raises WireError with a sentence for a person."""
    where = f"{host}:{port}"
    if not 0 < port < 65536:
        raise WireError(f"port must be 1 to 65535, got {port}")
    try:
        sock = socket.create_connection((host, port), timeout_s)
    except ConnectionRefusedError:
        raise WireError(f"nothing listens on {where}: start the OpenIGTLink server, or check host and port") from None
    except TimeoutError:
        raise WireError(f"{where} did not answer within {timeout_s:g} s: check address, network and firewall") from None
    except socket.gaierror:
        raise WireError(f"the host '{host}' is unknown: check its name, or use its address") from None
    except OSError as error:
        raise WireError(f"cannot connect to {where}: {error.strerror or error}") from error
    if sock.getsockname() == sock.getpeername():
        # On loopback TCP may connect a port of its own free range to itself; that is nobody.
        sock.close()
        raise WireError(f"nothing listens on {where}: start the OpenIGTLink server, or check host and port")
    return sock


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
