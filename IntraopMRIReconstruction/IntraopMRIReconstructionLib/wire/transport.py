"""OpenIGTLink over TCP: a client and a server with the same face.

A blocking reader thread per connection checks the CRC, decodes, checks what may be believed and puts the message into
a bounded queue; :meth:`Endpoint.receive` takes it out. Poses are latest-wins, everything else is lossless: a full
queue stops its reader, so TCP holds the sender back. What is refused is counted under its reason, never delivered.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Self, TypedDict, Unpack

from ..errors import WireError
from .codec import decode, encode_parts
from .connection import Connection, Limits, LinkEnded
from .header import RefusedMessage, parse_header
from .message import Message
from .queues import Inbox
from .recorder import ByteTap, Direction
from .trust import AS_SENT, PeerProfile, check_message

DEFAULT_PORT = 18944
LOOPBACK = "127.0.0.1"

#: Types of which only the newest counts.
LATEST_TYPES = frozenset({"TRANSFORM", "POSITION", "TDATA", "QTDATA", "SENSOR"})
#: First and longest pause between two attempts to connect again.
BACK_OFF_S = (0.05, 2.0)
#: Events that are kept for a person to read.
KEPT_EVENTS = 1000


@dataclass(frozen=True, eq=False)
class Received:
    """A message and how it came. ``connection`` counts the links of an endpoint from 0; ``peer`` is "address:port"."""

    message: Message
    received_monotonic_s: float
    received_utc_s: float
    peer: str
    connection: int
    size_bytes: int


@dataclass(frozen=True)
class LinkEvent:
    """Something a person may want to know. ``kind``: connected, lost, refused, listening, ..."""

    utc_s: float
    peer: str
    kind: str
    text: str


@dataclass
class Counters:
    """What an endpoint has seen. ``refused`` and ``lost`` count by reason, ``dropped`` by (type, device)."""

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    connections: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)


class Options(TypedDict, total=False):
    """Keyword arguments of every :class:`Endpoint`."""

    profile: PeerProfile
    limits: Limits | None
    latest: Collection[str | tuple[str, str]]
    latest_depth: int
    tap: ByteTap | None
    on_event: Callable[[LinkEvent], None] | None


class Endpoint(ABC):
    """What :class:`Client` and :class:`Server` share.

    ``latest``: message types, or (type, device) pairs, of which only the newest counts; ``latest_depth``: how many of
    them may wait (more than 1 only for consumers that want to see all of them and keep up).
    ``tap``: sees all bytes, for a recorder. ``on_event``: called from a connection's thread.
    """

    def __init__(
        self,
        *,
        profile: PeerProfile = AS_SENT,
        limits: Limits | None = None,
        latest: Collection[str | tuple[str, str]] = LATEST_TYPES,
        latest_depth: int = 1,
        tap: ByteTap | None = None,
        on_event: Callable[[LinkEvent], None] | None = None,
    ) -> None:
        self.profile = profile
        self.limits = limits or Limits()
        self.events: deque[LinkEvent] = deque(maxlen=KEPT_EVENTS)
        self._latest, self._latest_depth = frozenset(latest), latest_depth
        self._tap, self._on_event = tap, on_event
        self._inbox: Inbox[Received] = Inbox(self.limits.stream_messages, self.limits.queued_bytes)
        self._counters = Counters()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._connections: dict[int, Connection] = {}
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    @abstractmethod
    def address(self) -> str:
        """Host and port, for a person."""

    @abstractmethod
    def _open(self) -> None:
        """Start the threads."""

    def close(self) -> None:
        """End all links and threads. Messages that were received can still be taken."""
        self._closing.set()
        self._inbox.close()
        with self._changed:
            connections, threads = list(self._connections.values()), list(self._threads)
            self._changed.notify_all()
        for connection in connections:
            connection.close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    @property
    def peers(self) -> tuple[str, ...]:
        """Addresses of the connected peers."""
        with self._lock:
            return tuple(connection.peer for connection in self._connections.values())

    @property
    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._lock:
            return replace(
                self._counters,
                refused=Counter(self._counters.refused),
                lost=Counter(self._counters.lost),
                dropped=Counter(self._inbox.dropped),
            )

    def wait_for_peer(self, timeout_s: float | None = None) -> bool:
        """Wait until a peer is connected; False when none is in time."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._connections) or self._closing.is_set(), timeout_s)

    def receive(
        self, timeout_s: float | None = None, type_name: str | None = None, device: str | None = None
    ) -> Received | None:
        """Oldest message, optionally of one type or device only; None when there is none in time or after close."""
        if type_name is None and device is None:
            return self._inbox.get(timeout_s)
        return self._inbox.get(
            timeout_s,
            lambda received: (
                type_name in (None, received.message.type_name) and device in (None, received.message.device)
            ),
        )

    def expect(self, timeout_s: float, type_name: str | None = None, device: str | None = None) -> Received:
        """As :meth:`receive`, but raises WireError with what is known about why nothing came."""
        received = self.receive(timeout_s, type_name, device)
        if received is None:
            wanted = " ".join(filter(None, (type_name or "OpenIGTLink message", device and f"named '{device}'")))
            raise WireError(f"{self.address}: no {wanted} within {timeout_s:g} s{self._why_silent()}")
        return received

    def send(self, message: Message, peer: str | None = None) -> int:
        """Send to one peer (``Received.peer``) or to all; returns how many took it.

        A peer that takes no data for ``limits.send_s`` is cut off. Raises WireError when nobody took the message.
        """
        parts = encode_parts(message)
        with self._lock:
            chosen = [link for link in self._connections.values() if peer in (None, link.peer)]
        reached, reason = 0, "is not connected" if peer else "nobody is connected"
        for connection in chosen:
            try:
                connection.send(parts)
                reached += 1
            except LinkEnded as end:
                reason = str(end)
                continue
            if self._tap is not None:
                now = time.monotonic(), time.time()
                self._tap.tap(connection.peer, Direction.SENT, parts[0], b"".join(parts[1:]), *now)
        if not reached:
            raise WireError(f"{message.type_name} '{message.device}' was not sent to {peer or self.address}: {reason}")
        with self._lock:
            self._counters.sent += reached
        return reached

    def _why_silent(self) -> str:
        counters = self.counters
        if counters.refused:
            reasons = ", ".join(f"{count} for {reason}" for reason, count in counters.refused.most_common())
            return f"; messages were refused: {reasons}"
        if not counters.connections:
            return "; nobody connected"
        if counters.lost:
            return f"; the link was lost ({', '.join(counters.lost)}): does the peer speak OpenIGTLink?"
        if not counters.received:
            return "; the peer is connected but silent: is it an OpenIGTLink sender, and is it sending?"
        return f"; {counters.received} other messages came"

    def _tell(self, peer: str, kind: str, text: str) -> None:
        event = LinkEvent(time.time(), peer, kind, text)
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _start(self, work: Callable[[], object], name: str) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"OpenIGTLink {name}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _serve(self, sock: socket.socket) -> LinkEnded:
        """Read one connected socket until it ends."""
        try:
            with self._lock:
                connection = Connection(sock, self._counters.connections, self.limits)
                self._counters.connections += 1
        except OSError as error:
            sock.close()
            return LinkEnded("reset", f"the peer left at once: {error}")
        with self._changed:
            self._connections[connection.number] = connection
            self._changed.notify_all()
        if self._closing.is_set():
            connection.close()
        self._tell(connection.peer, "connected", f"{connection.peer} is connected")
        try:
            end = connection.run(self._on_message)
        finally:
            with self._changed:
                del self._connections[connection.number]
                self._changed.notify_all()
        if not self._closing.is_set():
            with self._lock:
                self._counters.lost[end.reason] += 1
            self._tell(connection.peer, "lost", str(end))
        return end

    def _on_message(self, connection: Connection, raw: bytes, body: memoryview) -> None:
        monotonic_s, utc_s = time.monotonic(), time.time()
        if self._tap is not None:
            self._tap.tap(connection.peer, Direction.RECEIVED, raw, body, monotonic_s, utc_s)
        try:
            message = decode(parse_header(raw), body)
            check_message(message, self.profile)
            self._check_stream(connection, message)
        except RefusedMessage as refused:
            with self._lock:
                self._counters.refused[refused.reason] += 1
            self._tell(connection.peer, "refused", str(refused))
            return
        with self._lock:
            self._counters.received += 1
            self._counters.received_bytes += len(raw) + len(body)
        self._deliver(
            connection, Received(message, monotonic_s, utc_s, connection.peer, connection.number, len(raw) + len(body))
        )

    def _deliver(self, connection: Connection, received: Received) -> None:
        stream = (received.message.type_name, received.message.device)
        key = (connection.number, *stream)
        if stream[0] in self._latest or stream in self._latest:
            self._inbox.put_latest(key, received, received.size_bytes, self._latest_depth)
        else:
            self._inbox.put_lossless(key, received, received.size_bytes, self._closing.is_set)

    def _check_stream(self, connection: Connection, message: Message) -> None:
        stream = (message.type_name, message.device)
        if stream not in connection.streams:
            if len(connection.streams) >= self.limits.streams:
                raise RefusedMessage(
                    "streams",
                    f"{connection.peer} uses more than {self.limits.streams} names; '{message.device}' is refused",
                )
            connection.streams.add(stream)


