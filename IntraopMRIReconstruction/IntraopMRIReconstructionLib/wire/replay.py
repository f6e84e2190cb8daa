"""Recorded traffic played again: into a function, or over TCP to whatever receives OpenIGTLink or MRD."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..errors import DataError, WireError
from .recorder import Direction, Record, Recording

#: How long a peer may take to hang up after the last byte, before the link is cut.
_FAREWELL_S = 5.0
#: A peer that takes no data for so long ends the replay to it.
_SEND_S = 10.0
#: How long a closing server may go unnoticed.
_LOOK_UP_S = 0.2


def chosen(
    records: Iterable[Record], connection: str | None = None, direction: Direction = Direction.RECEIVED
) -> Iterator[Record]:
    """The records of one direction, and of one connection unless it is None."""
    return (record for record in records if record.direction is direction and connection in (None, record.connection))


def replay(
    records: Iterable[Record],
    sink: Callable[[Record], None],
    speed: float | None = 1.0,
    *,
    stop: threading.Event | None = None,
    now: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> int:
    """Hand each record to ``sink`` when it is due; returns how many were handed on.

    ``speed``: 1 keeps the distances in time, 10 is ten times as fast, None as fast as the sink takes them. A slow sink
    delays what follows; nothing is left out. ``stop`` ends the replay, also while it waits. ``now`` and ``wait`` (given
    seconds) replace the clock. To decode, let the sink call ``decode(record.header, record.body)``.

    Raises DataError for a speed that is not positive, and whatever ``sink`` raises.
    """
    if speed is not None and not speed > 0:
        raise DataError(f"replay speed must be positive, or None for as fast as possible, got {speed}")
    halt = stop or threading.Event()
    pause = wait or halt.wait
    begun = now()
    first: float | None = None
    count = 0
    for record in records:
        first = record.monotonic_s if first is None else first
        if speed is not None:
            left_s = begun + (record.monotonic_s - first) / speed - now()
            if left_s > 0:
                pause(left_s)
        if halt.is_set():
            break
        sink(record)
        count += 1
    return count


class ReplayServer:
    """Plays recorded bytes to the peers that connect, as the recorded sender would; a context manager.

    Each of the first ``plays`` peers gets everything from the beginning, then its link is closed; after them nobody is
    served, so that a client which connects again does not receive the same data twice. What peers say is not heard.
    ``connection``: which recorded connection, needed when there are several. ``port`` 0 takes a free one.

    Raises WireError when the address cannot be had, DataError when the choice of connection is open or wrong.
    """

    def __init__(
        self,
        recording: Recording,
        speed: float | None = 1.0,
        *,
        connection: str | None = None,
        direction: Direction = Direction.RECEIVED,
        plays: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        names = recording.connections_of(direction)
        if (connection is None and len(names) > 1) or (connection is not None and connection not in names):
            raise DataError(f"choose one of the recorded connections {', '.join(names) or '(none)'}, got {connection}")
        self._recording, self._speed = recording, speed
        self._connection, self._direction = connection, direction
        self._stop = threading.Event()
        self._finished = threading.Event()
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise WireError(f"cannot replay on {host}:{port}: {error}; choose another port") from error
        self._listener.settimeout(_LOOK_UP_S)
        self.port: int = self._listener.getsockname()[1]
        self.played = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._serve, args=(plays,), name=f"replay-{self.port}", daemon=True)
        self._thread.start()

    def wait_finished(self, timeout_s: float | None = None) -> bool:
        """Wait until all plays are done; False when they are not in time."""
        return self._finished.wait(timeout_s)

    def close(self) -> None:
        """Stop playing and listening."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _serve(self, plays: int) -> None:
        players: list[threading.Thread] = []
        with self._listener:
            while len(players) < plays and not self._stop.is_set():
                try:
                    sock, _ = self._listener.accept()
                except TimeoutError:
                    continue
                except OSError as error:
                    self.failures.append(f"accepting failed: {error}")
                    break
                player = threading.Thread(target=self._play, args=(sock,), name=f"play-{self.port}", daemon=True)
                player.start()
                players.append(player)
        for player in players:
            player.join()
        self._finished.set()

    def _play(self, sock: socket.socket) -> None:
        def send(record: Record) -> None:
            sock.sendall(record.header)
            sock.sendall(record.body)

        with sock:
            sock.settimeout(_SEND_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            records = chosen(self._recording, self._connection, self._direction)
            try:
                self.played += replay(records, send, self._speed, stop=self._stop)
            except OSError as error:
                self.failures.append(f"the peer went away: {error}")
                return
            # Closing with unread bytes would reset the link and lose what is still on the way.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(_FAREWELL_S)
                while not self._stop.is_set() and sock.recv(1 << 16):
                    pass
