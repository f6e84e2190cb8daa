"""Slices and boxes of an IMAGE put together to the volume that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..data import AnyArray
from .header import RefusedMessage
from .messages_array import ImageMessage

#: Devices of one connection that may send parts at the same time.
MOST_VOLUMES = 8


@dataclass(eq=False)
class _Volume:
    first: ImageMessage
    array: AnyArray
    filled: npt.NDArray[np.bool_]
    missing: int


class VolumeAssembler:
    """Collects the parts of volumes, one volume per device. Only complete volumes come out, never mixed ones.

    ``limit_bytes``: largest volume that is begun.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._volumes: dict[str, _Volume] = {}
        self.incomplete = 0

    def feed(self, part: ImageMessage) -> ImageMessage | None:
        """Add a part; the volume when it is complete, else None. A whole volume passes through.

        A part that does not fit the volume that was begun, or that comes again, begins a new one; what was left
        incomplete is counted in ``incomplete``. The volume carries the time stamp of its first part: its oldest.
        Raises RefusedMessage when the volume exceeds the limit or too many were begun.
        """
        if part.is_whole:
            self._drop(part.device)
            return part
        volume = self._volumes.get(part.device)
        box = _box(part)
        if volume is None or not _belongs(part, volume.first) or volume.filled[box].any():
            self._drop(part.device)
            volume = self._begin(part)
        volume.array[box] = part.array
        volume.filled[box] = True
        volume.missing -= int(np.prod(part.part_ijk))
        if volume.missing:
            return None
        del self._volumes[part.device]
        volume.array.setflags(write=False)
        return replace(part, timestamp=volume.first.timestamp, array=volume.array, offset_ijk=(0, 0, 0))

    def _begin(self, part: ImageMessage) -> _Volume:
        size = part.size_ijk or part.part_ijk
        shape = size[::-1]
        full = shape if part.array.ndim == 3 else (*shape, part.components)
        count = size[0] * size[1] * size[2]
        bytes_needed = count * (part.components * part.array.dtype.itemsize + 1)
        what = f"IMAGE '{part.device}'"
        if bytes_needed > self._limit_bytes:
            raise RefusedMessage(
                "size", f"{what} is part of a volume of {bytes_needed} bytes, limit {self._limit_bytes}"
            )
        if len(self._volumes) >= MOST_VOLUMES:
            raise RefusedMessage("streams", f"{what}: parts of more than {MOST_VOLUMES} volumes at a time")
        volume = _Volume(part, np.empty(full, part.array.dtype), np.zeros(shape, bool), count)
        self._volumes[part.device] = volume
        return volume

    def _drop(self, device: str) -> None:
        if self._volumes.pop(device, None) is not None:
            self.incomplete += 1


def _box(part: ImageMessage) -> tuple[slice, slice, slice]:
    i, j, k = (slice(o, o + n) for o, n in zip(part.offset_ijk, part.part_ijk, strict=True))
    return k, j, i


def _belongs(part: ImageMessage, first: ImageMessage) -> bool:
    return (
        part.size_ijk == first.size_ijk
        and part.coordinate == first.coordinate
        and part.array.dtype == first.array.dtype
        and part.components == first.components
        and np.array_equal(part.axes_mm, first.axes_mm)
        and np.array_equal(part.centre_mm, first.centre_mm)
    )
