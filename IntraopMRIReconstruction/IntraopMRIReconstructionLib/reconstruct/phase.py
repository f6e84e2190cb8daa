"""Phase as it really is: unwrapping along the most reliable path, and smooth backgrounds fitted through wraps."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from ..errors import ReconstructionError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Passes in which a background fit follows what its last polynomial left; each one sees residuals without wraps.
BACKGROUND_PASSES = 6


def wrapped(phase: npt.NDArray[Any]) -> Array:
    """Phase in radians brought to -pi..pi."""
    return np.asarray((phase + np.pi) % (2 * np.pi) - np.pi, dtype=np.float64)


def unwrapped(phase: npt.NDArray[Any], weight: npt.NDArray[Any], mask: Mask) -> tuple[Array, npt.NDArray[np.int32]]:
    """(phase without jumps, number of the connected part of each voxel from 1 on, 0 outside ``mask``).

    ``phase`` in radians, any number of axes; ``weight``, as phase, is how reliable it is (a magnitude). Neighbours are
    joined from the most reliable pair on (Herraez et al., Appl Opt 41:7437, 2002, as a minimum spanning tree). Each
    connected part keeps a free multiple of 2 pi, chosen so that its median lies within -pi..pi. NaN outside the mask.
    """
    if phase.shape != weight.shape or phase.shape != mask.shape:
        raise ReconstructionError(
            f"phase, weight and mask must have one shape, got {phase.shape}, {weight.shape} and {mask.shape}"
        )
    if not mask.any():
        raise ReconstructionError("there is no voxel to unwrap: the mask is empty")
    number = np.full(phase.shape, -1, dtype=np.int64)
    number[mask] = np.arange(int(mask.sum()))
    values, weights = np.asarray(phase[mask], np.float64), np.asarray(weight[mask], np.float64)
    if not np.isfinite(values).all():
        raise ReconstructionError("phase has NaN or infinite values inside the mask")
    pairs = []
    for axis in range(phase.ndim):
        one = np.moveaxis(number, axis, 0)[:-1].ravel()
        other = np.moveaxis(number, axis, 0)[1:].ravel()
        pairs.append(np.stack([one, other])[:, (one >= 0) & (other >= 0)])
    edges = np.concatenate(pairs, axis=1)
    # A step of nearly pi between weak voxels may be a wrap or not: such edges come last. Zero would mean no edge.
    step = np.abs(wrapped(values[edges[1]] - values[edges[0]]))
    trust = np.minimum(weights[edges[0]], weights[edges[1]]) / max(float(weights.max()), np.finfo(float).tiny)
    cost = (1e-6 + step / np.pi) / (1e-6 + np.maximum(trust, 0))
    count = len(values)
    tree = minimum_spanning_tree(scipy.sparse.csr_matrix((cost, (edges[0], edges[1])), shape=(count, count)))
    parts, part = connected_components(tree, directed=False)
    jump, parent = np.zeros(count), np.arange(count)
    # One extra node joins the first voxel of every part, so that one walk covers all.
    roots = np.unique(part, return_index=True)[1]
    links = tree.tocoo()
    joined = scipy.sparse.csr_matrix(
        (
            np.ones(len(links.row) + parts),
            (np.append(links.row, np.full(parts, count)), np.append(links.col, roots)),
        ),
        shape=(count + 1, count + 1),
    )
    before = breadth_first_order(joined, count, directed=False)[1][:count]
    inner = before != count
    parent[inner] = before[inner]
    jump[inner] = np.round((values[parent[inner]] - values[inner]) / (2 * np.pi))
    while (parent != parent[parent]).any():  # sums jumps along the path to the root, doubling the stride
        jump = jump + jump[parent]
        parent = parent[parent]
    free = values + 2 * np.pi * jump
    for index in range(parts):
        free[part == index] -= 2 * np.pi * np.round(np.median(free[part == index]) / (2 * np.pi))
    result, labels = np.full(phase.shape, np.nan), np.zeros(phase.shape, dtype=np.int32)
    result[mask], labels[mask] = free, part + 1
    return result, labels


def polynomial_background(
    signal: npt.NDArray[np.complexfloating[Any, Any]], order: int, known: Mask, passes: int = BACKGROUND_PASSES
) -> Array:
    """Smooth phase (z, y, x) everywhere, fitted to complex ``signal`` where ``known``, wraps and all.

    First the polynomial whose slopes match the wrapped differences of neighbours, then refined by what is left.
    Raises ReconstructionError when too few voxels are known.
    """
    basis = monomials(signal.shape, order)
    if known.sum() < 4 * len(basis):
        raise ReconstructionError(
            f"a background of order {order} needs at least {4 * len(basis)} voxels, got {int(known.sum())}: enlarge "
            "the region or lower the order"
        )
    rows, targets, strengths = [], [], []
    for axis in range(signal.ndim):
        both = np.moveaxis(known, axis, 0)[1:] & np.moveaxis(known, axis, 0)[:-1]
        turned = np.moveaxis(signal, axis, 0)
        product = (turned[1:] * turned[:-1].conj())[both]
        rows.append(np.stack([np.diff(np.moveaxis(term, axis, 0), axis=0)[both] for term in basis[1:]], axis=-1))
        targets.append(np.angle(product))
        strengths.append(np.sqrt(np.abs(product)))
    weight = np.concatenate(strengths)[:, None]
    slopes = np.concatenate(rows) * weight
    found = np.zeros(len(basis))
    if order > 0:
        found[1:] = np.linalg.lstsq(slopes, np.concatenate(targets) * weight[:, 0], rcond=None)[0]
    matrix = np.stack([term[known] for term in basis], axis=-1)
    magnitude = np.abs(signal[known])
    values = signal[known]
    found[0] = np.angle(np.sum(values * magnitude * np.exp(-1j * (matrix @ found))))
    for _ in range(passes):
        left = np.angle(values * np.exp(-1j * (matrix @ found)))
        found += np.linalg.lstsq(matrix * magnitude[:, None], left * magnitude, rcond=None)[0]
    return np.asarray(np.tensordot(found, np.stack(basis), axes=1))


def monomials(shape: tuple[int, ...], order: int) -> list[Array]:
    """Products of powers, up to ``order``, of all axes with more than one voxel, each from -1 to 1; constant first."""
    axes = [
        np.linspace(-1, 1, size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        for axis, size in enumerate(shape)
        if size > 1
    ]
    terms = [np.ones(shape)]
    for degree in range(1, order + 1):
        for factors in combinations_with_replacement(axes, degree):
            term = np.ones(shape)
            for factor in factors:
                term = term * factor
            terms.append(term)
    return terms
