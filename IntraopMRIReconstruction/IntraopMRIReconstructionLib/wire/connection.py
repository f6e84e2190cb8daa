"""One OpenIGTLink link: a blocking reader on its own thread, sends from any thread."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import WireError
from .bodies import BodyPool
from .header import HEADER_SIZE, Buffer, RefusedMessage, body_size_of, crc_of, parse_header

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: How long a blocking call lasts before deadlines are looked at. Four wake-ups a second cost nothing.
TICK_S = 0.25
#: POSIX kernels can time a blocking call and collect all bytes of a piece before they wake us: one call a message. On
#: Windows a socket is not to be used any more after such a call has timed out, so there the calls do not block.
KERNEL_TICKS = os.name == "posix"
_WAIT_ALL = socket.MSG_WAITALL if KERNEL_TICKS else 0
#: Bytes that are taken in one call when a header is due: a pose comes whole, and of an image little is copied twice.
_READ_AHEAD = 4096
#: A body is received and summed up in pieces that stay in the cache of the processor between the two.
_PIECE = 2**18
#: What was sent and stays unacknowledged for so long (s) was sent to nobody; a peer that may take longer has longer.
_UNACKNOWLEDGED_S = 20.0
#: To sum up a piece takes 0.02 ms. When it takes so long, other threads keep the interpreter busy, and each call waits
#: for them: the rest comes in one.
_BUSY_S = 1e-3


@dataclass(frozen=True)
class Limits:
    """What a peer may demand of us, and how long it may take.

    ``body_bytes``: largest body; a larger announcement ends the link before anything is allocated.
    ``queued_bytes``: bytes that may wait for the consumer; ``idle_bytes``: how many of these may be memory that is kept
    for the next messages. ``stream_messages``: messages per lossless stream.
    ``streams``: device names and types of one connection. ``peers``: connections of a server.
    ``header_s``: from the first to the last byte of a header. ``stall_s``: without a byte inside a body.
    ``slowest_bytes_per_s``: a body may take ``stall_s`` plus its size over this.
    ``send_s``: without a byte accepted by the peer.
    """

    body_bytes: int = 512 * 2**20
    queued_bytes: int = 2**30
    idle_bytes: int = 2**28
    stream_messages: int = 4096
    streams: int = 1024
    peers: int = 128
    header_s: float = 5.0
    stall_s: float = 5.0
    slowest_bytes_per_s: float = 1e6
    send_s: float = 10.0


class LinkEnded(WireError):
    """The link cannot go on. ``reason``: "closed" when the peer hung up between two messages, else what was wrong."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


#: Called with (58 header bytes, body, CRC of that body) for each complete message, whatever it contains.
OnMessage = Callable[[bytes, memoryview, int], None]
#: Called at every tick without a byte.
OnIdle = Callable[[], None]


