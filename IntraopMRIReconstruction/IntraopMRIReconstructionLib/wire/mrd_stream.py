"""The MRD streaming protocol over TCP: as client of a scanner or a Gadgetron-style server, and as server.

Nothing is dropped: whoever iterates slowly slows the sender down through TCP. Waiting is bounded by
:class:`.mrd_messages.MrdLimits`, sizes are checked before memory is taken.
"""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import numpy as np

from ..data import Acquisition, Encoding, Image
from ..errors import IntraopError, WireError
from .bodies import BodyPool
from .header import RefusedMessage
from .mrd_header import format_header
from .mrd_lines import scan_lines
from .mrd_messages import (
    MessageId,
    MrdLimits,
    MrdMessage,
    TextMessage,
    Waveform,
    acquisition_bytes,
    image_bytes,
    read_message,
    text_bytes,
    waveform_bytes,
)
from .recorder import Bytes, ByteTap, Direction

#: Port that MRD servers use by convention.
DEFAULT_PORT = 9002

#: Readouts are received into blocks of this size, many in one system call, and look at their bytes there. What is
#: longer gets memory of its own.
_BLOCK_BYTES = 1 << 20
#: A block with less room is left for a new one before another message begins.
_LEAST_ROOM = 1 << 16
#: Blocks that nobody looks at any more are used again, up to this many bytes a connection.
_IDLE_BYTES = 1 << 23
#: Readouts are sent in pieces of about this size.
_SEND_BYTES = 1 << 20

#: How long a closing server may go unnoticed.
_LOOK_UP_S = 0.2

_log = logging.getLogger(__name__)


