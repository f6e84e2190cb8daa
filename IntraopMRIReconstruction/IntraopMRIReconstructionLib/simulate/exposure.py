"""What an open skull adds to a scan: the opening, air under the dura, flap, enhancing dura, head holder and drape.

Arrays (k, j, i) on the scan's grid are changed in place; points are preoperative RAS, mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import FloatArray, Matrix
from ..geometry import apply
from .anatomy import Anatomy
from .fields import Opening
from .grids import Shape, coarser, distance_mm, index_coordinates, resampled, sampled, smooth_noise, stream
from .head import CSF, DURA, FAT, MUSCLE

AIR = 4.0
#: Fluid stands this far (mm) below the craniotomy; above it there is air.
FLUID_LEVEL_MM, RIM_OF_BONE_MM = -7.0, -12.0
#: What lies deeper under the inner skull than this (mm) is brain and not touched by the opening.
UNDER_BONE_MM = -6.0
#: The scalp is held back this much further than the bone, from this distance to the inner skull on (mm).
SCALP_RETRACTION_MM, SCALP_FROM_MM = 5.0, 10.0
#: Air under the dura reaches this part of what the brain has sunk below its highest point; fluid lies below it.
AIR_REACH = 1.5
#: The dura (mm outside the hull) is irritated this far around the bone flap, and turned over its rim.
DURA_MM, DURA_REACH_MM, DURA_RIM_MM = 2.5, 20.0, 1.0
#: The scalp is folded back over the skin beside the opening: begin, width, half its length, thickness (mm); how far
#: down the head it hangs (mm).
FLAP_MM, FLAP_DOWN_MM, FLAP_ENHANCEMENT = (4.0, 30.0, 26.0, 16.0), 45.0, 200.0
#: Void of a pin in the outer table (mm), its bright rim, and where the pins of the holder are, seen from the brain.
PIN_MM, PIN_RIM = 8.0, 900.0
PINS = ((1.0, 0.1, 0.0), (-1.0, 0.35, 0.05), (-1.0, -0.35, 0.05))
#: Wet drapes and the coil's covers: distance from the skin, thickness (mm), signal.
DRAPE_MM, DRAPE = (5.0, 2.5), 170.0
#: What is brighter than this is no air; distances from the skin are taken on this grid (mm).
NO_AIR, SKIN_GRID_MM = 30.0, 3.0


@dataclass(frozen=True)
class Exposure:
    """How the surroundings of an open skull look beside the bare opening.

    ``dura``: what contrast agent adds to the irritated dura about the opening; ``flap``: scalp folded back beside it;
    ``holder``: pins of a head holder, drapes and coil covers with signal.
    """

    dura: float = 0.0
    flap: bool = False
    holder: bool = False


BARE, IN_THEATRE = Exposure(), Exposure(350.0, flap=True, holder=True)


def opened(
    static: FloatArray,
    glow: FloatArray,
    hull: FloatArray,
    head: Anatomy,
    opening: Opening,
    up: npt.NDArray[np.float64],
    look: Exposure,
    preop_from_index: Matrix,
    seed: int,
) -> None:
    """Open the head ``static`` (and ``glow``, what agent adds to it) and dress it as in theatre.

    ``hull``: distance to the inner skull, mm; ``up``: unit vector against gravity.
    """
    near = np.flatnonzero(hull.ravel() > UNDER_BONE_MM)
    points = _points(preop_from_index, near, static.shape)
    height, aside = opening.along_and_aside(points)
    over, outside = opening.over(points, up), hull.ravel()[near]
    if look.dura:
        shell = np.clip(1.0 - np.abs(outside - DURA_MM / 2.0) / (DURA_MM / 2.0 + 0.5), 0, 1)
        shell *= np.clip((opening.radius_mm + DURA_REACH_MM - aside) / 6.0, 0, 1) * (height > -opening.radius_mm)
        glow.ravel()[near] += look.dura * shell
    radius = opening.radius_mm + SCALP_RETRACTION_MM * (outside > SCALP_FROM_MM)
    gone = np.clip(radius - aside + 0.5, 0, 1) * (height > RIM_OF_BONE_MM)
    filling = np.where(over > FLUID_LEVEL_MM, AIR, CSF)
    static.ravel()[near] = static.ravel()[near] * (1 - gone) + filling * gone
    glow.ravel()[near] *= 1 - gone
    if look.dura:
        turned = np.clip(DURA_RIM_MM + 0.5 - np.abs(aside - opening.radius_mm), 0, 1) * (outside > 0) * (outside < 9.0)
        turned *= height > RIM_OF_BONE_MM
        static.ravel()[near] = static.ravel()[near] * (1 - turned) + DURA * turned
        glow.ravel()[near] = np.maximum(glow.ravel()[near], look.dura * turned)
    if look.flap or look.holder:
        _dress(static, glow, head, opening, look, preop_from_index, seed)


def subdural_air(hull: FloatArray, height: FloatArray, sag_mm: float) -> FloatArray:
    """Part (n,) of each point's surroundings that is air where no brain is: under the dura, above the fluid.

    ``hull``: distance to the inner skull (n,), negative inside; ``height`` (n,) against gravity, mm; ``sag_mm``: how
    far the brain has sunk at its highest point.
    """
    level = float(height[hull < 0].max()) - AIR_REACH * sag_mm
    return np.asarray(np.clip(1.0 - hull, 0, 1) * np.clip(height - level + 0.5, 0, 1), dtype=np.float32)


def _dress(
    static: FloatArray,
    glow: FloatArray,
    head: Anatomy,
    opening: Opening,
    look: Exposure,
    preop_from_index: Matrix,
    seed: int,
) -> None:
    shape: Shape = static.shape
    small_grid, small = coarser(preop_from_index, shape, SKIN_GRID_MM)
    skin = distance_mm(resampled(static, preop_from_index, small_grid, small, outside=None) > NO_AIR, SKIN_GRID_MM)
    away = resampled(skin, small_grid, preop_from_index, shape, outside=None)
    around = np.flatnonzero((away > -1.0) & (away < max(FLAP_MM[3], sum(DRAPE_MM)) + 1.0))
    points, distance = _points(preop_from_index, around, shape), away.ravel()[around]
    offset = points - opening.centre_ras_mm.astype(np.float32)
    flat, shine = static.reshape(-1), glow.reshape(-1)
    if look.holder:
        # The drape lies on the upper half of the head and is wet here and there.
        wet = smooth_noise(small, 4.0, stream(seed, "drape"))
        wet = resampled(wet, small_grid, preop_from_index, shape, outside=None).ravel()[around]
        begin, thickness = DRAPE_MM
        sheet = np.clip(1.0 - np.abs(distance - begin - thickness / 2.0) / thickness, 0, 1)
        sheet *= np.clip(wet + 0.5, 0, 1) * (points[:, 2] > head.centre_ras_mm[2])
        flat[around] += DRAPE * sheet
    if look.flap:
        begin, width, half_length, thickness = FLAP_MM
        down = np.array([0.0, 0.0, -1.0]) + 0.2 * opening.outward
        side = down - (down @ opening.outward) * opening.outward
        side /= np.linalg.norm(side)
        along = offset @ side.astype(np.float32) - opening.radius_mm - begin
        across = np.abs(offset @ np.cross(opening.outward, side).astype(np.float32))
        fold = np.clip(along + 0.5, 0, 1) * np.clip(width - along + 0.5, 0, 1) * np.clip(half_length - across, 0, 1)
        fold *= np.clip(thickness - distance, 0, 1) * (distance > -1.0) * (offset @ opening.outward > -FLAP_DOWN_MM)
        layers = np.where(np.abs(distance - thickness / 2.0) < thickness / 4.0, FAT, MUSCLE).astype(np.float32)
        flat[around] = flat[around] * (1 - fold) + layers * fold
        shine[around] += FLAP_ENHANCEMENT * fold
    if look.holder:
        for pin in PINS:
            _pin(flat, shine, head, opening, np.array(pin), preop_from_index, shape)


def _pin(
    flat: FloatArray,
    shine: FloatArray,
    head: Anatomy,
    opening: Opening,
    direction: npt.NDArray[np.float64],
    preop_from_index: Matrix,
    shape: Shape,
) -> None:
    """A pin's void in the outer table; none where the opening is."""
    direction = direction / np.linalg.norm(direction)
    line = head.centre_ras_mm + np.arange(40.0, 140.0)[:, None] * direction
    at = index_coordinates(head.ras_from_ijk, line)
    inside = np.flatnonzero(sampled(head.head_t1, at, outside=0.0) > NO_AIR)
    place = line[inside[-1]] - 6.0 * direction if inside.size else line[-1]
    if np.linalg.norm(place - opening.centre_ras_mm) < opening.radius_mm + 2.0 * PIN_MM:
        return
    reach = 2.0 * PIN_MM
    k, j, i = (round(float(v)) for v in index_coordinates(preop_from_index, place))
    size = int(np.ceil(reach / np.linalg.norm(preop_from_index[:3, 0])))
    box = tuple(slice(max(c - size, 0), max(c + size + 1, 0)) for c in (k, j, i))
    rows = np.arange(flat.size).reshape(shape)[box].ravel()
    distance = np.linalg.norm(_points(preop_from_index, rows, shape) - place, axis=-1)
    void = np.clip((PIN_MM - distance) / 1.5, 0, 1)
    rim = np.exp(-(((distance - PIN_MM - 1.0) / 1.2) ** 2)) * (flat[rows] > NO_AIR)
    flat[rows] = flat[rows] * (1 - void) + PIN_RIM * rim * (1 - void)
    shine[rows] *= 1 - np.maximum(void, rim)


def _points(preop_from_index: Matrix, rows: npt.NDArray[np.intp], shape: Shape) -> FloatArray:
    index = np.stack(np.unravel_index(rows, shape)[::-1], axis=-1)
    return apply(preop_from_index, index).astype(np.float32)
