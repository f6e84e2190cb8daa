"""Threads for work that numpy and scipy do without the interpreter's lock, and BLAS kept to one thread beside them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Generator[Result, None, None]:
    """Results of ``function`` for each item, in order, computed by ``threads`` threads.

    Leaving the loop early cancels what has not begun. ``function`` must not call this again.
    """
    if threads <= 1 or len(items) <= 1:
        yield from map(function, items)
    else:
        yield from _pool(threads).map(function, items)


def spread(function: Callable[[Item], object], items: Sequence[Item], threads: int) -> None:
    """Call ``function`` for each item; the calling thread does its part, and who is done takes the next item.

    For short work: nothing waits for a thread that is busy elsewhere. An error of any item is raised when all threads
    have left their items.
    """
    left = iter(items)

    def work() -> None:
        for item in left:
            function(item)

    others = _offered(work, min(threads, len(items)) - 1)
    try:
        work()
    finally:
        errors = [other.end() for other in others]
    for error in errors:
        if error is not None:
            raise error


def shares(count: int, threads: int) -> list[range]:
    """0..count in at most ``threads`` contiguous parts of nearly equal length, none empty."""
    parts = max(1, min(threads, count))
    edges = [count * part // parts for part in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(edges)]


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread: our own threads use the cores, and BLAS threads that wait cost several times the work.

    The limit is one of the whole process: it holds until the last of several threads that ask for it has left. Does
    nothing where threadpoolctl is not installed.
    """
    with _limit.lock:
        if _limit.users == 0 and (controller := _blas()) is not None:
            _limit.limiter = controller.limit(limits=1, user_api="blas")
        _limit.users += 1
    try:
        yield
    finally:
        with _limit.lock:
            _limit.users -= 1
            if _limit.users == 0 and _limit.limiter is not None:
                _limit.limiter.restore_original_limits()
                _limit.limiter = None


class _Limit:
    """Who wants BLAS to keep to one thread, and what undoes it."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.limiter: Any = None


_limit = _Limit()


class _Offer:
    """Work that a waiting thread takes over, unless it is taken back first."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._taken, self._over = threading.Lock(), threading.Lock()
        self._over.acquire()
        self._error: BaseException | None = None

    def accept(self) -> None:
        """Do the work in this thread, if it is still on offer."""
        if self._taken.acquire(blocking=False):
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the thread that asked
                self._error = error
            self._over.release()

    def end(self) -> BaseException | None:
        """Take the work back or, when it has begun, wait for it; what it raised."""
        if not self._taken.acquire(blocking=False):
            self._over.acquire()
        return self._error


class _Waiting:
    """Threads that wait for offers. An executor's bookkeeping takes as long as a tenth of a live frame."""

    def __init__(self) -> None:
        self.offers: SimpleQueue[_Offer] = SimpleQueue()
        self.lock, self.count = threading.Lock(), 0

    def grow(self, count: int) -> None:
        """Have at least ``count`` threads."""
        with self.lock:
            while self.count < count:
                threading.Thread(target=self._serve, name=f"reconstruct-{self.count}", daemon=True).start()
                self.count += 1

    def _serve(self) -> None:
        while True:
            # Nothing is kept while it waits: an offer holds the arrays that it works on.
            self.offers.get().accept()


_waiting = _Waiting()


def _offered(work: Callable[[], None], count: int) -> list[_Offer]:
    if count > _waiting.count:
        _waiting.grow(count)
    offers = [_Offer(work) for _ in range(count)]
    for offer in offers:
        _waiting.offers.put(offer)
    return offers


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="reconstruct")


@functools.cache
def _blas() -> Any:
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController()
