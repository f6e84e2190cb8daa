"""Imaging beside metal: view-angle tilting, multi-spectral combination, and how far an implant's artefact reaches.

Sources: Cho, Kim, Kim, Med Phys 15:7 (1988) and Butts et al., Magn Reson Med 53:418 (2005) for view-angle tilting and
its blur; Koch et al., Magn Reson Med 61:381 (2009) for MAVRIC; Lu et al., Magn Reson Med 62:66 (2009) for SEMAC;
Schenck, Med Phys 23:815 (1996) for the field of magnetised bodies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, label

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace, kspace_from_image
from .thermometry import HZ_PER_TESLA

Mask = npt.NDArray[np.bool_]
Volume = npt.NDArray[np.float32]

#: Below this share of its peak the slice's spectrum is not undone: noise would be amplified more than five times.
BLUR_FLOOR = 0.2
#: A displacement of this many mm matters: navigation and alignment are judged to about a millimetre.
TOLERANCE_MM = 1.0


def vat_deblurred(image: ComplexArray, tilt_deg: float, slice_mm: float, field_mm: float) -> ComplexArray:
    """Undo the blur of view-angle tilting along the readout (last axis), complex image in and out.

    Seen at the angle ``tilt_deg``, a slice of thickness ``slice_mm`` is smeared over ``slice_mm * tan(tilt)``: its
    spectrum is divided by that of the slice, where enough of it is left. ``field_mm``: field of view of the readout.
    Source: Butts et al. (2005). Raises ReconstructionError for angles or lengths that cannot be.
    """
    if not 0 <= abs(tilt_deg) < 80 or slice_mm <= 0 or field_mm <= 0:
        raise ReconstructionError(
            f"view-angle tilting needs a tilt below 80 degrees and lengths above 0 mm, got {tilt_deg} degrees, a slice "
            f"of {slice_mm} mm and a field of {field_mm} mm"
        )
    size = image.shape[-1]
    cycles_per_mm = (np.arange(size) - size // 2) / field_mm
    blur = np.sinc(cycles_per_mm * slice_mm * np.tan(np.deg2rad(tilt_deg)))
    gain = blur / np.maximum(blur**2, BLUR_FLOOR**2)
    return image_from_kspace(kspace_from_image(image, (-1,)) * gain.astype(np.float32), (-1,)).astype(np.complex64)


@dataclass(frozen=True, eq=False)
class Spectral:
    """``magnitude``: (z, y, x) float32, all bins together. ``hz``: (z, y, x) float32 off-resonance as the centroid of
    the bins, NaN where no bin has signal."""

    magnitude: Volume
    hz: Volume


def mavric(bins: npt.NDArray[Any], centres_hz: npt.NDArray[Any], noise: float = 0.0) -> Spectral:
    """Combine 3D images (bins, z, y, x), magnitude or complex, taken at ``centres_hz`` by root sum of squares.

    ``noise``: standard deviation of the magnitude without signal; voxels below three of them in every bin have no
    frequency. Raises ReconstructionError when bins and centres disagree.
    """
    if bins.ndim != 4 or centres_hz.shape != bins.shape[:1] or len(centres_hz) < 2 or (np.diff(centres_hz) <= 0).any():
        raise ReconstructionError(
            f"bins must be (bins, z, y, x) with rising centres in Hz, at least two, got {bins.shape} and "
            f"{np.asarray(centres_hz).tolist()}"
        )
    if not np.isfinite(bins).all():
        raise ReconstructionError("a spectral bin has NaN or infinite values")
    power = np.abs(bins).astype(np.float64) ** 2
    total = power.sum(axis=0)
    seen = (power.max(axis=0) > (3 * noise) ** 2) & (total > 0)
    hz = np.full(total.shape, np.nan)
    hz[seen] = np.tensordot(centres_hz, power, axes=1)[seen] / total[seen]
    return Spectral(np.sqrt(total).astype(np.float32), hz.astype(np.float32))


def semac(slices: npt.NDArray[Any], first: int, count: int) -> Volume:
    """Put the signal of excited slices back where it belongs: (z, y, x) float32 of ``count`` slices.

    ``slices``: (excited, encoded, y, x), each excited slice resolved along z by its own phase encoding; its encoded
    plane ``encoded // 2`` lies at the excited slice itself, and excited slice 0 is slice ``first`` of the volume. What
    metal moved across slices is found in the planes beside. Raises ReconstructionError for wrong shapes.
    """
    if slices.ndim != 4 or not np.isfinite(slices).all() or count < 1:
        raise ReconstructionError(f"SEMAC needs finite images (excited, encoded, y, x), got shape {slices.shape}")
    power = np.zeros((count, *slices.shape[2:]))
    for excited, block in enumerate(slices):
        for plane, image in enumerate(block):
            z = first + excited + plane - len(block) // 2
            if 0 <= z < count:
                power[z] += np.abs(image) ** 2
    return np.sqrt(power).astype(np.float32)


def cylinder_hz(
    points_mm: npt.NDArray[np.float64],
    axis: npt.NDArray[np.float64],
    radius_mm: float,
    susceptibility_ppm: float,
    field_t: float,
    field_direction: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Off-resonance in Hz at ``points_mm`` (..., 3), seen from a point of its axis, around a long screw or rod.

    ``axis``, ``field_direction``: (3,) in the frame of the points. ``susceptibility_ppm``: of the metal against tissue
    (titanium 182, cobalt-chromium about 900). 0 inside the metal, which gives no signal. Source: Schenck (1996).
    """
    if radius_mm <= 0 or field_t <= 0:
        raise ReconstructionError(f"an implant needs a radius and a field above 0, got {radius_mm} mm and {field_t} T")
    along, north = (v / np.linalg.norm(v) for v in (np.asarray(axis, float), np.asarray(field_direction, float)))
    across = north - (north @ along) * along
    away = points_mm - (points_mm @ along)[..., None] * along
    length = np.linalg.norm(away, axis=-1)
    distance = np.maximum(length, radius_mm)
    sine2 = float(across @ across)
    # cos(2 phi) = 2 cos^2(phi) - 1, phi between the point and the part of the field across the axis.
    cosine2 = (away @ across) ** 2 / distance**2
    strength = HZ_PER_TESLA * field_t * susceptibility_ppm * 1e-6 / 2
    hz = strength * (radius_mm / distance) ** 2 * (2 * cosine2 - sine2)
    return np.asarray(np.where(length < radius_mm, 0.0, hz))


