"""What both ends of an OpenIGTLink link do: receive, send, count, answer.

A blocking reader thread per connection checks the CRC, decodes, checks what may be believed and puts the message into
a bounded queue; :meth:`Endpoint.receive` takes it out. Poses are latest-wins, everything else is lossless: a full
queue stops its reader, so TCP holds the sender back, which is said when it lasts. What is refused is counted under its
reason, never delivered.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Self, TypedDict

from ..errors import IntraopError, WireError
from .bodies import BodyPool
from .codec import Query, encode_parts
from .connection import Connection, Limits, LinkEnded
from .header import Buffer, RefusedMessage
from .intake import IdentityGuard, Intake, Received
from .message import Message
from .queues import Inbox, Key
from .recorder import ByteTap, Direction
from .replies import Offers, Provider, Responder
from .trust import AS_SENT, PeerProfile, facts_of, left_out

#: Types of which only the newest counts.
LATEST_TYPES = frozenset({"TRANSFORM", "POSITION", "TDATA", "QTDATA", "SENSOR"})
#: A connection that waits for its consumer for so long is said: the poses that come by it wait too.
HELD_BACK_S = 1.0
#: Events that are kept for a person to read.
KEPT_EVENTS = 1000
#: What a message takes in memory beside its bytes, for each of its parts: objects of Python, measured.
PART_BYTES = 600


@dataclass(frozen=True)
class LinkEvent:
    """Something a person may want to know. ``kind``: connected, lost, refused, listening, ...

    ``reason``: of what was refused, the word that it is counted under.
    """

    utc_s: float
    peer: str
    kind: str
    text: str
    reason: str = ""


@dataclass
class Counters:
    """What an endpoint has seen. ``refused``, ``lost`` and ``suspect`` (time stamps) count by reason, ``dropped`` by
    (type, device), ``callback_errors`` by what failed: on_event, overhear, tap or a provider.
    ``left_out_tools``: tools of TDATA and QTDATA that could not be true, by reason; the others were delivered.
    ``held_back``: how often a connection waited longer than ``HELD_BACK_S`` because a lossless queue was full.
    """

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    connections: int = 0
    held_back: int = 0
    incomplete_volumes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    suspect: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    callback_errors: Counter[str] = field(default_factory=Counter)
    left_out_tools: Counter[str] = field(default_factory=Counter)


class Options(TypedDict, total=False):
    """Keyword arguments of every :class:`Endpoint`."""

    profile: PeerProfile
    limits: Limits | None
    latest: Collection[str | tuple[str, str]]
    latest_depth: int
    answer_queries: bool
    identity: IdentityGuard | None
    tap: ByteTap | None
    on_event: Callable[[LinkEvent], None] | None
    overhear: Callable[[Message], None] | None


class Endpoint(ABC):
    """What :class:`Client` and :class:`Server` share.

    ``latest``: message types, or (type, device) pairs, of which only the newest counts; ``latest_depth``: how many of
    them may wait (more than 1 only for consumers that want to see all of them and keep up).
    ``answer_queries``: GET_, STT_ and STP_ are answered from what was offered (see :meth:`offer`), not delivered.
    ``identity``: refuses another patient or frame of reference; share one between the links of a session.
    ``tap``: sees all bytes, for a recorder. ``on_event``: called from a connection's thread; so is ``overhear``, with
    each message that may be delivered, before it waits for its turn: for answers that must not wait behind others.
    A callback, tap or provider that fails ends no link: it is counted in ``callback_errors`` and told once.
    """

    def __init__(
        self,
        *,
        profile: PeerProfile = AS_SENT,
        limits: Limits | None = None,
        latest: Collection[str | tuple[str, str]] = LATEST_TYPES,
        latest_depth: int = 1,
        answer_queries: bool = True,
        identity: IdentityGuard | None = None,
        tap: ByteTap | None = None,
        on_event: Callable[[LinkEvent], None] | None = None,
        overhear: Callable[[Message], None] | None = None,
    ) -> None:
        self.profile = profile
        self.limits = limits or Limits()
        self.events: deque[LinkEvent] = deque(maxlen=KEPT_EVENTS)
        self._latest, self._latest_depth = frozenset(latest), latest_depth
        self._answer_queries = answer_queries
        self.identity = identity or IdentityGuard()
        self._offers = Offers()
        self._tap, self._on_event, self._overhear = tap, on_event, overhear
        self._inbox: Inbox[Received] = Inbox(self.limits.stream_messages, self.limits.queued_bytes)
        self._bodies = BodyPool(self._idle_room)
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
            connections = list(self._connections.values())
            self._changed.notify_all()
        for connection in connections:
            connection.close()
        # A thread that ends may have begun another one: a peer that was just accepted.
        while threads := self._others():
            for thread in threads:
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
                suspect=Counter(self._counters.suspect),
                dropped=Counter(self._inbox.dropped),
                callback_errors=Counter(self._counters.callback_errors),
                left_out_tools=Counter(self._counters.left_out_tools),
            )

    def offer(self, type_name: str, device: str, provider: Provider) -> None:
        """Answer GET_ and STT_ for a device with what ``provider`` returns when called (None: nothing now)."""
        self._offers.add(type_name, device, partial(self._asked, provider))

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
            raise WireError(f"{self.address}: no {wanted} within {timeout_s:g} s{self.why_silent()}")
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
                self._send_parts(connection, parts)
                reached += 1
            except LinkEnded as end:
                reason = str(end)
        if not reached:
            raise WireError(f"{message.type_name} '{message.device}' was not sent to {peer or self.address}: {reason}")
        return reached

    def _idle_room(self) -> int:
        """Bytes of memory that may be kept for the next messages: what is queued and idle together has one limit."""
        if self._closing.is_set():
            return 0
        return min(self.limits.idle_bytes, self.limits.queued_bytes - self._inbox.queued_bytes)

    def _answer(self, connection: Connection, message: Message) -> bool:
        """Send what a provider gave; False for what does not fit the protocol: its fault, not that of the link."""
        try:
            parts = encode_parts(message)
        except WireError as error:
            self._callback_failed("provider", str(error))
            return False
        self._send_parts(connection, parts)
        return True

    def _send_parts(self, connection: Connection, parts: list[Buffer]) -> None:
        connection.send(parts)
        with self._lock:
            self._counters.sent += 1
        if self._tap is not None:
            self._record(connection, Direction.SENT, parts[0], b"".join(parts[1:]), time.monotonic(), time.time())

    def why_silent(self) -> str:
        """What is known about why nothing comes: a clause for the end of a sentence."""
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

    def _tell(self, peer: str, kind: str, text: str, reason: str = "") -> None:
        event = LinkEvent(time.time(), peer, kind, text, reason)
        self.events.append(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception as error:  # noqa: BLE001 (whatever another's code raises must not end the link)
                self._callback_failed("on_event", repr(error))

    def _record(
        self,
        connection: Connection,
        direction: Direction,
        header: Buffer,
        body: Buffer,
        monotonic_s: float,
        utc_s: float,
    ) -> None:
        self._tapped(lambda tap: tap.tap(connection.peer, direction, header, body, monotonic_s, utc_s))

    def _tapped(self, work: Callable[[ByteTap], None]) -> None:
        if self._tap is None:
            return
        try:
            work(self._tap)
        except Exception as error:  # noqa: BLE001 (see _tell)
            self._callback_failed("tap", repr(error))
        else:
            if self._tap.failure:
                self._callback_failed("tap", self._tap.failure)

    def _asked(self, provider: Provider) -> Message | None:
        try:
            return provider()
        except IntraopError:
            return None
        except Exception as error:  # noqa: BLE001 (see _tell)
            self._callback_failed("provider", repr(error))
            return None

    def _callback_failed(self, what: str, why: str) -> None:
        """Count it; the first one of a kind is said, and told to ``on_event`` unless that is what failed."""
        with self._lock:
            self._counters.callback_errors[what] += 1
            is_first = self._counters.callback_errors[what] == 1
        if is_first:
            text = f"{what} failed: {why}; the link goes on, but what {what} is for does not work"
            if what == "on_event":
                self.events.append(LinkEvent(time.time(), self.address, "callback failed", text))
            else:
                self._tell(self.address, "callback failed", text)

    def _incomplete(self, peer: str, text: str) -> None:
        with self._lock:
            self._counters.incomplete_volumes += 1
        self._tell(peer, "incomplete", text)

    def _start(self, work: Callable[[], object], name: str) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"OpenIGTLink {name}", daemon=True)
        # Whoever closes meanwhile finds it running, or not at all.
        with self._lock:
            thread.start()
            self._threads.add(thread)

    def _others(self) -> list[threading.Thread]:
        with self._lock:
            return [thread for thread in self._threads if thread is not threading.current_thread()]

    def _serve(self, sock: socket.socket) -> LinkEnded:
        """Read one connected socket until it ends."""
        try:
            with self._lock:
                connection = Connection(sock, self._counters.connections, self.limits, self._bodies)
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
        self._tapped(lambda tap: tap.about(connection.peer, facts_of(self.profile)))
        on_incomplete = partial(self._incomplete, connection.peer)
        intake = Intake(connection.peer, connection.number, self.profile, self.limits, self.identity, on_incomplete)
        responder = Responder(self._offers, partial(self._answer, connection), self._start)
        try:
            end = connection.run(partial(self._on_message, connection, intake, responder), intake.idle)
        finally:
            responder.close()
            intake.close()
            self._bodies.trim(0.0)
            with self._changed:
                del self._connections[connection.number]
                self._changed.notify_all()
        if not self._closing.is_set():
            with self._lock:
                self._counters.lost[end.reason] += 1
            self._tell(connection.peer, "lost", str(end))
        return end

    def _on_message(
        self, connection: Connection, intake: Intake, responder: Responder, raw: bytes, body: memoryview, crc: int
    ) -> None:
        monotonic_s, utc_s = time.monotonic(), time.time()
        if self._tap is not None:
            self._record(connection, Direction.RECEIVED, raw, body, monotonic_s, utc_s)
        try:
            received = intake.take(raw, body, crc, monotonic_s, utc_s)
        except RefusedMessage as refused:
            with self._lock:
                self._counters.refused[refused.reason] += 1
            self._tell(connection.peer, "refused", str(refused), refused.reason)
            return
        except Exception as error:
            # A defect of ours costs this message, not the link; MemoryError of a volume that is begun as well.
            logging.getLogger(__name__).exception("defect while a message of %s was read", connection.peer)
            with self._lock:
                self._counters.refused["defect"] += 1
            self._tell(
                connection.peer,
                "refused",
                f"a message could not be read ({error!r}): a defect in this software",
                "defect",
            )
            return
        with self._lock:
            self._counters.received += 1
            self._counters.received_bytes += len(raw) + len(body)
            if received is not None and received.time.fault:
                self._counters.suspect[received.time.fault] += 1
        if received is None:
            return
        message = received.message
        if self._overhear is not None:
            try:
                self._overhear(message)
            except Exception as error:  # noqa: BLE001 (see _tell)
                self._callback_failed("overhear", repr(error))
        for reason in left_out(message):
            self._left_out(connection.peer, reason)
        if isinstance(message, Query) and message.verb != "RTS" and self._answer_queries:
            with contextlib.suppress(LinkEnded):
                responder.answer(message)
            return
        key = (connection.number, message.type_name, message.device)
        size = received.size_bytes + PART_BYTES * (message.parts + len(message.metadata))
        if key[1] in self._latest or key[1:] in self._latest:
            self._inbox.put_latest(key, received, size, self._latest_depth)
        else:
            self._put_lossless(key, received, size)

    def _left_out(self, peer: str, refused: RefusedMessage) -> None:
        """Count a tool; the first of a reason is said, since an unseen tool comes 60 times a second."""
        with self._lock:
            self._counters.left_out_tools[refused.reason] += 1
            is_first = self._counters.left_out_tools[refused.reason] == 1
        if is_first:
            self._tell(peer, "left out", f"{refused}; the other tools are used", refused.reason)

    def _put_lossless(self, key: Key, received: Received, size: int) -> None:
        if self._inbox.put_lossless(key, received, size, _at_once):
            return
        started = time.monotonic()

        def is_long() -> bool:
            return self._closing.is_set() or time.monotonic() - started > HELD_BACK_S

        if self._inbox.put_lossless(key, received, size, is_long) or self._closing.is_set():
            return
        with self._lock:
            self._counters.held_back += 1
        stream = f"{key[1]} '{key[2]}'"
        self._tell(
            received.peer,
            "held back",
            f"{received.peer} is held back, its poses too: nobody takes {stream} and its queue is full",
        )
        if self._inbox.put_lossless(key, received, size, self._closing.is_set):
            waited = time.monotonic() - started
            self._tell(
                received.peer, "goes on", f"{received.peer} goes on after {waited:.1f} s: {stream} is taken again"
            )


def _at_once() -> bool:
    """Do not wait for room."""
    return True