class MrdConnection:
    """One MRD link, either end; a context manager. One thread may receive while another sends.

    ``refused``: messages that were read but not delivered, counted by reason; ``last_refusal`` explains the latest.
    ``tap`` sees the bytes of every message, both ways.
    """

    def __init__(
        self, sock: socket.socket, name: str, limits: MrdLimits | None = None, tap: ByteTap | None = None
    ) -> None:
        self.name = name
        self.refused: Counter[str] = Counter()
        self.last_refusal = ""
        self._limits = limits or MrdLimits()
        self._tap = tap
        self._sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inlet = _SocketInlet(sock, self._limits, keep=tap is not None)
        self._send_lock = threading.Lock()

    def receive(self) -> MrdMessage | None:
        """The next message, None when the peer closed the link between two messages. Waits ``limits.idle_s``.

        Raises WireError when the link breaks, stalls, or carries what cannot be MRD; the link is closed then.
        """
        while True:
            try:
                if not self._inlet.begin():
                    return None
                message = read_message(self._inlet, self._limits)
            except RefusedMessage as error:
                self.refused[error.reason] += 1
                self.last_refusal = str(error)
                self._tapped(Direction.RECEIVED, *self._inlet.taken())
                continue
            except WireError as error:
                self.close()
                raise WireError(f"{self.name}: {error}") from error
            self._tapped(Direction.RECEIVED, *self._inlet.taken())
            return message

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether more has arrived, or does within ``timeout_s``, so that :meth:`receive` does not wait for its first
        byte. Also when the link has ended, which :meth:`receive` says."""
        try:
            return self._inlet.ready(timeout_s)
        except OSError:
            return True

    def send(self, message: TextMessage | Image | Waveform) -> None:
        """Send one message. Raises WireError when the peer does not take it in time, DataError for what MRD lacks."""
        if isinstance(message, TextMessage):
            self._send([text_bytes(message)])
        elif isinstance(message, Image):
            self._send(image_bytes(message))
        else:
            self._send([waveform_bytes(message)])

    def send_scan(self, encoding: Encoding, acquisitions: Iterable[Acquisition], config: str = "default.xml") -> None:
        """Send a whole scan: configuration name, XML header, readouts, close. Raises as :meth:`send` does."""
        self.send(TextMessage(MessageId.CONFIG_FILE, config))
        self.send(TextMessage(MessageId.HEADER, format_header(encoding).decode()))
        for lines in scan_lines(encoding, acquisitions):
            parts: list[Bytes] = []
            for row in range(len(lines.heads)):
                parts.append(acquisition_bytes(lines, row))
                if sum(map(len, parts)) >= _SEND_BYTES:
                    self._send(parts)
                    parts = []
            self._send(parts)
        self.send(TextMessage(MessageId.CLOSE))

    def close(self) -> None:
        """End the link; harmless when done twice and from another thread, where it ends a waiting :meth:`receive`."""
        with suppress(OSError):  # the peer was faster
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _send(self, parts: Sequence[Bytes]) -> None:
        with self._send_lock:
            size = sum(map(len, parts))
            deadline = time.monotonic() + self._limits.message_s + size / self._limits.slowest_bytes_per_s
            for part in parts:
                rest = memoryview(part)
                while len(rest):
                    rest = rest[self._sent(rest, deadline) :]
            if parts:
                self._tapped(Direction.SENT, b"", b"".join(parts) if self._tap else b"")

    def _sent(self, rest: memoryview, deadline: float) -> int:
        try:
            return self._sock.send(rest)
        except BlockingIOError:
            if not _wait(self._sock, "write", deadline - time.monotonic()):
                self.close()
                raise WireError(f"{self.name} does not take what is sent to it; the link was closed") from None
            return 0
        except OSError as error:
            self.close()
            raise WireError(f"{self.name}: sending failed: {error}") from error

    def _tapped(self, direction: Direction, header: Bytes, body: Bytes) -> None:
        if self._tap is not None:
            self._tap.tap(self.name, direction, header, body, time.monotonic(), time.time())


class MrdServer:
    """Serves MRD on a TCP port, a thread for each peer; a context manager.

    ``handle`` gets each new connection in its own thread; the link closes when it returns. IntraopError that it raises
    ends only that link: ``failures`` keeps the latest texts, newest last. ``port`` 0 takes a free one (see ``port``).
    Only this machine may connect unless another ``host`` is named, which is logged as a warning.

    Raises WireError when the address cannot be had.
    """

    def __init__(
        self,
        handle: Callable[[MrdConnection], None],
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        limits: MrdLimits | None = None,
        tap: ByteTap | None = None,
        max_connections: int = 128,
    ) -> None:
        self._handle = handle
        self._limits = limits
        self._tap = tap
        self._max_connections = max_connections
        self._connections: set[MrdConnection] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self.failures: deque[str] = deque(maxlen=100)
        if not _is_loopback(host):
            _log.warning("MRD server listens on %s: other machines can connect", host)
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise WireError(f"cannot serve MRD on {host}:{port}: {error}; choose another port") from error
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name=f"mrd-server-{self.port}", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop serving and end all links."""
        self._closing.set()
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            connections, threads = list(self._connections), list(self._threads)
        for connection in connections:
            connection.close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            # A listening socket does not wake on every system when it is closed: look up now and then.
            if not _wait(self._listener, "read", _LOOK_UP_S):
                continue
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                self.failures.append(f"accepting failed: {error}")
                self._closing.wait(_LOOK_UP_S)
                continue
            if len(self._threads) >= self._max_connections:
                self.failures.append(f"refused {address[0]}: {self._max_connections} links are open already")
                sock.close()
                continue
            connection = MrdConnection(sock, f"mrd {address[0]}:{address[1]}", self._limits, self._tap)
            thread = threading.Thread(target=self._serve, args=(connection,), name=connection.name, daemon=True)
            with self._lock:
                self._connections.add(connection)
                self._threads.add(thread)
            thread.start()

    def _serve(self, connection: MrdConnection) -> None:
        try:
            self._handle(connection)
        except IntraopError as error:
            self.failures.append(str(error))
            _log.warning("MRD link ended: %s", error)
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)
                self._threads.discard(threading.current_thread())


def connect_mrd(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    limits: MrdLimits | None = None,
    tap: ByteTap | None = None,
    timeout_s: float = 5.0,
) -> MrdConnection:
    """Connect to an MRD server (a scanner, Gadgetron, ours). Raises WireError when nobody answers."""
    try:
        sock = socket.create_connection((host, port), timeout=timeout_s)
    except OSError as error:
        raise WireError(f"no MRD server answers at {host}:{port}: {error}; is it running?") from error
    return MrdConnection(sock, f"mrd {host}:{port}", limits, tap)


