"""One resolution of the deformable fit: Gauss-Newton on locally normalised intensities with Cauchy weights.

The normal matrix is lumped onto the nodes: a cubic B-spline basis is non-negative and sums to one, so by Jensen's
inequality the lumped, block-diagonal matrix lies above the true one. Each step is then a descent step of a majorised
problem, needs one 3 x 3 block a node, and the bending energy couples the nodes on the small lattice only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .lattice import Basis, Bending, Lattice
from .sampling import BoolArray, Float32Array, sample

#: Cauchy scale of normalised residuals in units of their median: a voxel that far off counts half.
CAUCHY_MEDIANS = 4.0
#: A step may move a node by this many voxels: farther the linear picture of the image means nothing.
MAX_STEP_VOXELS = 1.5
#: Conjugate-gradient steps on the lattice for each Gauss-Newton step.
LATTICE_STEPS = 12
#: The lumped matrix lies above the true one, far above for what changes from node to node: going farther than its step
#: makes up for that. A node for which that is too far turns back at the next step and goes half as far from then on.
OVERSHOOT = 2.2
#: A level has settled when 95 of 100 nodes move by less than this many voxels.
SETTLED_VOXELS = 0.015
#: Pull of each node back to no shift, in units of the bending energy: where nothing is matched the shift fades within
#: about five nodes to what the rigid pose says, instead of running on straight.
ANCHOR = 0.002

#: Stiffness is meant at this resolution and coarser ones. A finer one sees more of the anatomy, though its voxels are
#: not so many times as independent: there the stiffness against the data falls with the voxel's edge, not its volume.
STIFFNESS_AT_MM = 2.0

_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class LevelImages:
    """Normalised images of one resolution on the same box: ``fixed``, ``moving`` (k, j, i); ``voxel_mm`` (3,).

    ``weight`` (k, j, i): what each fixed voxel counts, 0 outside the mask and in the cavity.
    ``moving_weight`` (k, j, i) or None: what each moving voxel counts (0 in the tumour that may be gone).
    ``moving_start`` (3,): voxels that the moving box reaches beyond the fixed one at its start.
    """

    fixed: Float32Array
    moving: Float32Array
    weight: Float32Array
    voxel_mm: npt.NDArray[np.float64]
    moving_weight: Float32Array | None = None
    moving_start: tuple[int, int, int] = (0, 0, 0)


class LevelFit:
    """Points of one resolution, ready to be matched again and again.

    ``firm`` (lattice shape) or None: what holds together around each node, see :class:`.lattice.Bending`.
    ``held``: nodes at the border of the lattice, which see only some of their voxels, stay as they are.
    """

    def __init__(
        self,
        images: LevelImages,
        lattice: Lattice,
        stiffness: float,
        threads: int,
        *,
        firm: Float32Array | None = None,
        held: bool = False,
    ) -> None:
        self._images, self._threads = images, threads
        self.voxel_mm = float(np.cbrt(np.prod(images.voxel_mm)))
        self.basis = Basis(lattice, images.fixed.shape, images.voxel_mm)
        self.bending = Bending(np.ones(lattice.shape, dtype=np.float32) if firm is None else firm)
        self._chosen = np.flatnonzero(images.weight)
        index = np.unravel_index(self._chosen, images.fixed.shape)
        self.points_kji = np.stack(index).astype(np.float32)
        self._fixed = images.fixed.ravel()[self._chosen]
        self._weight = images.weight.ravel()[self._chosen]
        self._inverse_mm = (1.0 / images.voxel_mm).astype(np.float32)[:, None]
        self._gradient = _central_differences(images.fixed, self._chosen) * self._inverse_mm
        # Stiffness is meant for a mm of bending over a lattice spacing and per voxel that a node sees.
        voxels_a_node = lattice.spacing_mm**3 / float(np.prod(images.voxel_mm))
        relative = min(1.0, self.voxel_mm / STIFFNESS_AT_MM)
        self.stiffness = np.float32(stiffness * relative * voxels_a_node / lattice.spacing_mm**2)
        self._free: Float32Array | None = None
        if held:
            self._free = np.zeros(lattice.shape, dtype=np.float32)
            self._free[3:-3, 3:-3, 3:-3] = 1

    def residuals(self, coefficients: Float32Array) -> tuple[Float32Array, Float32Array, BoolArray]:
        """(residual (n,), gradient a mm (3, n), counted (n,)) at the displacement of ``coefficients``."""
        moved = self._moved(coefficients)
        got = sample(self._images.moving, moved, self._threads)
        gradient = 0.5 * (got.gradient * self._inverse_mm + self._gradient)
        counted = got.inside
        if self._images.moving_weight is not None:
            counted = np.asarray(
                counted & (sample(self._images.moving_weight, moved, self._threads, slopes=False).values > 0.5)
            )
        return self._fixed - got.values, np.asarray(gradient, dtype=np.float32), counted

    def misfit(self, coefficients: Float32Array) -> float:
        """Median absolute residual, deviations; infinite where nothing is matched."""
        residual, _, counted = self.residuals(coefficients)
        return float(np.median(np.abs(residual[counted]))) if counted.any() else float("inf")

    def likeness(self, coefficients: Float32Array) -> float:
        """Correlation of the images at the displacement of ``coefficients``, -1..1; 0 without structure."""
        residual, _, counted = self.residuals(coefficients)
        fixed = self._fixed[counted].astype(np.float64)
        moving = fixed - residual[counted]
        if fixed.size == 0 or min(fixed.std(), moving.std()) < 1e-6:
            return 0.0
        return float(np.corrcoef(fixed, moving)[0, 1])

    def _moved(self, coefficients: Float32Array) -> Float32Array:
        result = np.empty_like(self.points_kji)

        def along(axis: int) -> None:
            displacement = self.basis.evaluated(coefficients[axis : axis + 1]).ravel()[self._chosen]
            displacement *= self._inverse_mm[axis]
            displacement += np.float32(self._images.moving_start[axis])
            np.add(displacement, self.points_kji[axis], out=result[axis])

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(along, range(3)))
        return result

    def step(self, coefficients: Float32Array) -> Float32Array:
        """One Gauss-Newton step: the change of the coefficients, mm."""
        residual, gradient, weight = self.weighed(coefficients)
        weighted = gradient * weight
        products = [weighted[a] * gradient[b] for a, b in _PAIRS] + [weighted[axis] * residual for axis in range(3)]
        gathered = self.gathered(products)
        pull = gathered[6:] - self.stiffness * self._prior(coefficients)
        change = self.solved(gathered[:6], pull) * np.float32(OVERSHOOT)
        length = np.sqrt((change**2).sum(axis=0, keepdims=True))
        limit = np.float32(MAX_STEP_VOXELS * float(self._images.voxel_mm.max()))
        change *= np.minimum(1.0, limit / np.maximum(length, 1e-9))
        return change

    def _prior(self, coefficients: Float32Array) -> Float32Array:
        """Half the gradient of bending energy and anchor."""
        return self.bending(coefficients) + np.float32(ANCHOR) * self.bending.firm * coefficients

    def weighed(self, coefficients: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array]:
        """(residual (n,), gradient (3, n), weight (n,)): weight falls with the residual (Cauchy)."""
        residual, gradient, counted = self.residuals(coefficients)
        scale = CAUCHY_MEDIANS * float(np.median(np.abs(residual[counted]))) + 1e-6 if counted.any() else 1.0
        return residual, gradient, self._weight * counted / (1.0 + (residual / np.float32(scale)) ** 2)

    def blocks(self, gradient: Float32Array, weight: Float32Array) -> Float32Array:
        """The lumped normal matrix (6, *lattice shape): xx yy zz xy xz yz."""
        return self.gathered([gradient[a] * weight * gradient[b] for a, b in _PAIRS])

    def gathered(self, at_points: list[Float32Array]) -> Float32Array:
        """Values at the points (each (n,)) summed onto the nodes."""

        def one(values: Float32Array) -> Float32Array:
            field = np.zeros(self._images.fixed.shape, dtype=np.float32)
            field.reshape(-1)[self._chosen] = values
            return self.basis.gathered(field[None])[0]

        with ThreadPoolExecutor(self._threads) as pool:
            return np.stack(list(pool.map(one, at_points)))

    def solved(self, blocks: Float32Array, right: Float32Array) -> Float32Array:
        """Solve (blocks + stiffness x bending) x = right by conjugate gradients, preconditioned by the blocks.

        ``blocks`` (6, *shape): xx yy zz xy xz yz of each node's symmetric matrix. ``right`` (3, *shape).
        """
        stiffness = self.stiffness
        # A node that sees nothing is moved by its neighbours only.
        ridge = np.float32(1e-3) * blocks[:3].sum(axis=0) + np.float32(1e-4) * stiffness + np.float32(1e-12)
        inverse = _inverted(blocks, ridge + stiffness * np.float32(Bending.DIAGONAL) * self.bending.firm)

        def operator(x: Float32Array) -> Float32Array:
            return _times(blocks, x) + ridge * x + stiffness * self._prior(x)

        solution = np.zeros_like(right)
        residual = right.copy() if self._free is None else right * self._free
        preconditioned = _times(inverse, residual)
        direction = preconditioned
        power = float(np.vdot(residual, preconditioned))
        first = power
        for _ in range(LATTICE_STEPS):
            if power <= 1e-6 * first or power <= 0.0:
                break
            image = operator(direction)
            if self._free is not None:
                image *= self._free
            rate = np.float32(power / max(float(np.vdot(direction, image)), 1e-30))
            solution += rate * direction
            residual -= rate * image
            preconditioned = _times(inverse, residual)
            new_power = float(np.vdot(residual, preconditioned))
            direction = preconditioned + np.float32(new_power / power) * direction
            power = new_power
        return solution

    def fitted(
        self,
        coefficients: Float32Array,
        steps: int,
        still: Callable[[float], None],
        settled_voxels: float = SETTLED_VOXELS,
    ) -> Float32Array:
        """At most ``steps`` steps; ``still`` is told the fraction done and may raise to stop.

        Trilinear values have a kink at every voxel: about shifts of whole voxels, and far from the cavity that is most
        of the brain, full steps would jump to and fro for ever. Nodes that turn back are slowed down instead.
        """
        pace = np.ones(coefficients.shape[1:], dtype=np.float32)
        before = np.zeros_like(coefficients)
        for number in range(steps):
            change = self.step(coefficients)
            pace[(change * before).sum(axis=0) < 0] *= np.float32(0.5)
            before = change * pace
            coefficients = coefficients + before
            still((number + 1) / steps)
            if float(np.quantile((before**2).sum(axis=0), 0.95)) < (settled_voxels * self.voxel_mm) ** 2:
                break
        return coefficients


def _central_differences(values: Float32Array, chosen: npt.NDArray[np.intp]) -> Float32Array:
    """(3, n) differences a voxel at the flat indices ``chosen``, one-sided at the border."""
    flat = values.ravel()
    result = np.empty((3, chosen.size), dtype=np.float32)
    for axis, stride in enumerate((values.shape[1] * values.shape[2], values.shape[2], 1)):
        position = (chosen // stride) % values.shape[axis]
        up = np.where(position < values.shape[axis] - 1, stride, 0)
        down = np.where(position > 0, stride, 0)
        result[axis] = (flat[chosen + up] - flat[chosen - down]) / np.maximum((up + down) // stride, 1)
    return result


def _times(blocks: Float32Array, x: Float32Array) -> Float32Array:
    xx, yy, zz, xy, xz, yz = blocks
    return np.stack(
        [
            xx * x[0] + xy * x[1] + xz * x[2],
            xy * x[0] + yy * x[1] + yz * x[2],
            xz * x[0] + yz * x[1] + zz * x[2],
        ]
    )


def _inverted(blocks: Float32Array, diagonal: Float32Array) -> Float32Array:
    """Inverse of each symmetric 3 x 3 block plus ``diagonal`` times the identity, by cofactors."""
    xx, yy, zz = (b + diagonal for b in blocks[:3])
    xy, xz, yz = blocks[3:]
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * cxx + xy * cxy + xz * cxz
    cofactors = np.stack([cxx, xx * zz - xz * xz, xx * yy - xy * xy, cxy, cxz, xy * xz - xx * yz])
    return cofactors / np.maximum(determinant, np.float32(1e-30))
