"""The way of one message from bytes to something that may be delivered, or the reason why it may not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .codec import decode
from .connection import Limits
from .header import RefusedMessage
from .message import Message
from .messages_array import ImageMessage
from .subvolume import VolumeAssembler
from .timing import SenderClock, SenderTime
from .trust import FRAME_KEYS, PATIENT_KEYS, PeerProfile, check_message


@dataclass(frozen=True, eq=False)
class Received:
    """A message and how it came. ``connection`` counts the links of an endpoint from 0; ``peer`` is "address:port".

    ``time``: what its time stamp tells; use ``sent_utc_s`` of this, which is None when the stamp may not be believed.
    """

    message: Message
    received_monotonic_s: float
    received_utc_s: float
    peer: str
    connection: int
    size_bytes: int
    time: SenderTime

    @property
    def sent_utc_s(self) -> float | None:
        """When the data was made by the sender's clock (POSIX seconds), None when that is unknown or a wrong clock."""
        return self.time.sent_utc_s

    @property
    def latency_s(self) -> float | None:
        """Estimated delay beyond that of the fastest recent message of this connection, None without a time stamp."""
        return self.time.latency_s

    @property
    def clock_offset_s(self) -> float | None:
        """Estimate of the sender's clock minus ours, None without a time stamp."""
        return self.time.clock_offset_s


class IdentityGuard:
    """Remembers the patient and the frame of reference of a session and refuses messages of another.

    The first message that names one sets it; :meth:`accept` lets a person change it. For any number of threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def accept(self, patient_id: str | None = None, frame_uid: str | None = None) -> None:
        """From now on this patient and frame hold; None takes those of the next message that names them."""
        with self._lock:
            self._known = {
                kind: value for kind, value in (("patient", patient_id), ("frame", frame_uid)) if value is not None
            }

    def check(self, message: Message, learn: bool = True) -> None:
        """Raise RefusedMessage when the message is of another patient or in another frame of reference.

        ``learn`` False: it may still be refused for another reason, so the patient is not taken from it.
        """
        if not message.metadata:
            return
        for kind, keys in (("patient", PATIENT_KEYS), ("frame", FRAME_KEYS)):
            value = next((message.metadata[key] for key in keys if message.metadata.get(key)), None)
            if value is None:
                continue
            with self._lock:
                known = self._known.setdefault(kind, value) if learn else self._known.get(kind, value)
            if value != known:
                raise RefusedMessage(
                    kind,
                    f"{message.type_name} '{message.device}' is of {kind} '{value}', this session is of '{known}': "
                    "check the patient, then accept the change or start a new session",
                )


class Intake:
    """Decodes and judges the messages of one connection.

    ``on_incomplete``: called with a sentence for every volume of which parts came, but never all.
    """

    def __init__(
        self,
        peer: str,
        connection: int,
        profile: PeerProfile,
        limits: Limits,
        identity: IdentityGuard,
        on_incomplete: Callable[[str], None],
    ) -> None:
        self._peer, self._connection = peer, connection
        self._profile, self._limits, self._identity = profile, limits, identity
        self._streams: set[tuple[str, str]] = set()
        self._clock = SenderClock()
        self._assembler = VolumeAssembler(limits.body_bytes, on_incomplete)

    def idle(self) -> None:
        """Nothing comes: a volume of which parts are missing is given up, and said, all the same."""
        self._assembler.expire(time.monotonic())

    def close(self) -> None:
        """The link has ended: what is incomplete stays so."""
        self._assembler.close()

    def take(self, raw: bytes, body: memoryview, crc: int, monotonic_s: float, utc_s: float) -> Received | None:
        """The message when it may be delivered, None for a part of a volume that is not complete yet.

        Raises RefusedMessage with the reason why it must not be delivered.
        """
        self._assembler.expire(monotonic_s)
        message = check_message(decode(raw, body, crc), self._profile)
        self._identity.check(message, learn=False)
        self._check_stream(message)
        stamp = self._clock.note(message, utc_s, monotonic_s)
        if isinstance(message, ImageMessage):
            whole = self._assembler.feed(message, monotonic_s)
            self._identity.check(message)
            if whole is None:
                return None
            message = whole
        else:
            self._identity.check(message)
        return Received(message, monotonic_s, utc_s, self._peer, self._connection, len(raw) + len(body), stamp)

    def _check_stream(self, message: Message) -> None:
        stream = (message.type_name, message.device)
        if stream not in self._streams:
            if len(self._streams) >= self._limits.streams:
                raise RefusedMessage(
                    "streams",
                    f"{self._peer} uses more than {self._limits.streams} names; '{message.device}' is refused",
                )
            self._streams.add(stream)