class _SocketInlet:
    """Exact numbers of bytes from a socket, under a deadline that begins with the message."""

    def __init__(self, sock: socket.socket, limits: MrdLimits, keep: bool) -> None:
        self._sock = sock
        self._limits = limits
        self._keep = keep
        self._taken: list[Bytes] = []
        self._pool = BodyPool(lambda: _IDLE_BYTES)
        self._block = self._pool.take(_BLOCK_BYTES)
        self._start = self._end = 0
        self._deadline = 0.0

    def begin(self) -> bool:
        """Wait until a message begins; False when the peer closed the link instead."""
        self._taken = []
        if self._start == self._end:
            self._make_room(_LEAST_ROOM)
            if not self._refill(self._limits.idle_s, "to say anything"):
                return False
        self._deadline = time.monotonic() + self._limits.message_s
        return True

    def ready(self, timeout_s: float) -> bool:
        return self._end > self._start or _wait(self._sock, "read", timeout_s)

    def taken(self) -> tuple[bytes, bytes]:
        """Id and rest of the message that was read last; empty unless they are kept."""
        return (bytes(self._taken[0]), b"".join(self._taken[1:])) if self._taken else (b"", b"")

    def read(self, count: int) -> memoryview:
        """Exactly ``count`` bytes. Raises WireError when the link ends or stalls."""
        self._deadline += count / self._limits.slowest_bytes_per_s
        target = self._read_long(count) if count > _BLOCK_BYTES else self._read_short(count)
        if self._keep:
            self._taken.append(target)
        return target.toreadonly()

    def _read_short(self, count: int) -> memoryview:
        """A look into the block."""
        self._make_room(count)
        while self._end - self._start < count:
            self._refill(self._deadline - time.monotonic(), "in a message")
        self._start += count
        return self._block[self._start - count : self._start]

    def _read_long(self, count: int) -> memoryview:
        """Memory of its own: what has come already, and the rest straight from the socket."""
        target = np.empty(count, np.uint8).data
        filled = self._end - self._start
        target[:filled] = self._block[self._start : self._end]
        self._start = self._end
        while filled < count:
            filled += self._received(target[filled:], self._deadline - time.monotonic(), "in a message")
        return target

    def _make_room(self, count: int) -> None:
        """Let ``count`` bytes fit behind the start: what was handed out is never written to again."""
        if len(self._block) - self._start >= count:
            return
        block = self._pool.take(_BLOCK_BYTES)
        rest = self._end - self._start
        block[:rest] = self._block[self._start : self._end]
        self._block, self._start, self._end = block, 0, rest

    def _refill(self, timeout_s: float | None, when: str) -> int:
        count = self._received(self._block[self._end :], timeout_s, when)
        self._end += count
        return count

    def _received(self, target: memoryview, timeout_s: float | None, when: str) -> int:
        """Some bytes into ``target``; 0 only when the peer closed the link before a message."""
        try:
            try:
                count = self._sock.recv_into(target)
            except BlockingIOError:
                if not _wait(self._sock, "read", timeout_s):
                    raise WireError(f"the peer takes too long {when}") from None
                count = self._sock.recv_into(target)
        except OSError as error:
            raise WireError(f"the link broke {when}: {error}") from error
        if not count and when == "in a message":
            raise WireError("the link ended in the middle of a message")
        return count


def _wait(sock: socket.socket, direction: str, timeout_s: float | None) -> bool:
    """Whether the socket can be read from or written to within the time; None waits for ever."""
    if timeout_s is not None and timeout_s < 0:
        return False
    descriptor = sock.fileno()
    if descriptor < 0:
        raise OSError("the link was closed here")
    if hasattr(select, "poll"):  # select.select refuses descriptors above 1023; Windows has only that one
        poll = select.poll()
        poll.register(descriptor, select.POLLIN if direction == "read" else select.POLLOUT)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000.0))
    wanted = [sock]
    reading, writing = (wanted, []) if direction == "read" else ([], wanted)
    return any(select.select(reading, writing, [], timeout_s))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
