"""Cubic B-spline lattice over a box of voxels: displacements from few coefficients, by small matrices along each axis.

The basis is a product of one matrix an axis, so that evaluating (and its adjoint, gathering) is three matrix products
instead of 64 terms a voxel. Rueckert et al., IEEE TMI 18:712, 1999, for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.geometry import bounding_box
from scipy import ndimage

from .sampling import BoolArray, Float32Array

#: What is gone holds its walls together with this part of the stiffness of tissue: with all of it the one wall of a
#: cavity that draws in holds the other one back. Chosen on two cases of the lab's generator, none of them the
#: benchmark's, and held against others; a fifth of it does the same.
LOOSE = 0.05


@dataclass(frozen=True, eq=False)
class Lattice:
    """Nodes every ``spacing_mm`` over a box of ``box_mm`` (k, j, i), one more before and two after on each axis.

    ``start_mm``: how far into the first cell the box begins.
    """

    spacing_mm: float
    box_mm: tuple[float, float, float]
    start_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Nodes along k, j, i."""
        ends = (start + mm for start, mm in zip(self.start_mm, self.box_mm, strict=True))
        k, j, i = (int(np.ceil(end / self.spacing_mm - 1e-6)) + 3 for end in ends)
        return k, j, i

    def part(self, start_mm: npt.ArrayLike, box_mm: npt.ArrayLike) -> tuple[Lattice, tuple[slice, slice, slice]]:
        """The lattice over the box that begins ``start_mm`` into this one's, and which nodes of this one it has."""
        start, size = np.asarray(start_mm) + self.start_mm, np.asarray(box_mm)
        first = np.floor(start / self.spacing_mm + 1e-6).astype(int)
        inside = np.maximum(start - first * self.spacing_mm, 0.0)
        smaller = Lattice(self.spacing_mm, tuple(size.tolist()), tuple(inside.tolist()))
        k, j, i = (slice(a, a + n) for a, n in zip(first.tolist(), smaller.shape, strict=True))
        return smaller, (k, j, i)

    def finer(self) -> Lattice:
        """Half the spacing, over the same box."""
        return Lattice(self.spacing_mm / 2.0, self.box_mm, self.start_mm)

    def refined(self, coefficients: Float32Array) -> Float32Array:
        """Coefficients (3, *shape) of the same displacement on :meth:`finer`: exact subdivision of the spline."""
        result = coefficients
        for axis, (coarse, fine) in enumerate(zip(self.shape, self.finer().shape, strict=True)):
            result = np.moveaxis(np.tensordot(_subdivision(coarse, fine), result, axes=(1, axis + 1)), 0, axis + 1)
        return np.ascontiguousarray(result, dtype=np.float32)


def _subdivision(coarse: int, fine: int) -> Float32Array:
    """(fine, coarse): node j at (j - 1) h / 2 from nodes i at (i - 1) h; beyond the end the last slope goes on."""
    matrix = np.zeros((fine, coarse + 2))
    for j in range(fine):
        i, between = divmod(j + 1, 2)
        if between:
            matrix[j, i + 1 : i + 3] = 0.5
        else:
            matrix[j, i : i + 3] = 0.125, 0.75, 0.125
    extended = matrix[:, 1:-1].copy()
    extended[:, 0] += 2 * matrix[:, 0]
    extended[:, 1] -= matrix[:, 0]
    extended[:, -1] += 2 * matrix[:, -1]
    extended[:, -2] -= matrix[:, -1]
    return extended.astype(np.float32)


class Basis:
    """A lattice seen from the voxels of one resolution.

    ``voxels``: shape (k, j, i) of the box; ``voxel_mm``: their size. The centre of voxel n lies (n + 1/2) voxels
    into the box, at every resolution.
    """

    def __init__(self, lattice: Lattice, voxels: tuple[int, int, int], voxel_mm: npt.ArrayLike) -> None:
        self.lattice = lattice
        self._matrices = [
            _basis_matrix((np.arange(count) + 0.5) * float(size) + start, nodes, lattice.spacing_mm)
            for count, size, nodes, start in zip(
                voxels, np.asarray(voxel_mm), lattice.shape, lattice.start_mm, strict=True
            )
        ]
        self._adjoints = [np.ascontiguousarray(m.T) for m in self._matrices]

    def evaluated(self, coefficients: Float32Array) -> Float32Array:
        """Values (fields, k, j, i) at the voxels of ``coefficients`` (fields, *lattice.shape)."""
        return _applied(self._matrices, coefficients)

    def gathered(self, fields: Float32Array) -> Float32Array:
        """Adjoint of :meth:`evaluated`: (fields, k, j, i) summed onto the nodes."""
        return _applied(self._adjoints, fields)


