"""Slices and boxes of an IMAGE put together to the volume that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..data import AnyArray
from .header import RefusedMessage
from .messages_array import ImageMessage
from .trust import FRAME_KEYS, PATIENT_KEYS, SCAN_KEYS

#: Devices of one connection that may send parts at the same time, and how many of the largest volumes these may be.
MOST_VOLUMES, MOST_LARGE_VOLUMES = 8, 2
#: Without another part for so long the scan has ended. A slow 2D sequence sends a slice every 20 s, and nobody starts
#: the same scan again within less.
LONGEST_PAUSE_S = 30.0
#: The same for parts that name their scan (``SCAN_KEYS``): they cannot be mistaken for those of another one, so only
#: memory is at stake. Longer than any sequence.
LONGEST_NAMED_PAUSE_S = 1800.0
#: Time stamps of the parts of one volume whose scan has no name lie no further from one another: a scan of two
#: interleaved packages that is sent in the order of its slices jumps by one package, at most some two minutes.
WIDEST_JUMP_S = 120.0


@dataclass(eq=False)
class _Volume:
    first: ImageMessage
    array: AnyArray
    filled: npt.NDArray[np.bool_]
    missing: int
    came_s: float
    stamps_s: tuple[float, float] | None

    @property
    def longest_pause_s(self) -> float:
        return LONGEST_NAMED_PAUSE_S if _scan(self.first) else LONGEST_PAUSE_S

    @property
    def text(self) -> str:
        return (
            f"a volume of IMAGE '{self.first.device}' stayed incomplete: {self.missing} of {self.filled.size} voxels "
            "never came; it is not shown"
        )


def _ignore(_text: str) -> None:
    """Tell nobody."""


class VolumeAssembler:
    """Collects the parts of volumes, one volume per device. Only complete volumes come out, never mixed ones.

    ``limit_bytes``: largest volume that is begun. ``on_incomplete``: called with a sentence for every volume that was
    begun and not finished; they are also counted in ``incomplete``.
    """

    def __init__(self, limit_bytes: int, on_incomplete: Callable[[str], None] = _ignore) -> None:
        self._limit_bytes, self._on_incomplete = limit_bytes, on_incomplete
        self._volumes: dict[str, _Volume] = {}
        self.incomplete = 0

    def feed(self, part: ImageMessage, received_monotonic_s: float) -> ImageMessage | None:
        """Add a part; the volume when it is complete, else None. A whole volume passes through.

        A part that does not fit the volume that was begun, that comes again or that names another scan begins a new
        one. Where the sender names no scan, so does a part that comes too late (``LONGEST_PAUSE_S``) or with a stamp of
        another time (``WIDEST_JUMP_S``). The volume carries the time stamp of its first part.

        Raises RefusedMessage when the volume exceeds the limit or too many were begun.
        """
        self.expire(received_monotonic_s)
        if part.is_whole:
            self._drop(part.device)
            return part
        volume = self._volumes.get(part.device)
        box = _box(part)
        if volume is None or not _belongs(part, volume) or volume.filled[box].any():
            self._drop(part.device)
            volume = self._begin(part, received_monotonic_s)
        volume.came_s = received_monotonic_s
        volume.stamps_s = _span(volume.stamps_s, part.sent_utc_s)
        volume.array[box] = part.array
        volume.filled[box] = True
        volume.missing -= int(np.prod(part.part_ijk))
        if volume.missing:
            return None
        del self._volumes[part.device]
        volume.array.setflags(write=False)
        return replace(part, timestamp=volume.first.timestamp, array=volume.array, offset_ijk=(0, 0, 0))

    def expire(self, now_monotonic_s: float) -> None:
        """Give up volumes of which nothing has come for long."""
        if not self._volumes:
            return
        late = [
            device
            for device, volume in self._volumes.items()
            if now_monotonic_s - volume.came_s > volume.longest_pause_s
        ]
        for device in late:
            self._drop(device)

    def close(self) -> None:
        """Give up all volumes: nothing comes any more."""
        for device in list(self._volumes):
            self._drop(device)

    def _begin(self, part: ImageMessage, received_monotonic_s: float) -> _Volume:
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
        begun = sum(volume.array.nbytes + volume.filled.nbytes for volume in self._volumes.values())
        if begun + bytes_needed > MOST_LARGE_VOLUMES * self._limit_bytes:
            raise RefusedMessage("size", f"{what}: the volumes that have begun take {begun} bytes, no more can begin")
        volume = _Volume(
            part, np.empty(full, part.array.dtype), np.zeros(shape, bool), count, received_monotonic_s, None
        )
        self._volumes[part.device] = volume
        return volume

    def _drop(self, device: str) -> None:
        volume = self._volumes.pop(device, None)
        if volume is not None:
            self.incomplete += 1
            self._on_incomplete(volume.text)


def _box(part: ImageMessage) -> tuple[slice, slice, slice]:
    i, j, k = (slice(o, o + n) for o, n in zip(part.offset_ijk, part.part_ijk, strict=True))
    return k, j, i


def _span(stamps_s: tuple[float, float] | None, stamp_s: float | None) -> tuple[float, float] | None:
    """Oldest and newest time stamp."""
    if stamp_s is None or stamps_s is None:
        return stamps_s if stamp_s is None else (stamp_s, stamp_s)
    return min(stamps_s[0], stamp_s), max(stamps_s[1], stamp_s)


def _jump_s(stamps_s: tuple[float, float] | None, stamp_s: float | None) -> float:
    """How far a time stamp lies from those before; nothing can be said without one."""
    return 0.0 if stamps_s is None or stamp_s is None else max(stamps_s[0] - stamp_s, stamp_s - stamps_s[1])


def _scan(part: ImageMessage) -> str:
    """Name of the scan, empty when the sender gives none."""
    return next((part.metadata[key] for key in SCAN_KEYS if part.metadata.get(key)), "")


def _belongs(part: ImageMessage, volume: _Volume) -> bool:
    first = volume.first
    return (
        _scan(part) == _scan(first)
        and (bool(_scan(part)) or _jump_s(volume.stamps_s, part.sent_utc_s) <= WIDEST_JUMP_S)
        and part.size_ijk == first.size_ijk
        and part.coordinate == first.coordinate
        and part.array.dtype == first.array.dtype
        and part.components == first.components
        and all(part.metadata.get(key) == first.metadata.get(key) for key in (*PATIENT_KEYS, *FRAME_KEYS))
        and np.array_equal(part.axes_mm, first.axes_mm)
        and np.array_equal(part.centre_mm, first.centre_mm)
    )