class Connection:
    """A connected socket. ``run`` reads until the link ends; ``send`` and ``close`` may be called from any thread."""

    def __init__(self, sock: socket.socket, number: int, limits: Limits, bodies: BodyPool) -> None:
        self._socket = sock
        self._bodies = bodies
        self.number = number
        self.limits = limits
        host, port = sock.getpeername()[:2]
        self.peer = f"{host}:{port}"
        self._send_lock = threading.Lock()
        self._closed = threading.Event()
        self._leave_until_s = 0.0
        self._is_deaf = False
        self._ahead = memoryview(bytearray(_READ_AHEAD))
        self._taken = self._filled = 0
        prepare(sock, limits.send_s)

    @property
    def closed(self) -> bool:
        """Whether the link has ended."""
        return self._closed.is_set()

    def run(self, on_message: OnMessage, on_idle: OnIdle) -> LinkEnded:
        """Read messages until the link ends; returns why it did."""
        try:
            while True:
                raw = self._read_header(on_idle)
                size = body_size_of(raw)
                if size > self.limits.body_bytes:
                    raise LinkEnded(
                        "size",
                        f"{self.peer} announced a body of {size} bytes, at most {self.limits.body_bytes} are taken: "
                        "it does not speak OpenIGTLink, or the limit must be raised",
                    )
                body = self._bodies.take(size)
                on_message(raw, body, self._read_body(body, raw))
                # The last body must not stay in memory while the link is idle.
                del body
        except LinkEnded as end:
            return end
        except OSError as error:
            return LinkEnded("reset", f"{self.peer}: {error.strerror or error}")
        except MemoryError:
            return LinkEnded("memory", f"{self.peer} sent more than there is memory for: end other programs")
        finally:
            self.close()
            # Only the reader closes: the number of a socket that it still reads from must not be given to another.
            with self._send_lock:
                self._socket.close()

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message. Raises LinkEnded when the link has ended, or ends because nothing is taken for long."""
        try:
            with self._send_lock:
                self._send(parts)
        except OSError as error:
            # The reader still has to take what the peer sent before it left, and ends by itself.
            self._is_deaf = True
            raise LinkEnded("reset", f"{self.peer}: {error.strerror or error}") from error

    def close(self, leave_s: float | None = None) -> None:
        """End the link; wakes its reader.

        What was sent and is still on its way gets ``leave_s`` (``limits.send_s`` when None) to leave. Closing at once
        would lose it: the kernel answers a peer that goes on talking to a closed socket with a reset, which throws away
        what is not yet sent.
        """
        if not self._closed.is_set():
            self._leave_until_s = time.monotonic() + (self.limits.send_s if leave_s is None else leave_s)
            leaving = self._is_leaving()
            self._closed.set()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR if leaving else socket.SHUT_RDWR)

    def _is_leaving(self) -> bool:
        return time.monotonic() < self._leave_until_s and unsent_bytes(self._socket) > 0

    def _read_header(self, on_idle: OnIdle) -> bytes:
        deadline = None
        while (got := self._filled - self._taken) < HEADER_SIZE:
            if got and deadline is None:
                deadline = time.monotonic() + self.limits.header_s
            elif deadline is not None and time.monotonic() > deadline:
                raise LinkEnded("stalled", f"{self.peer} sent {got} of {HEADER_SIZE} header bytes and went silent")
            self._ahead[:got] = self._ahead[self._taken : self._filled]
            self._taken, self._filled = 0, got
            count = self._receive(self._ahead[got:], HEADER_SIZE - got if got else 0, 0)
            self._filled += count
            if not count:
                self._bodies.trim()
                on_idle()
        return bytes(self._take_ahead(HEADER_SIZE))

    def _take_ahead(self, most: int) -> memoryview:
        start = self._taken
        self._taken = min(start + most, self._filled)
        return self._ahead[start : self._taken]

    def _read_body(self, view: memoryview, header: bytes) -> int:
        """Fill ``view`` and return its CRC."""
        here = self._take_ahead(len(view))
        got = len(here)
        view[:got] = here
        crc = crc_of(here)
        if got == len(view):
            return crc
        piece = _PIECE
        last = time.monotonic()
        deadline = last + self.limits.stall_s + len(view) / self.limits.slowest_bytes_per_s
        while got < len(view):
            part = view[got : got + piece]
            count = self._receive(part, len(view) - got, _WAIT_ALL)
            now = time.monotonic()
            crc = crc_of(part[:count], crc)
            if time.monotonic() - now > _BUSY_S:
                piece = len(view)
            got += count
            last = now if count else last
            if got < len(view) and (now > deadline or now - last > self.limits.stall_s):
                raise LinkEnded(
                    "stalled", f"{self.peer} sent {got} of {len(view)} bytes of {_name(header)} and went silent"
                )
        return crc

    def _receive(self, view: memoryview, missing: int, flags: int) -> int:
        """Bytes received, 0 after a tick without any. ``missing``: bytes of a message that has begun."""
        count: int | None = None
        try:
            count = self._socket.recv_into(view, 0, flags)
        except (BlockingIOError, TimeoutError, InterruptedError) as tick:
            if tick.errno == errno.ETIMEDOUT:
                raise LinkEnded(
                    "unreachable", f"{self.peer} is not reached any more: check cable and network"
                ) from tick
        if self.closed and (count == 0 or not self._is_leaving()):
            raise LinkEnded("closed", f"the link to {self.peer} was closed here")
        if count != 0:
            return count or 0
        raise LinkEnded(
            "truncated" if missing else "closed",
            f"{self.peer} hung up" + (f" with {missing} bytes of a message missing" if missing else ""),
        )

    def _send(self, parts: Sequence[Buffer]) -> None:
        views = [memoryview(part) for part in parts if len(part)]
        last = time.monotonic()
        while views:
            if self.closed or self._is_deaf:
                raise LinkEnded("closed", f"the link to {self.peer} has ended")
            try:
                sent = self._socket.sendmsg(views) if hasattr(self._socket, "sendmsg") else self._socket.send(views[0])
            except (BlockingIOError, TimeoutError) as tick:
                if tick.errno == errno.ETIMEDOUT:
                    raise
                if time.monotonic() - last > self.limits.send_s:
                    self.close(leave_s=0.0)
                    raise LinkEnded("stalled", f"{self.peer} takes no data for {self.limits.send_s:g} s") from None
                continue
            last = time.monotonic()
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]


def prepare(sock: socket.socket, send_s: float) -> None:
    """Blocking calls that tick, no delay for small messages, and a kernel that notices a dead peer in 20 s.

    ``send_s``: how long a peer that is alive may take nothing.
    """
    sock.settimeout(None if KERNEL_TICKS else TICK_S)
    if KERNEL_TICKS:
        tick = struct.pack("ll", 0, int(TICK_S * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # macOS has another name for the first one.
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPALIVE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The kernel does not probe while something of ours is on its way, and repeats that for a quarter of an hour.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1e3 * max(_UNACKNOWLEDGED_S, send_s)))


def unsent_bytes(sock: socket.socket) -> int:
    """Bytes that the peer has not acknowledged; 0 where the system does not tell."""
    if fcntl is None:
        return 0
    waiting = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, waiting)
    return waiting[0]


def _name(raw: bytes) -> str:
    try:
        header = parse_header(raw)
    except RefusedMessage:
        return "a message that is not understood"
    return f"{header.type_name} '{header.device}'"
