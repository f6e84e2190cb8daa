"""Robust finish of a rigid pose: many small blocks each say how far they are off, the agreeing ones decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Matrix
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, bounding_box, invert
from scipy import ndimage

from .sampling import BoolArray, Float32Array, Volume, mask_on, motion, sample
from .tones import Tones

#: Edge of a block in voxels of its level: large enough to hold structure in three directions, small enough to move
#: as one.
BLOCK = 8
#: Blocks looked at per level; more do not move the pose, fewer let one gyrus count too much.
MAX_BLOCKS = 420
#: Deeper below the surface of the head than scalp and skull reach.
DEEP_MM = 18.0
#: Blocks within this distance of the pose count as agreeing, mm.
AGREEING_MM = 1.5
#: The Cauchy scale of block distances shrinks no further than this, mm: brain is never rigid to better.
MIN_SCALE_MM = 0.25
#: Fewer usable blocks than this fix no pose.
MIN_BLOCKS = 12


@dataclass(frozen=True, eq=False)
class BlockFit:
    """Pose ``preop_from_intraop`` (4, 4) and how the blocks see it.

    ``agreement``: fraction of the covered blocks that lie within AGREEING_MM of the pose; ``residual_mm``: median
    distance of these; ``unlike``: median fraction of a deep block's contrast that no motion of its own explains, 0..1.
    """

    preop_from_intraop: Matrix
    agreement: float
    residual_mm: float
    unlike: float


@dataclass(eq=False)
class _Blocks:
    """Blocks of the fixed image: values and gradients (RAS, a mm) with shape (blocks, voxels)."""

    values: Float32Array
    gradient: Float32Array
    points_mm: Float32Array
    centres_mm: npt.NDArray[np.float64]
    deep: BoolArray


def finish_with_blocks(
    pair_2mm: tuple[Volume, Volume],
    pair_fine: tuple[Volume, Volume],
    *,
    mask: Image,
    preop_from_intraop: Matrix,
    tones: Tones,
    threads: int,
    still: Callable[[float, str], None],
    edge_voxels: int = BLOCK,
) -> BlockFit:
    """Refine ``preop_from_intraop`` at 2 mm, then at about 1 mm. Raises RegistrationError without enough structure."""
    select_on = pair_2mm[0]
    inside = mask_on(mask, select_on, "foreground")
    mask_mm = ndimage.distance_transform_edt(np.pad(mask.array, 1), sampling=mask.spacing_mm[::-1])[1:-1, 1:-1, 1:-1]
    core = mask.with_array((mask_mm > min(DEEP_MM, 0.5 * float(mask_mm.max()))).astype(np.uint8))
    deep = mask_on(core, select_on, "deep")
    coarse_2mm = _chosen_blocks(select_on, select_on, inside, deep, 2.0 * edge_voxels)
    fit = _fit(coarse_2mm, pair_2mm[1], preop_from_intraop, 8, tones, threads)
    still(0.8, "matching blocks at 1 mm")
    fixed, moving = pair_fine[0].shrunk(1.0), pair_fine[1].shrunk(1.0)
    fine = _chosen_blocks(select_on, fixed, inside, deep, 1.0 * edge_voxels)
    return _fit(fine, moving, fit.preop_from_intraop, 5, tones, threads)


def _fit(blocks: _Blocks, moving: Volume, pose: Matrix, iterations: int, tones: Tones, threads: int) -> BlockFit:
    if len(blocks.values) < MIN_BLOCKS:
        raise RegistrationError(
            f"only {len(blocks.values)} image blocks have structure, at least {MIN_BLOCKS} are needed"
        )
    kji_from_ras = np.asarray(invert(moving.ras_from_ijk)[[2, 1, 0, 3]])
    centre = blocks.centres_mm.mean(axis=0)
    lever = blocks.centres_mm - centre
    jacobian = np.zeros((len(lever), 3, 6))
    jacobian[:, :, :3] = np.eye(3)
    for column, axis in enumerate(np.eye(3)):
        jacobian[:, :, 3 + column] = np.cross(axis, lever)
    previous = np.inf
    for _ in range(iterations):
        tensors, forces, usable, covered, correlation = _motions(blocks, moving, kji_from_ras @ pose, tones, threads)
        if usable.sum() < MIN_BLOCKS:
            raise RegistrationError(
                f"only {int(usable.sum())} image blocks with structure overlap, at least {MIN_BLOCKS} are needed"
            )
        shifts = np.asarray(np.linalg.solve(tensors, forces[..., None])[..., 0], dtype=np.float64)
        # Beyond about two voxels the linear motion of a block means no more than 'somewhere else'.
        reach = 2.5 * float(moving.spacing_kji_mm.max())
        lengths = np.linalg.norm(shifts, axis=1)
        shifts *= np.minimum(1.0, reach / np.maximum(lengths, 1e-9))[:, None]
        step = _robust_step(jacobian, shifts, tensors, usable)
        pose = pose @ motion(step, centre)
        size = float(np.abs(step[:3]).max() + 80.0 * np.abs(step[3:]).max())
        if size < 0.01 or (size < 0.04 and size > 0.7 * previous):
            break
        previous = size
    distance = np.linalg.norm(shifts - jacobian @ step, axis=1)
    near = usable & (distance < AGREEING_MM)
    explained = np.einsum("br,br->b", forces, np.linalg.solve(tensors, forces[..., None])[..., 0])
    unlike = np.clip(2.0 - 2.0 * np.abs(correlation) - explained, 0.0, 1.0)
    judged = covered & blocks.deep
    return BlockFit(
        pose,
        float(near.sum() / max(1, covered.sum())),
        float(np.median(distance[near])) if near.any() else AGREEING_MM,
        float(np.median(unlike[judged])) if judged.any() else 1.0,
    )


def _robust_step(
    jacobian: npt.NDArray[np.float64],
    shifts: npt.NDArray[np.float64],
    tensors: npt.NDArray[np.float64],
    usable: BoolArray,
) -> npt.NDArray[np.float64]:
    """Rigid step (6,) that most blocks agree on: iteratively reweighted, with a shrinking Cauchy scale in mm.

    Each block counts by how well it is seen along each direction (its tensor, capped so that none dominates).
    """
    trace = np.trace(tensors, axis1=1, axis2=2)
    information = tensors / np.maximum(trace, np.median(trace[usable]))[:, None, None]
    step = np.zeros(6)
    residual = shifts
    for round_ in range(12):
        distance = np.linalg.norm(residual, axis=1)
        scale = max(MIN_SCALE_MM, 1.0 * float(np.median(distance[usable])) * (0.9**round_))
        weight = usable / (1.0 + (distance / scale) ** 2) ** 2
        weighted = information * weight[:, None, None]
        normal = np.einsum("bij,bik,bkl->jl", jacobian, weighted, jacobian, optimize=True)
        right = np.einsum("bij,bik,bk->j", jacobian, weighted, shifts, optimize=True)
        normal += np.diag(np.diag(normal) * 1e-6)
        step = np.linalg.solve(normal, right)
        residual = shifts - jacobian @ step
    return step


def _chosen_blocks(select_on: Volume, fixed: Volume, inside: BoolArray, core: BoolArray, edge_mm: float) -> _Blocks:
    """Blocks of ``fixed`` of ``edge_mm`` in the foreground, those with the most structure in their weakest direction.

    The choice is made on ``select_on``, the same image at lower resolution; ``inside`` and its deep part ``core`` are
    on that grid.
    """
    centres_mm, deep = _centres_by_structure(select_on, inside, core, edge_mm)
    edges = np.maximum(2, np.round(edge_mm / fixed.spacing_kji_mm)).astype(int)
    kji_from_ras = invert(fixed.ras_from_ijk)[[2, 1, 0, 3]]
    corner = np.round(centres_mm @ kji_from_ras[:3, :3].T + kji_from_ras[:3, 3] - (edges - 1) / 2).astype(int)
    fits = ((corner >= 1) & (corner + edges + 1 <= np.array(fixed.values.shape))).all(axis=1)
    corner, deep = corner[fits], deep[fits]
    # One voxel more on each side, so that every gradient is a central difference.
    offsets = np.stack(np.meshgrid(*(np.arange(-1, e + 1) for e in edges), indexing="ij"))
    k, j, i = (corner.T[:, :, None, None, None] + offsets[:, None]).astype(np.intp)
    wide = fixed.values[k, j, i]
    inner = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    differences = np.stack([np.gradient(wide, axis=axis)[inner] for axis in (1, 2, 3)]).astype(np.float32)
    # Gradients a mm along RAS: covariant, so the inverse transpose of the axes.
    axes = np.linalg.inv(fixed.ras_from_ijk[:3, :3])[::-1].astype(np.float32)
    count = len(corner)
    gradient = np.einsum("ar,abv->rbv", axes, differences.reshape(3, count, -1), optimize=True)
    values = wide[inner].reshape(count, -1)
    points = apply(fixed.ras_from_ijk, np.stack([i[inner], j[inner], k[inner]], axis=-1).reshape(count, -1, 3))
    return _Blocks(values, gradient, points.astype(np.float32), points.mean(axis=1), deep)


def _centres_by_structure(
    volume: Volume, inside: BoolArray, core: BoolArray, edge_mm: float
) -> tuple[npt.NDArray[np.float64], BoolArray]:
    """RAS centres (n, 3) of the cells of ``edge_mm`` that are best seen along all three axes, and which are deep.

    Half of the MAX_BLOCKS are deep cells: scalp and skull have the stronger edges, but are alike in all people.
    """
    edges = np.maximum(2, np.round(edge_mm / volume.spacing_kji_mm)).astype(int)
    box = bounding_box(inside)
    counts = np.array([s.stop - s.start for s in box]) // edges
    start = np.array([s.start for s in box])
    used = tuple(slice(s, s + c * e) for s, c, e in zip(start, counts, edges, strict=True))
    cells = (counts[0], edges[0], counts[1], edges[1], counts[2], edges[2])
    values = volume.values[used].reshape(cells)
    filled = inside[used].reshape(cells).mean(axis=(1, 3, 5)) > 0.5
    inner = core[used].reshape(cells).mean(axis=(1, 3, 5)) > 0.5
    mean = values.mean(axis=(1, 3, 5), keepdims=True)
    spread = np.sqrt(np.mean((values - mean) ** 2, axis=(1, 3, 5)))
    differences = [np.diff(values, axis=axis) / mm for axis, mm in zip((1, 3, 5), volume.spacing_kji_mm, strict=True)]
    energies = np.stack([np.mean(d * d, axis=(1, 3, 5)) for d in differences])
    floor = 0.02 * float(np.percentile(values, 95)) + 1e-6
    weakest = energies.min(axis=0) / np.maximum(spread, floor)
    weakest[~filled] = -1.0
    order = np.argsort(-weakest, axis=None, kind="stable")[: int(filled.sum())]
    is_deep = inner.ravel()[order]
    kept = (np.cumsum(is_deep) <= MAX_BLOCKS // 2) & is_deep
    kept |= np.cumsum(~kept) <= MAX_BLOCKS - int(kept.sum())
    order, is_deep = order[kept], is_deep[kept]
    corner = np.stack(np.unravel_index(order, weakest.shape), axis=1) * edges + start
    return apply(volume.ras_from_ijk, (corner + (edges - 1) / 2.0)[:, ::-1]), is_deep


def _motions(
    blocks: _Blocks, moving: Volume, moving_kji_from_intraop: Matrix, tones: Tones, threads: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], BoolArray, BoolArray, npt.NDArray[np.float64]]:
    """Normal equations (3 x 3, mm) of each block's own motion under a linear intensity relation of its own."""
    count, voxels = blocks.values.shape
    matrix = moving_kji_from_intraop.astype(np.float32)
    points = blocks.points_mm.reshape(-1, 3).T
    got = sample(moving.values, matrix[:3, :3] @ points + matrix[:3, 3:], threads)
    inside = got.inside.reshape(count, voxels)
    values, slopes = tones.mapped(got.values)
    moved = values.reshape(count, voxels)
    gradient = ((matrix[:3, :3].T @ got.gradient) * slopes).reshape(3, count, voxels)
    fixed_0 = blocks.values - blocks.values.mean(axis=1, keepdims=True)
    moved_0 = moved - moved.mean(axis=1, keepdims=True)
    moved_power = np.einsum("bv,bv->b", moved_0, moved_0)
    fixed_power = np.einsum("bv,bv->b", fixed_0, fixed_0)
    cross = np.einsum("bv,bv->b", fixed_0, moved_0)
    floor = 1e-6 * float(np.median(fixed_power)) + 1e-12
    correlation = (cross / np.sqrt(np.maximum(moved_power * fixed_power, floor**2))).astype(np.float64)
    # The geometric-mean slope instead of the regression slope: noise in both images would otherwise shrink it.
    slope = np.sign(cross) * np.sqrt(fixed_power / np.maximum(moved_power, floor))
    mean_gradient = 0.5 * (gradient * slope[None, :, None] + blocks.gradient)
    mean_gradient -= mean_gradient.mean(axis=2, keepdims=True)
    residual = fixed_0 - slope[:, None] * moved_0
    power = np.maximum(fixed_power, floor)[:, None, None]
    tensors = np.einsum("rbv,sbv->brs", mean_gradient, mean_gradient, optimize=True).astype(np.float64) / power
    forces = np.einsum("rbv,bv->br", mean_gradient, residual, optimize=True).astype(np.float64) / power[:, 0]
    trace = np.trace(tensors, axis1=1, axis2=2)
    tensors += np.eye(3) * (0.02 * trace + 1e-9)[:, None, None]
    covered = inside.mean(axis=1) > 0.98
    usable = covered & (correlation**2 > 0.2) & (moved_power > floor) & (fixed_power > floor)
    return tensors, forces, usable, covered, correlation
