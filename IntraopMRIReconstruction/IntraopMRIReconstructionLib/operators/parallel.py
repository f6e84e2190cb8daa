"""Threads for work that numpy and scipy do without the interpreter's lock, and BLAS kept to one thread beside them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

    others = [_pool(threads).submit(work) for _ in range(min(threads, len(items)) - 1)]
    try:
        work()
    finally:
        for other in others:
            if not other.cancel():
                other.result()


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
