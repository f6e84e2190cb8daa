"""From anatomy, tumour, resection and motion to pictures: before surgery, and during it with and without contrast.

Everything is sampled once: intraoperative voxel -> pose undone -> brain shift undone -> tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Image, Matrix
from ..geometry import apply, invert
from .anatomy import Anatomy
from .exposure import AIR, BARE, FLUID_LEVEL_MM, Exposure, opened, subdural_air
from .fields import Shift
from .grids import Shape, coarser, index_coordinates, points_of, resampled, sampled, smooth_noise, stream
from .head import CSF, GREY, WHITE
from .lesion import ENHANCING, NECROSIS, NON_ENHANCING, SALINE, Filling, Resection, Tumour

BoolArray = npt.NDArray[np.bool_]

CLOT, TUMOUR_NATIVE, NECROSIS_NATIVE, OEDEMA_NATIVE = 1120.0, 500.0, 270.0, 620.0
TUMOUR_ENHANCEMENT, WALL_ENHANCEMENT = 680.0, 150.0
#: Clot and irritated tissue lie within about this distance of the cavity's wall (mm).
WALL_LAYER_MM = 1.3
#: Tumour takes up contrast agent unevenly: relative standard deviation.
UNEVEN_UPTAKE = 0.13
#: Grain of clot and of bubbles in haemostatic material (voxels of 2 mm).
GRAIN = 1.2
#: Partial volume at borders between tissues (voxels).
SOFT = 0.6
PREOP_NOISE = 0.012


@dataclass(frozen=True)
class Look:
    """How the scan differs from the preoperative one: ``contrast`` 0..1 of a changed grey/white contrast; clot on the

    cavity's wall (``blood``); thin enhancement that surgery causes (``wall``); what the cavity holds (``filling``); the
    surroundings of the opening (``exposure``).
    """

    contrast: float
    blood: bool
    wall: bool
    filling: Filling = SALINE
    exposure: Exposure = BARE


def render_intraop(
    head: Anatomy,
    tumour: Tumour,
    resection: Resection,
    look: Look,
    shift: Shift,
    pull: Image,
    pose: Matrix,
    grid: Matrix,
    shape: Shape,
    seed: int,
) -> tuple[FloatArray, FloatArray, dict[str, BoolArray]]:
    """Native and enhanced image and the true masks, (k, j, i) on the scan's grid.

    ``pull``: displacement (k, j, i, 3), mm, preoperative RAS: what is at y after the shift was at y + pull(y).
    ``pose``: ``intraop_from_preop``.
    """
    back = invert(pose)
    hull = resampled(head.hull_mm, head.ras_from_ijk, grid, shape, back, outside=60.0)
    static = resampled(head.head_t1, head.ras_from_ijk, grid, shape, back)
    glow = resampled(head.enhancement, head.ras_from_ijk, grid, shape, back)
    up = shift.upward(tumour.opening)
    opened(static, glow, hull, head, tumour.opening, up, look.exposure, back @ grid, seed)

    rows = np.flatnonzero(hull < 12.0)  # the brain, and room for it to bulge
    aligned = apply(back @ grid, np.stack(np.unravel_index(rows, shape)[::-1], axis=-1))
    height = tumour.opening.over(aligned.astype(np.float32), up)
    at = index_coordinates(
        head.ras_from_ijk, aligned + sampled(pull.array, index_coordinates(pull.ras_from_ijk, aligned))
    )

    near = np.flatnonzero(_inside(at, tumour.box))

    def local(array: FloatArray) -> FloatArray:
        """Values at all rows of something that is zero outside the tumour's box."""
        values = np.zeros(len(rows), dtype=np.float32)
        values[near] = sampled(array, at[:, near])
        return values

    in_brain = sampled(ndimage.gaussian_filter(head.brain.astype(np.float32), 0.5), at)
    in_cavity = local(_soft(resection.cavity))
    filling = _filling(look.filling, height, in_cavity, at, resection.cavity.shape, seed)
    tissue = sampled(_native(head, tumour), at, order=3)
    tissue = _other_contrast(tissue, look.contrast, stream(seed, "contrast"))
    uptake = local(_uptake(resection.residual, seed))

    outside, shine = static.ravel()[rows], glow.ravel()[rows]
    if shift.sag_mm:
        air = subdural_air(hull.ravel()[rows], height, shift.sag_mm)
        outside, shine = outside * (1 - air) + AIR * air, shine * (1 - air)
    brain_part = in_brain * (1 - in_cavity)
    native = outside * (1 - in_brain) + filling * in_brain * in_cavity + tissue * brain_part
    # The uptake is soft at the cavity already: taking the cavity's softness off again would thin the residual out.
    gain = sampled(head.enhancement, at) * brain_part + uptake * in_brain + shine * (1 - in_brain)
    if look.blood or look.wall:
        spots = near[local(_soft(resection.cavity, WALL_LAYER_MM))[near] > 0.05]
        _stain_wall(native, gain, at, spots, resection, look, seed)
    enhanced = native + gain
    images = []
    for whole, values in ((static, native), (static + glow, enhanced)):
        image = np.maximum(whole, 0)
        image.ravel()[rows] = np.maximum(values, 0)
        images.append(image)

    masks = {}
    for name in ("residual", "residual_non_enhancing", "cavity", "brain"):
        fraction = sampled(head.brain, at) if name == "brain" else local(getattr(resection, name))
        masks[name] = np.zeros(shape, dtype=bool)
        masks[name].ravel()[rows] = fraction > 0.5
    masks["brain"] &= ~masks["cavity"]
    return images[0], images[1], masks


