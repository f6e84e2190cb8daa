"""Grey values of one image in terms of another: the mean of the one at each value of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from IntraopMRIReconstructionLib.data import AnyArray

from .sampling import Float32Array

#: Knots of the curve: finer ones follow noise, coarser ones blur grey and white matter.
KNOTS = 32


@dataclass(frozen=True, eq=False)
class Tones:
    """A curve from moving to fixed values, linear between KNOTS knots over ``value_range``; ``curve``: (KNOTS,)."""

    value_range: tuple[float, float]
    curve: Float32Array

    @classmethod
    def learnt(cls, moving: Float32Array, fixed: Float32Array, value_range: tuple[float, float]) -> Tones:
        """Conditional mean of ``fixed`` given ``moving`` (both (n,), the same points); empty knots are interpolated."""
        tones = cls(value_range, np.zeros(KNOTS, dtype=np.float32))
        lower, part, _ = tones._knots(moving)
        weight: AnyArray = np.bincount(lower, 1 - part, KNOTS) + np.bincount(lower + 1, part, KNOTS)
        total: AnyArray = np.bincount(lower, (1 - part) * fixed, KNOTS) + np.bincount(lower + 1, part * fixed, KNOTS)
        # A little of the neighbours' mass everywhere: a knot of ten voxels is no measurement.
        for kernel in ((0.25, 0.5, 0.25), (0.1, 0.8, 0.1), (0.1, 0.8, 0.1)):
            weight = np.convolve(np.pad(weight, 1, mode="edge"), kernel, "valid")
            total = np.convolve(np.pad(total, 1, mode="edge"), kernel, "valid")
        known = weight > 1e-3
        if not known.any():
            return tones
        mean = np.interp(np.arange(KNOTS), np.flatnonzero(known), total[known] / weight[known])
        return cls(value_range, mean.astype(np.float32))

    def mapped(self, values: Float32Array) -> tuple[Float32Array, Float32Array]:
        """``values`` in the fixed image's tones, and the slope of the curve there; same shape as ``values``."""
        lower, part, scale = self._knots(values)
        steps = np.diff(self.curve)
        slope = steps[lower]
        return self.curve[lower] + slope * part, slope * np.float32(scale)

    def _knots(self, values: Float32Array) -> tuple[AnyArray, Float32Array, float]:
        low, high = self.value_range
        scale = (KNOTS - 1) / (high - low)
        position = np.clip((values - np.float32(low)) * np.float32(scale), 0, KNOTS - 1)
        lower = np.minimum(position.astype(np.int32), KNOTS - 2)
        return lower, position - lower, scale
