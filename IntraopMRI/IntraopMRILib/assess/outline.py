"""The outline of enhancing residual in an enhancement map: solid, attached to the cavity, subvoxel volume."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.geometry import within_mm
from scipy import ndimage

from .enhancement import Enhancement, robust_sigma

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Spacing = npt.NDArray[np.float64]
Box = tuple[slice, ...]

#: A voxel of normal tissue exceeds this by chance once in 30,000: rare in a region of a few ten thousand voxels.
SEED_Z = 4.0
#: Seeds grow over voxels above half the level of their component, but never below this.
GROW_Z = 2.0
#: Sheets thinner than this are the thin linear enhancement that surgery causes along the wall (PMC8392564).
THIN_MM = 2.0
#: A residual tapers off at its edge: thin parts within this distance of a solid core belong to it.
TAPER_MM = 5.0
#: A component of which more than this part lies outside the region is a vessel or dura running through.
OUTSIDE_PART = 0.5
#: A piece fainter than this part of the residual is what surgery caused (it stays low, PubMed 24138206): attached to
#: the residual it would lie outside its half-level boundary as well.
FAINT_PART = 0.5
#: How far outside a structure is followed to decide that.
LEAVING_MM = 12.0
#: A piece of which more than this part lies where the tumour was is tumour that is left, also far from the cavity.
IN_TUMOUR_PART = 0.5
#: Other residual lies at the wall of the cavity; clot and smoothing may keep this distance between them.
ATTACHED_MM = 3.0
#: Fluid and air are darker than this part of tissue.
CAVITY_SIGNAL = 0.5
#: Dark clefts narrower than twice this are sulci, not a cavity; a smaller cavity than this holds no resection.
CAVITY_RADIUS_MM, LEAST_CAVITY_MM3 = 2.0, 200.0
#: Fewer seed voxels are noise.
LEAST_VOXELS = 4
#: The smoothing of the map that decides on membership, in voxels: about the width of the scanner's point spread.
SMOOTH_VOXELS = 0.6
#: Half-level width of what is thinner than a voxel in that map: of the smoothing and of the scan itself.
SPREAD_VOXELS = 1.7
#: Interior voxels needed to know the level of a component without its own boundary.
INTERIOR_VOXELS = 12
#: Neighbours within a voxel's diagonal in a plane: where the signal of a boundary voxel may spread to.
_NEIGHBOURS = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True, eq=False)
class Outline:
    """``mask``: residual. ``thin``: thin, faint, unattached or passing. ``beyond``: continues the residual
    outside the margin. ``doubtful``: the part of ``thin`` at the cavity's wall or where the tumour was, which may be
    residual after all.
    ``pieces``: numbers of the parts of ``mask`` that hang together, 0 outside. ``tapering``: part of each voxel of the
    residual that is thinner than THIN_MM, 0..1; ``slender``: that is no thicker than a sheet of THIN_MM looks.
    ``share``: enhancement over that of the residual. All (k, j, i). ``piece_voxels``: volume of each piece with
    partial volume, in voxels.
    """

    mask: Mask
    thin: Mask
    beyond: Mask
    doubtful: Mask
    pieces: npt.NDArray[np.int32]
    tapering: Array
    slender: Array
    share: Array
    piece_voxels: tuple[float, ...]

    @property
    def volume_voxels(self) -> float:
        """Volume of the residual with partial volume, in voxels."""
        return sum(self.piece_voxels)


def outline(
    enhancement: Enhancement, distance: Array, margin_mm: float, error_mm: float, spacing: Spacing, away: Mask
) -> Outline:
    """Find residual within ``margin_mm`` of the carried-over tumour.

    ``distance``: mm to the carried-over tumour, (k, j, i). ``error_mm``: registration error. ``spacing``: k, j, i.
    ``away``: voxels that set the noise.
    """
    smooth = ndimage.gaussian_filter(enhancement.values, SMOOTH_VOXELS)
    sigma = robust_sigma(smooth[away & (np.abs(enhancement.values) < SEED_Z * enhancement.sigma)])
    near = distance <= margin_mm + error_mm + spacing.max()
    box = _grown_box(near, LEAVING_MM, spacing)
    inside, tumour = distance[box] <= margin_mm, distance[box] <= 0.0
    region = _Region(enhancement.values[box], smooth[box], sigma, spacing, inside, tumour, near[box])
    attached = _attached(enhancement.tissue[box], distance[box], margin_mm, error_mm, region)
    found = _components(region, attached)

    def whole(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = np.zeros(distance.shape, dtype=part.dtype)
        result[box] = part
        return result

    maps = {one.name: whole(getattr(found, one.name)) for one in fields(found) if one.name != "piece_voxels"}
    return Outline(**maps, piece_voxels=found.piece_voxels)


@dataclass(frozen=True, eq=False)
class _Region:
    values: Array
    smooth: Array
    sigma: float
    spacing: Spacing
    inside: Mask
    tumour: Mask
    near: Mask


def _attached(tissue: Array, distance: Array, margin_mm: float, error_mm: float, region: _Region) -> Mask:
    """Voxels that residual in the margin must touch: close to the cavity, or all of the margin where none is found."""
    dark = region.near & (ndimage.gaussian_filter(tissue, SMOOTH_VOXELS) < CAVITY_SIGNAL)
    core = ~within_mm(~dark, CAVITY_RADIUS_MM, region.spacing)
    tumour = distance <= error_mm
    labels, count = ndimage.label(core)
    cavity = np.zeros_like(core)
    for number in range(1, count + 1):
        piece = labels == number
        # Ventricles and cisterns lie outside the tumour for the most part.
        if 2 * int((piece & tumour).sum()) > int(piece.sum()):
            cavity |= piece
    if float(cavity.sum()) * float(np.prod(region.spacing)) < LEAST_CAVITY_MM3:
        return np.asarray(region.inside)
    # The way to the tumour and the opened surface are dark too, but what touches only them is vessel or dura.
    cavity &= distance <= max(error_mm, margin_mm / 2.0)
    return within_mm(cavity, CAVITY_RADIUS_MM + ATTACHED_MM, region.spacing)


def _components(region: _Region, attached: Mask) -> Outline:
    labels, count = ndimage.label(region.near & (region.smooth > SEED_Z * region.sigma))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    seeded = np.unique(labels[region.inside & (labels > 0)])
    boxes = ndimage.find_objects(labels)
    mask, thin, beyond, doubtful = (np.zeros(labels.shape, dtype=bool) for _ in range(4))
    edges = np.zeros((2, *labels.shape), dtype=np.float32)
    solid: list[tuple[float, Box, Mask]] = []
    for number in seeded[sizes[seeded] >= LEAST_VOXELS]:
        box = _padded(boxes[number - 1], 3, labels.shape)
        component = labels[box] == number
        level = _level(region, box, component)
        threshold = max(level / 2.0, GROW_Z * region.sigma)
        half = region.near[box] & (region.smooth[box] > threshold) & ndimage.binary_dilation(component, iterations=2)
        thick, edge = _thick(region.smooth[box], threshold, half, region.spacing)
        reached, tumour = region.inside[box] & attached[box], region.tumour[box]
        if int((half & tumour).sum()) > IN_TUMOUR_PART * int(half.sum()):
            # Far from the cavity, but tumour before surgery: another focus, or the far end of a long one.
            reached |= tumour
        thin[box] |= half & region.inside[box]
        if (thick & reached).any():
            if _leaves(region, threshold, box, thick):
                # What runs on outside may have residual beside it, or in it, where it touches the cavity's wall.
                doubtful[box] |= half & reached
                continue
            solid.append((level, box, thick))
            edges[(slice(None), *box)] = np.maximum(edges[(slice(None), *box)], edge)
        if (half & (reached | tumour)).any():
            doubtful[box] |= half & region.inside[box]
    # The component that carries the most enhancement says how bright residual is here.
    usual = max(solid, key=lambda one: one[0] * float(one[2].sum()), default=(0.0, (), None))[0]
    for level, box, thick in solid:
        if level >= FAINT_PART * usual:
            mask[box] |= thick & region.inside[box]
            beyond[box] |= thick & ~region.inside[box]
    thin &= ~mask
    share = np.maximum(region.values, 0.0) / usual if usual > 0 else np.zeros_like(region.values)
    pieces, volumes = _partial_volumes(region, mask, thin | beyond)
    share = np.asarray(share, dtype=np.float32)
    return Outline(mask, thin, beyond, doubtful & thin, pieces, edges[0] * mask, edges[1] * mask, share, volumes)


def _leaves(region: _Region, threshold: float, box: Box, thick: Mask) -> bool:
    """Whether the structure goes on outside the region for the larger part, as vessels and dura do."""
    placed = np.zeros(region.smooth.shape, dtype=bool)
    placed[box] = thick
    reach = _grown_box(placed, LEAVING_MM, region.spacing)
    smooth = region.smooth[reach]
    labels, _ = ndimage.label(_thick(smooth, threshold, smooth > threshold, region.spacing)[0])
    numbers = np.unique(labels[placed[reach]])
    connected = np.isin(labels, numbers[numbers > 0])
    outside = int((connected & ~region.near[reach]).sum())
    return outside > OUTSIDE_PART * (outside + int(thick.sum()))


def _level(region: _Region, box: Box, component: Mask) -> float:
    """Enhancement of solid tissue in ``component``: the mean of its interior, else an upper percentile."""
    smooth = region.smooth[box]
    top = float(np.percentile(smooth[component], 90.0))
    core = component & (smooth > max(top / 2.0, GROW_Z * region.sigma))
    interior = ndimage.binary_erosion(core, _NEIGHBOURS)
    return float(region.values[box][interior].mean()) if interior.sum() >= INTERIOR_VOXELS else top


def _thick(smooth: Array, threshold: float, mask: Mask, spacing: Spacing) -> tuple[Mask, Array]:
    """``mask`` without the sheets and threads thinner than THIN_MM that lie away from something thicker.

    And two parts of each of its voxels, 0..1: what is thinner than that, what is no thicker than such a sheet looks.
    """
    result, edge = np.zeros_like(mask), np.zeros((2, *mask.shape), dtype=np.float32)
    if not mask.any():
        return result, edge
    box = _grown_box(mask, 2.0 * float(spacing.max()), spacing)
    fine = ndimage.zoom(smooth[box], 2, order=1, mode="nearest", grid_mode=True) > threshold
    fine &= np.kron(ndimage.binary_dilation(mask[box]), np.ones((2, 2, 2), dtype=bool))
    half_voxel = 0.25 * float(spacing.min())
    depth = ndimage.distance_transform_edt(fine, sampling=spacing / 2.0) - half_voxel
    thick = depth >= THIN_MM / 2.0
    if not thick.any():
        return result, edge
    kept = fine & within_mm(thick, TAPER_MM, spacing / 2.0)
    k, j, i = mask[box].shape
    blocks = (k, 2, j, 2, i, 2)
    filled = kept.reshape(blocks).mean(axis=(1, 3, 5))
    result[box] = mask[box] & (filled > 0)
    for part, width in zip(edge, (THIN_MM, float(np.hypot(THIN_MM, SPREAD_VOXELS * spacing.max()))), strict=True):
        core = within_mm(depth >= width / 2.0, width / 2.0 + 0.5 * float(spacing.max()), spacing / 2.0)
        part[box] = (kept & ~core).reshape(blocks).mean(axis=(1, 3, 5)) / np.maximum(filled, 0.125)
    return result, edge


def _partial_volumes(region: _Region, mask: Mask, excluded: Mask) -> tuple[npt.NDArray[np.int32], tuple[float, ...]]:
    """The pieces of ``mask``, numbered, and their volumes in voxels.

    Signal in a piece and one voxel around it, divided by the level of solid residual tissue.
    """
    labels, _ = ndimage.label(mask)
    volumes = []
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        box = _padded(found, 5, mask.shape)
        part = labels[box] == number
        others = (mask[box] & ~part) | excluded[box]
        rim = ndimage.binary_dilation(part, _NEIGHBOURS) & ~part
        shell = ndimage.binary_dilation(part, _NEIGHBOURS, iterations=4)
        shell &= ~ndimage.binary_dilation(part, _NEIGHBOURS, iterations=2) & ~others
        values = region.values[box]
        background = float(np.median(values[shell])) if shell.any() else 0.0
        level = _level(region, box, part) - background
        if level <= 0:
            volumes.append(float(part.sum()))
            continue
        support = part | (rim & ~others)
        volumes.append(float((values[support] - background).sum()) / level)
    return labels, tuple(volumes)


def _grown_box(mask: Mask, by_mm: float, spacing: Spacing) -> Box:
    """Bounding box of ``mask``, which must not be empty, grown by a distance."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    pads = np.ceil(by_mm / spacing).astype(int)
    parts = zip(found, pads, mask.shape, strict=True)
    return tuple(slice(max(0, p.start - int(by)), min(n, p.stop + int(by))) for p, by, n in parts)


def _padded(box: Box, by: int, shape: tuple[int, ...]) -> Box:
    return tuple(slice(max(0, p.start - by), min(n, p.stop + by)) for p, n in zip(box, shape, strict=True))