def render_preop(head: Anatomy, tumour: Tumour, seed: int) -> tuple[FloatArray, FloatArray]:
    """Contrast-enhanced T1 and a FLAIR-like image before surgery, (k, j, i), with a little Rician noise."""
    in_brain = ndimage.gaussian_filter(head.brain.astype(np.float32), 0.5)
    bare = in_brain * _native(head, tumour) + (1 - in_brain) * head.head_t1
    t1c = bare + _uptake(tumour.label == ENHANCING, seed) + head.enhancement
    flair = np.interp(bare, [0, 60, CSF, GREY, WHITE, 1000, 2000], [0, 40, 90, 640, 470, 620, 900]).astype(np.float32)
    swollen = 0.9 * _soft(np.isin(tumour.label, (ENHANCING, NON_ENHANCING)), 1.2)
    flair = flair * (1 - swollen) + 980.0 * swollen
    level = PREOP_NOISE * WHITE
    return rician(t1c, level, stream(seed, "preop")), rician(flair, level, stream(seed, "flair"))


def rician(array: FloatArray, sigma: float, rng: np.random.Generator) -> FloatArray:
    """Magnitude of ``array`` with complex Gaussian noise of standard deviation ``sigma`` per channel."""
    real = array + sigma * rng.standard_normal(array.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, sigma * rng.standard_normal(array.shape, dtype=np.float32)), dtype=np.float32)


def bias_field(
    grid: Matrix, shape: Shape, centre_ras_mm: npt.ArrayLike, amount: float, rng: np.random.Generator
) -> FloatArray:
    """Smooth shading between 1 - ``amount`` and 1 + ``amount`` over the head, (k, j, i)."""
    coarse, small = coarser(grid, shape, 8.0)
    at = (points_of(coarse, small) - np.asarray(centre_ras_mm)) / 90.0
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    pattern = np.stack([x, y, z, x * y, y * z, x * z, x * x, y * y, z * z], axis=-1) @ rng.standard_normal(9)
    inside = np.linalg.norm(at, axis=-1) < 1
    pattern = pattern - pattern[inside].mean()
    pattern = np.tanh(pattern / np.abs(pattern[inside]).max() * 1.5) / np.tanh(1.5)
    return resampled(1 + amount * pattern, coarse, grid, shape, outside=None)


def _native(head: Anatomy, tumour: Tumour) -> FloatArray:
    """Native T1 of the brain with its tumour, preoperative grid."""
    result = head.brain_t1.copy()
    native, label = result[tumour.box], tumour.label[tumour.box]
    layers = ((NON_ENHANCING, OEDEMA_NATIVE, 0.75), (ENHANCING, TUMOUR_NATIVE, 1.0), (NECROSIS, NECROSIS_NATIVE, 1.0))
    for value, level, opacity in layers:
        weight = opacity * _soft(label == value)
        native += (level - native) * weight
    return result


