"""Map of the static field from a multi-echo scan.

Sources: Robinson and Jovicich, Magn Reson Med 66:976 (2011) for combining coils by their Hermitian product; Herraez et
al., Appl Opt 41:7437 (2002) for unwrapping. Longer echoes are brought in one by one, each within half a turn of what
the shorter ones predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from .phase import Mask, unwrapped
from .thermometry import signal_mask


@dataclass(frozen=True, eq=False)
class FieldMap:
    """``hz``: (z, y, x) float32 off-resonance, NaN outside ``mask``. ``deviation_hz``: (z, y, x) standard deviation of
    the fit from what the echoes leave, NaN for two echoes, which leave nothing. ``parts``: connected parts of the mask;
    beyond the first, each has an unknown multiple of ``ambiguity_hz``."""

    hz: npt.NDArray[np.float32]
    deviation_hz: npt.NDArray[np.float32]
    mask: Mask
    parts: int
    ambiguity_hz: float


def field_map(
    echoes: npt.NDArray[np.complexfloating[Any, Any]], echo_times_s: tuple[float, ...], mask: Mask | None = None
) -> FieldMap:
    """Field in Hz from complex images (echoes, z, y, x) or (coils, echoes, z, y, x) at ``echo_times_s``.

    ``mask`` (z, y, x): where to measure; bright voxels when None. Fat counts as off-resonance water unless the echo
    times are in phase. Raises ReconstructionError for fewer than two echoes, times that do not rise, or wrong shapes.
    """
    if echoes.ndim == 4:
        echoes = echoes[None]
    times = np.asarray(echo_times_s, dtype=np.float64)
    if echoes.ndim != 5 or echoes.shape[1] != len(times) or len(times) < 2:
        raise ReconstructionError(
            f"a field map needs images (echoes, z, y, x) with a time for each of at least two echoes, got "
            f"{echoes.shape} and {len(times)} times"
        )
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any() or times[-1] > 0.5:
        raise ReconstructionError(f"echo times must rise and be in seconds, got {echo_times_s}")
    if not np.isfinite(echoes).all():
        raise ReconstructionError("a field map cannot be made from images with NaN or infinite values")
    order = _shortest_first(times)
    since = times[order[1:]] - times[order[0]]
    products = np.stack([np.sum(echoes[:, n] * echoes[:, order[0]].conj(), axis=0) for n in order[1:]])
    strength = np.sqrt(np.abs(products))
    where = signal_mask(strength[0]) if mask is None else mask
    phase, parts = unwrapped(np.angle(products[0]), strength[0], where)
    hz = phase / (2 * np.pi * since[0])
    weight = strength**2  # the variance of a phase falls with the power
    for count in range(2, len(since) + 1):
        t, w = since[:count, None, None, None], weight[:count]
        left = np.angle(products[:count] * np.exp(-2j * np.pi * hz * t))
        hz = hz + (w * t * left).sum(axis=0) / np.maximum((w * t * t).sum(axis=0), np.finfo(float).tiny) / (2 * np.pi)
    t = since[:, None, None, None]
    left = np.angle(products * np.exp(-2j * np.pi * hz * t))
    spread = (weight * left**2).sum(axis=0) / max(1, len(since) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.sqrt(spread / (weight * t * t).sum(axis=0)) / (2 * np.pi)
    if len(since) < 2:
        deviation = np.full(hz.shape, np.nan)
    nothing = ~where
    hz[nothing], deviation[nothing] = np.nan, np.nan
    return FieldMap(hz.astype(np.float32), deviation.astype(np.float32), where, int(parts.max()), float(1 / since[0]))


def _shortest_first(times: npt.NDArray[np.float64]) -> list[int]:
    """Order of echoes: the pair with the least distance first, which wraps least, then the others by their distance."""
    first = int(np.argmin(np.diff(times)))
    others = sorted((n for n in range(len(times)) if n != first), key=lambda n: (abs(times[n] - times[first]), -n))
    return [first, *others]
