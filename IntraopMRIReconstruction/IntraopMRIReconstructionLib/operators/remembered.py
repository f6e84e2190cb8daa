"""What depends on a trajectory, a sampling or a header alone, kept from one frame of a live scan to the next."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

#: Decorates a function of an Encoding alone: its results are kept for the newest objects, and a live scan has one.
by_scan = functools.lru_cache(maxsize=8)

Rest = ParamSpec("Rest")
Result = TypeVar("Result")

#: Trajectories or masks that each function remembers: a scan has one, or one for each of a few interleaved frames.
REMEMBERED = 8
#: Arrays up to so large are compared themselves, which is quicker than by their digests.
LARGEST_KEPT_BYTES = 2**16


def remembered(
    function: Callable[Concatenate[npt.NDArray[Any], Rest], Result],
) -> Callable[Concatenate[npt.NDArray[Any], Rest], Result]:
    """Keep the results of ``function`` for its newest first arguments, compared by content.

    Other arguments must be hashable. An array that is returned is read-only. Safe to use from
    several threads.
    """
    kept: OrderedDict[Hashable, Result] = OrderedDict()
    lock = threading.Lock()

    @functools.wraps(function)
    def asked(array: npt.NDArray[Any], *rest: Rest.args, **named: Rest.kwargs) -> Result:
        content = array.tobytes()
        if len(content) > LARGEST_KEPT_BYTES:
            content = hashlib.blake2b(content, digest_size=32).digest()
        key = (content, array.shape, array.dtype.str, rest, tuple(named.items()))
        with lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        result = function(array, *rest, **named)
        if isinstance(result, np.ndarray):
            result.setflags(write=False)
        with lock:
            kept[key] = result
            while len(kept) > REMEMBERED:
                kept.popitem(last=False)
        return result

    return asked