def _inside(at: FloatArray, box: tuple[slice, slice, slice]) -> BoolArray:
    """Which continuous indices (3, n) lie in a box."""
    within = [(at[axis] >= s.start) & (at[axis] <= s.stop - 1) for axis, s in enumerate(box)]
    return np.asarray(within[0] & within[1] & within[2])


def _filling(
    look: Filling, height: FloatArray, in_cavity: FloatArray, at: FloatArray, shape: Shape, seed: int
) -> FloatArray:
    """Native signal (n,) of what the cavity holds at points of this ``height`` over the craniotomy (mm)."""
    result = np.where(height > FLUID_LEVEL_MM, np.float32(AIR), np.float32(CSF))
    inside = np.flatnonzero(in_cavity > 0)
    if not look.packed or not inside.size:
        return result
    k, j, i = shape
    grain, holes = (
        sampled(smooth_noise((k // 2 + 1, j // 2 + 1, i // 2 + 1), GRAIN, stream(seed, what)), at[:, inside] / 2.0)
        for what in ("clot", "bubbles")
    )
    packed = look.signal * (1 + look.uneven * grain)
    packed = np.where(holes < np.quantile(holes, look.bubbles), AIR, packed) if look.bubbles else packed
    below = height[inside] <= np.quantile(height[inside], look.packed)
    result[inside] = np.where(below, packed, result[inside])
    return result


def _stain_wall(
    native: FloatArray,
    gain: FloatArray,
    at: FloatArray,
    spots: npt.NDArray[np.intp],
    resection: Resection,
    look: Look,
    seed: int,
) -> None:
    """Patches of clot, bright with and without contrast agent, and faint enhancement by surgery; in place."""
    near = sampled(_soft(resection.cavity, WALL_LAYER_MM), at[:, spots])
    wall = 4 * near * (1 - near)  # 1 at the wall, 0 away from it on both sides
    k, j, i = resection.cavity.shape
    patches = smooth_noise((k // 2 + 1, j // 2 + 1, i // 2 + 1), 3.0, stream(seed, "blood"))
    pattern = sampled(patches, at[:, spots] / 2.0)
    free = 1 - np.clip(2 * sampled(_soft(resection.residual, 1.0), at[:, spots]), 0, 1)
    edge = free * np.clip(2 * wall - 0.6, 0, 1)
    if look.blood:
        clot = edge * np.clip(2 * pattern - 1.0, 0, 1)
        native[spots] = native[spots] * (1 - clot) + CLOT * clot
        gain[spots] *= 1 - clot
    if look.wall:
        gain[spots] += WALL_ENHANCEMENT * edge * np.clip(-1.5 * pattern, 0, 1) * (near < 0.5)


def _uptake(part: BoolArray, seed: int) -> FloatArray:
    """What contrast agent adds to tumour tissue: the same pattern before and during surgery."""
    k, j, i = part.shape
    pattern = smooth_noise((k // 2 + 1, j // 2 + 1, i // 2 + 1), 1.3, stream(seed, "uptake"))
    soft = _soft(part)
    inside = np.nonzero(soft)
    uneven = 1 + UNEVEN_UPTAKE * sampled(pattern, np.stack(inside).astype(np.float32) / 2)
    soft[inside] *= TUMOUR_ENHANCEMENT * uneven
    return soft


def _other_contrast(value: FloatArray, amount: float, rng: np.random.Generator) -> FloatArray:
    """Another T1 sequence: grey against white matter by up to a third less or more, CSF and the order kept."""
    grey = GREY + (WHITE - GREY) * 0.33 * amount * rng.uniform(-1, 1)
    fluid = CSF * (1 + 0.2 * amount * rng.uniform(-1, 1))
    return np.interp(value, [0, CSF, GREY, WHITE, 2000], [0, fluid, grey, WHITE, 2000]).astype(np.float32)


def _soft(mask: BoolArray, sigma: float = SOFT) -> FloatArray:
    """``mask`` with smoothed borders; works on its bounding box alone."""
    result = np.zeros(mask.shape, dtype=np.float32)
    found = ndimage.find_objects(mask.astype(np.uint8))
    if found:
        margin = int(np.ceil(4 * sigma)) + 1
        box = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in found[0])
        result[box] = ndimage.gaussian_filter(mask[box].astype(np.float32), sigma)
    return result