def _applied(matrices: list[Float32Array], fields: Float32Array) -> Float32Array:
    mk, mj, mi = matrices
    result = np.empty((len(fields), len(mk), len(mj), len(mi)), dtype=np.float32)
    grows = len(mk) > fields.shape[1]
    for field, out in zip(fields, result, strict=True):
        if grows:
            slab = (mk @ field.reshape(field.shape[0], -1)).reshape(len(mk), *field.shape[1:])
            np.matmul(np.matmul(mj, slab), mi.T, out=out)
        else:
            slab = np.matmul(mj, np.matmul(field, mi.T))
            out[:] = (mk @ slab.reshape(slab.shape[0], -1)).reshape(out.shape)
    return result


def _basis_matrix(centres_mm: npt.NDArray[np.floating], nodes: int, spacing_mm: float) -> Float32Array:
    """(count, nodes): weight of node n, at (n - 1) spacings, at each of the voxels' ``centres_mm`` (count,)."""
    count, position = len(centres_mm), centres_mm / spacing_mm
    cell = np.minimum(position.astype(int), nodes - 4)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6.0
    matrix = np.zeros((count, nodes), dtype=np.float32)
    for offset in range(4):
        matrix[np.arange(count), cell + offset] = weights[:, offset]
    return matrix


def firm_nodes(lattice: Lattice, gone: BoolArray, voxel_mm: npt.ArrayLike, loose: float = LOOSE) -> Float32Array:
    """How much holds together around each node, (lattice shape): 1 in tissue, ``loose`` in what is ``gone`` (k, j, i).

    The mean over a cell around the node, for that far reaches a second difference of a cubic spline.
    """
    voxel = np.asarray(voxel_mm, dtype=float)
    # An odd number of voxels: the middle of an even one lies between two.
    cell = 2 * np.round(lattice.spacing_mm / voxel / 2.0).astype(int) + 1
    box = bounding_box(gone, cell)
    share = ndimage.uniform_filter(gone[box].astype(np.float32), size=cell.tolist(), mode="nearest")
    nodes = [
        ((np.arange(count) - 1) * lattice.spacing_mm - start) / mm - 0.5 - part.start
        for count, start, mm, part in zip(lattice.shape, lattice.start_mm, voxel, box, strict=True)
    ]
    at = np.stack(np.meshgrid(*nodes, indexing="ij"))
    around = ndimage.map_coordinates(share, at, order=1, mode="constant", prefilter=False)
    return np.asarray(1.0 - (1.0 - loose) * around, dtype=np.float32)


class Bending:
    """Bending energy of a lattice: all second differences of the coefficients, squared and summed.

    ``firm`` (lattice shape): how much holds together around each node, 1 in tissue; a difference counts by the mean of
    its nodes. Calling it gives half the gradient of that energy: symmetric, non-negative, zero for affine
    displacements.
    """

    #: Diagonal away from the border where all is firm: 3 x (1 + 4 + 1) + 3 x 2 x 4.
    DIAGONAL = 42.0

    def __init__(self, firm: Float32Array) -> None:
        self.firm = firm
        self._weights: list[list[tuple[int, Float32Array]]] = []
        for one, count in enumerate(firm.shape):
            # A mixed difference counts twice, once in either order.
            mixed = [(n + 1, 2 * _between(_between(firm, one), n)) for n in range(one + 1, 3)]
            self._weights.append([(one + 1, firm.take(range(1, count - 1), one)), *mixed])

    def __call__(self, coefficients: Float32Array) -> Float32Array:
        """Shape (fields, *lattice shape) in and out."""
        result = np.zeros_like(coefficients)
        for axis, weights in enumerate(self._weights, start=1):
            slope = np.diff(coefficients, axis=axis)
            bent = np.zeros_like(slope)
            for other, weight in weights:
                bent += _summed(np.diff(slope, axis=other) * weight, other)
            result += _summed(bent, axis)
        return result


def _between(values: Float32Array, axis: int) -> Float32Array:
    """Means of neighbours along ``axis``."""
    count = values.shape[axis]
    return np.asarray((values.take(range(count - 1), axis) + values.take(range(1, count), axis)) / 2, dtype=np.float32)


def _summed(differences: Float32Array, axis: int) -> Float32Array:
    """Adjoint of ``np.diff`` along ``axis``: several times as fast as it with zeros at either end."""
    shape = list(differences.shape)
    shape[axis] += 1
    result = np.empty(shape, dtype=np.float32)
    given, summed = np.moveaxis(differences, axis, 0), np.moveaxis(result, axis, 0)
    summed[0], summed[-1] = -given[0], given[-1]
    np.subtract(given[:-1], given[1:], out=summed[1:-1])
    return result
