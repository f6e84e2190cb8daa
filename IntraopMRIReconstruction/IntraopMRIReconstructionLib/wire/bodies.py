"""Memory for the bodies of messages: taken again once nobody looks at it any more.

Fresh memory is handed out page by page by the kernel, which clears each page first: for an image of 67 MB that costs
more than to receive it. A body that nothing refers to any more is therefore kept for the next one.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np

from ..data import AnyArray

#: Smaller bodies come from the heap of Python, which is warm by itself.
SMALLEST_KEPT = 2**16
#: Larger ones are asked of the system itself. The allocator of C keeps what has been freed for the thread that freed
#: it, and every link that comes has a thread of its own: a link that flaps all night would fill the memory.
SMALLEST_MAPPED = 2**20
#: An idle block may be so much larger than the body that takes it.
MOST_SLACK = 1.25
#: More idle blocks are not kept: one that fills, some that wait, one that is looked at.
MOST_BLOCKS = 16
#: Idle memory is kept for so long without being used: longer than the pause between two images of a live view.
KEPT_S = 10.0


class _Lease(weakref.ref[AnyArray]):
    """Outlives the array that it refers to, and says which block that array lent."""

    __slots__ = ("block",)
    block: memoryview


class BodyPool:
    """Lends memory; it comes back when the last view of it has gone, however it was derived. For any number of threads.

    A lent memoryview exports a private array of its own. Every array or view that is derived from it holds that array,
    which therefore dies when, and only when, nobody can read the memory any more: what a consumer keeps never changes.

    ``room``: bytes that idle memory may take now.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._idle: list[tuple[memoryview, float]] = []
        self._idle_bytes = 0
        self._leases: dict[int, _Lease] = {}

    @property
    def idle_bytes(self) -> int:
        """Bytes that are kept for later."""
        return self._idle_bytes

    def take(self, size: int) -> memoryview:
        """Writable memory of ``size`` bytes, its contents arbitrary."""
        if size < SMALLEST_KEPT:
            return memoryview(bytearray(size))
        with self._lock:
            block = self._found(size)
            while self._idle and self._idle_bytes + size > self._room():
                self._remove(0)
        if block is None:
            block = _block(size)
        lent = np.frombuffer(block, np.uint8, size)
        lease = _Lease(lent, self._take_back)
        lease.block = block
        self._leases[id(lease)] = lease
        return lent.data

    def trim(self, kept_s: float = KEPT_S) -> None:
        """Let go of what has not been used for long."""
        with self._lock:
            since_s = time.monotonic() - kept_s
            while self._idle and self._idle[0][1] <= since_s:
                self._remove(0)

    def _found(self, size: int) -> memoryview | None:
        """The newest idle block that fits: it may still be in the cache of the processor."""
        for place in reversed(range(len(self._idle))):
            if size <= len(self._idle[place][0]) <= size * MOST_SLACK:
                return self._remove(place)
        return None

    def _remove(self, place: int) -> memoryview:
        block, _since_s = self._idle.pop(place)
        self._idle_bytes -= len(block)
        return block

    def _take_back(self, lease: _Lease) -> None:
        del self._leases[id(lease)]
        block = lease.block
        # Never waits: the garbage collector may call this while this very thread holds the lock. Memory that is not
        # kept is freed as usual.
        if not self._lock.acquire(blocking=False):
            return
        try:
            room = self._room() - len(block)
            while self._idle and (len(self._idle) == MOST_BLOCKS or self._idle_bytes > room):
                self._remove(0)
            if room >= 0:
                self._idle.append((block, time.monotonic()))
                self._idle_bytes += len(block)
        finally:
            self._lock.release()


def _block(size: int) -> memoryview:
    """Fresh memory. Raises MemoryError."""
    if size < SMALLEST_MAPPED or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(size, np.uint8).data
    try:
        mapped = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(f"there are no {size} bytes for a message") from error
    # Large pages are cleared several times as fast; not every kernel has them.
    with contextlib.suppress(OSError):
        if hasattr(mmap, "MADV_HUGEPAGE"):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(mapped)
