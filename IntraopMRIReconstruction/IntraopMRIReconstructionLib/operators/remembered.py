"""What depends on a trajectory alone, kept from one frame of a live scan to the next."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

Rest = ParamSpec("Rest")
Result = TypeVar("Result")

#: Trajectories that are remembered by each function: a scan has one, or one for each of a few interleaved frames.
REMEMBERED = 8


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
        digest = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=32).digest()
        key = (digest, array.shape, array.dtype.str, rest, tuple(named.items()))
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
