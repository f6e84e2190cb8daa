"""What lies between the reader threads and the consumer: bounded queues that say what they do when full."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from itertools import pairwise
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")

#: Streams whose drops are counted by name, so that invented names do not fill the memory.
MOST_COUNTED = 4096
OTHERS = ("others", "")

#: (connection, message type, device)
Key = tuple[int, str, str]


class Inbox(Generic[Item]):
    """One bounded queue per (connection, type, device), read in the order of arrival.

    A lossless stream lets its reader wait when it holds ``stream_items`` or when all streams together hold
    ``total_bytes``; waiting readers stop reading their sockets, so TCP holds the sender back. A latest-wins stream
    replaces its oldest item and counts it as dropped; new streams of this kind may take ``total_bytes`` more, what
    comes beyond is dropped.
    """

    def __init__(self, stream_items: int, total_bytes: int) -> None:
        self._stream_items, self._total_bytes = stream_items, total_bytes
        self._changed = Condition()
        self._items: OrderedDict[int, tuple[Key, Item, int]] = OrderedDict()
        self._streams: dict[Key, deque[int]] = {}
        self._bytes = 0
        self._next = 0
        self._closed = False
        self.dropped: Counter[tuple[str, str]] = Counter()

    def put_lossless(self, key: Key, item: Item, size: int, stop: Callable[[], bool]) -> bool:
        """Append; wait for room. False when the inbox was closed or ``stop`` says so before there was room."""
        with self._changed:
            while not self._closed and not self._has_room(key, size):
                if stop():
                    return False
                self._changed.wait(0.25)
            return not self._closed and self._append(key, item, size)

    def put_latest(self, key: Key, item: Item, size: int, depth: int) -> bool:
        """Append, or replace the oldest of ``depth`` items of this stream. Never waits."""
        with self._changed:
            if self._closed:
                return False
            numbers = self._streams.get(key, deque())
            has_room = self._bytes + size <= 2 * self._total_bytes or not self._items
            if len(numbers) < depth and has_room:
                return self._append(key, item, size)
            if numbers:
                # The places in the order of arrival stay, their contents move up: a fast stream starves nobody.
                self._bytes += size - self._items[numbers[0]][2]
                for place, following in pairwise(numbers):
                    self._items[place] = self._items[following]
                self._items[numbers[-1]] = (key, item, size)
            stream = (key[1], key[2])
            self.dropped[stream if stream in self.dropped or len(self.dropped) < MOST_COUNTED else OTHERS] += 1
            return True

    def get(self, timeout_s: float | None, wanted: Callable[[Item], bool] | None = None) -> Item | None:
        """Oldest item that is ``wanted``; None when none came in time or the inbox is closed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                number = self._find(wanted)
                if number is not None:
                    return self._take(number)
                left = None if deadline is None else deadline - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        """Wake everybody. What was queued can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def queued_bytes(self) -> int:
        """Bytes of all queued items."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._items)

    def _has_room(self, key: Key, size: int) -> bool:
        fits = self._bytes + size <= self._total_bytes or not self._items
        return fits and len(self._streams.get(key, ())) < self._stream_items

    def _append(self, key: Key, item: Item, size: int) -> bool:
        self._items[self._next] = (key, item, size)
        self._streams.setdefault(key, deque()).append(self._next)
        self._next += 1
        self._bytes += size
        self._changed.notify_all()
        return True

    def _find(self, wanted: Callable[[Item], bool] | None) -> int | None:
        for number, (_key, item, _size) in self._items.items():
            if wanted is None or wanted(item):
                return number
        return None

    def _take(self, number: int) -> Item:
        key, item, size = self._items.pop(number)
        numbers = self._streams[key]
        numbers.remove(number)
        if not numbers:
            del self._streams[key]
        self._bytes -= size
        self._changed.notify_all()
        return item