@dataclass(frozen=True, eq=False)
class Void:
    """Where a picture beside metal cannot be trusted.

    ``readout_mm``, ``slice_mm``: how far beyond the metal, along these axes, signal is displaced by more than
    ``TOLERANCE_MM`` along either: the uncertainty that alignment metrics add. ``shift_mm``: largest displacement
    (readout, slice) within it. ``mask``: (z, y, x) metal and all voxels so displaced in one piece with it."""

    readout_mm: float
    slice_mm: float
    shift_mm: tuple[float, float]
    mask: Mask


def void_around(
    hz: npt.NDArray[Any],
    metal: Mask,
    spacing_mm: tuple[float, float, float],
    readout_hz_per_mm: float,
    slice_hz_per_mm: float,
    readout_axis: int = 2,
    slice_axis: int = 0,
    tolerance_mm: float = TOLERANCE_MM,
) -> Void:
    """Estimate the artefact of an implant from off-resonance ``hz`` (z, y, x), measured or by :func:`cylinder_hz`.

    ``metal``: (z, y, x) the implant; ``spacing_mm`` (z, y, x). Signal moves by ``hz / readout_hz_per_mm`` along the
    readout and ``hz / slice_hz_per_mm`` across the slice (the gradient's strength in Hz per mm while reading and while
    exciting; infinite where nothing moves). Voxels without a frequency (NaN) beside the metal count as displaced.
    Raises ReconstructionError for wrong shapes, no metal, gradients that are not positive, or an artefact that reaches
    the rim of the volume, so that its extent is unknown.
    """
    if hz.ndim != 3 or metal.shape != hz.shape or not metal.any():
        raise ReconstructionError(
            f"an artefact needs the field (z, y, x) and a mask of the implant on its grid, got {hz.shape} and "
            f"{metal.shape} with {int(metal.sum())} voxels"
        )
    if not (readout_hz_per_mm > 0 and slice_hz_per_mm > 0 and tolerance_mm > 0 and min(spacing_mm) > 0):
        raise ReconstructionError(
            f"gradients in Hz per mm, tolerance and spacing must be positive, got {readout_hz_per_mm}, "
            f"{slice_hz_per_mm}, {tolerance_mm} and {spacing_mm}"
        )
    shifts = [np.abs(hz) / strength for strength in (readout_hz_per_mm, slice_hz_per_mm)]
    with np.errstate(invalid="ignore"):
        displaced = (shifts[0] > tolerance_mm) | (shifts[1] > tolerance_mm) | np.isnan(hz)
    parts, _ = label(displaced | metal, np.ones((3, 3, 3)))
    mask = np.isin(parts, np.unique(parts[binary_dilation(metal) & (parts > 0)]))
    extents = []
    for axis, other in ((readout_axis, slice_axis), (slice_axis, readout_axis)):
        if hz.shape[axis] > 1 and (mask.take([0, -1], axis) & ~metal.take([0, -1], axis)).any():
            raise ReconstructionError(
                f"the artefact reaches the rim of the volume along axis {axis}: its extent is not known, use a larger "
                "field of view"
            )
        extents.append(_beyond(mask, metal, axis, other) * spacing_mm[axis])
    inside = mask & ~metal & np.isfinite(hz)
    largest = [float(shift[inside].max()) if inside.any() else 0.0 for shift in shifts]
    return Void(float(extents[0]), float(extents[1]), (largest[0], largest[1]), mask)


def _beyond(mask: Mask, metal: Mask, axis: int, other: int) -> int:
    """Most voxels along ``axis`` by which ``mask`` exceeds ``metal`` on one side, in a section of both axes.

    Each section is seen along ``other``, so that a rod's full width counts.
    """
    lines, core = (np.any(np.moveaxis(array, (axis, other), (2, 1)), axis=1) for array in (mask, metal))
    crossed = core.any(axis=1)
    lines, core = lines[crossed], core[crossed]
    ahead = core.argmax(axis=1) - lines.argmax(axis=1)
    behind = core[:, ::-1].argmax(axis=1) - lines[:, ::-1].argmax(axis=1)
    return int(max(ahead.max(), behind.max(), 0))
