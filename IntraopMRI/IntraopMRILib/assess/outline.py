"""The outline of enhancing residual in an enhancement map: solid, attached to the cavity, subvoxel volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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
#: Residual tumour lies at the wall of the cavity; clot and smoothing may keep this distance between them.
ATTACHED_MM = 3.0
#: Fluid and air are darker than this part of tissue.
CAVITY_SIGNAL = 0.5
#: Dark clefts narrower than twice this are sulci, not a cavity; a smaller cavity than this holds no resection.
CAVITY_RADIUS_MM, LEAST_CAVITY_MM3 = 2.0, 200.0
#: Fewer seed voxels are noise.
LEAST_VOXELS = 4
#: The smoothing of the map that decides on membership, in voxels: about the width of the scanner's point spread.
SMOOTH_VOXELS = 0.6
#: Interior voxels needed to know the level of a component without its own boundary.
INTERIOR_VOXELS = 12
#: Neighbours within a voxel's diagonal in a plane: where the signal of a boundary voxel may spread to.
_NEIGHBOURS = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True, eq=False)
class Outline:
    """``mask``: residual. ``thin``: thin, faint, unattached or passing. ``beyond``: continues the residual
    outside the margin. ``doubtful``: the part of ``thin`` at the cavity's wall, which may be residual after all.
    All (k, j, i). ``volume_voxels``: volume of the residual with partial volume, in voxels.
    """

    mask: Mask
    thin: Mask
    volume_voxels: float
    beyond: Mask
    doubtful: Mask


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
    region = _Region(enhancement.values[box], smooth[box], sigma, spacing, distance[box] <= margin_mm, near[box])
    attached = _attached(enhancement.tissue[box], distance[box], margin_mm, error_mm, region)
    found = _components(region, attached)
    whole = [np.zeros(distance.shape, dtype=bool) for _ in range(4)]
    for target, part in zip(whole, (found.mask, found.thin, found.beyond, found.doubtful), strict=True):
        target[box] = part
    return Outline(whole[0], whole[1], found.volume_voxels, *whole[2:])


@dataclass(frozen=True, eq=False)
class _Region:
    values: Array
    smooth: Array
    sigma: float
    spacing: Spacing
    inside: Mask
    near: Mask


def _attached(tissue: Array, distance: Array, margin_mm: float, error_mm: float, region: _Region) -> Mask:
    """Voxels that residual must touch: close to the cavity, or the carried-over tumour itself where none is found."""
    dark = region.near & (ndimage.gaussian_filter(tissue, SMOOTH_VOXELS) < CAVITY_SIGNAL)
    core = ndimage.distance_transform_edt(dark, sampling=region.spacing) > CAVITY_RADIUS_MM
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
    reach = CAVITY_RADIUS_MM + ATTACHED_MM
    return np.asarray(ndimage.distance_transform_edt(~cavity, sampling=region.spacing) <= reach)


def _components(region: _Region, attached: Mask) -> Outline:
    labels, count = ndimage.label(region.near & (region.smooth > SEED_Z * region.sigma))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    seeded = np.unique(labels[region.inside & (labels > 0)])
    boxes = ndimage.find_objects(labels)
    mask, thin, beyond, doubtful = (np.zeros(labels.shape, dtype=bool) for _ in range(4))
    solid: list[tuple[float, Box, Mask]] = []
    for number in seeded[sizes[seeded] >= LEAST_VOXELS]:
        box = _padded(boxes[number - 1], 3, labels.shape)
        component = labels[box] == number
        level = _level(region, box, component)
        threshold = max(level / 2.0, GROW_Z * region.sigma)
        half = region.near[box] & (region.smooth[box] > threshold) & ndimage.binary_dilation(component, iterations=2)
        thick = _thick(region.smooth[box], threshold, half, region.spacing)
        reached = region.inside[box] & attached[box]
        thin[box] |= half & region.inside[box]
        if (thick & reached).any():
            if _leaves(region, threshold, box, thick):
                continue
            solid.append((level, box, thick))
        if (half & reached).any():
            doubtful[box] |= half & region.inside[box]
    # The component that carries the most enhancement says how bright residual is here.
    usual = max(solid, key=lambda one: one[0] * float(one[2].sum()), default=(0.0, (), None))[0]
    for level, box, thick in solid:
        if level >= FAINT_PART * usual:
            mask[box] |= thick & region.inside[box]
            beyond[box] |= thick & ~region.inside[box]
    thin &= ~mask
    return Outline(mask, thin, _partial_volume(region, mask, thin | beyond), beyond, doubtful & thin)


def _leaves(region: _Region, threshold: float, box: Box, thick: Mask) -> bool:
    """Whether the structure goes on outside the region for the larger part, as vessels and dura do."""
    placed = np.zeros(region.smooth.shape, dtype=bool)
    placed[box] = thick
    reach = _grown_box(placed, LEAVING_MM, region.spacing)
    smooth = region.smooth[reach]
    labels, _ = ndimage.label(_thick(smooth, threshold, smooth > threshold, region.spacing))
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


def _thick(smooth: Array, threshold: float, mask: Mask, spacing: Spacing) -> Mask:
    """``mask`` without the sheets and threads thinner than THIN_MM that lie away from something thicker.

    Opening on a grid twice as fine, where the boundary of ``smooth`` at ``threshold`` is known below the voxel.
    """
    result = np.zeros_like(mask)
    if not mask.any():
        return result
    box = _grown_box(mask, 2.0 * float(spacing.max()), spacing)
    fine = ndimage.zoom(smooth[box], 2, order=1, mode="nearest", grid_mode=True) > threshold
    fine &= np.kron(ndimage.binary_dilation(mask[box]), np.ones((2, 2, 2), dtype=bool))
    half_voxel = 0.25 * float(spacing.min())
    core = ndimage.distance_transform_edt(fine, sampling=spacing / 2.0) - half_voxel >= THIN_MM / 2.0
    if not core.any():
        return result
    kept = fine & (ndimage.distance_transform_edt(~core, sampling=spacing / 2.0) <= TAPER_MM)
    k, j, i = mask[box].shape
    result[box] = mask[box] & kept.reshape(k, 2, j, 2, i, 2).any(axis=(1, 3, 5))
    return result


def _partial_volume(region: _Region, mask: Mask, excluded: Mask) -> float:
    """Volume in voxels: signal in the mask and one voxel around it, divided by the level of solid residual tissue."""
    labels, _ = ndimage.label(mask)
    total = 0.0
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
            total += float(part.sum())
            continue
        support = part | (rim & ~others)
        total += float((values[support] - background).sum()) / level
    return total


def _grown_box(mask: Mask, by_mm: float, spacing: Spacing) -> Box:
    """Bounding box of ``mask``, which must not be empty, grown by a distance."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    pads = np.ceil(by_mm / spacing).astype(int)
    parts = zip(found, pads, mask.shape, strict=True)
    return tuple(slice(max(0, p.start - int(by)), min(n, p.stop + int(by))) for p, by, n in parts)


def _padded(box: Box, by: int, shape: tuple[int, ...]) -> Box:
    return tuple(slice(max(0, p.start - by), min(n, p.stop + by)) for p, n in zip(box, shape, strict=True))