class Server(Endpoint):
    """Listens on ``host``:``port`` (0 takes a free one, see :attr:`port`). Loopback unless another host is named."""

    def __init__(self, port: int = 0, host: str = LOOPBACK, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self.host, self._asked_port = host, port
        self._listener: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.getsockname()[1] if self._listener else self._asked_port

    @property
    def address(self) -> str:
        """Host and port, for a person."""
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        """Stop listening, end all links and threads."""
        self._closing.set()
        if self._listener is not None:
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
        reach = "this computer only" if _is_loopback(self.host) else "EVERYBODY ON THE NETWORK can connect"
        self._tell(self.address, "listening", f"listening on {self.address} ({reach})")
        self._start(self._accept, f"server {self.port}")

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._closing.is_set():
            try:
                sock, address = listener.accept()
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
        self.wait_for_peer(self._connect_s)

    def _keep(self, sock: socket.socket | None) -> None:
        pause_s = BACK_OFF_S[0]
        while not self._closing.is_set():
            if sock is not None:
                self._serve(sock)
                pause_s = BACK_OFF_S[0]
            if not self._reconnect or self._closing.wait(pause_s):
                return
            pause_s = min(2 * pause_s, BACK_OFF_S[1])
            try:
                sock = connect(self.host, self.port, self._connect_s)
            except WireError:
                sock = None


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
