"""Imaging beside metal: view-angle tilting, multi-spectral combination, and how far a scan may displace an implant.

Sources: Cho, Kim, Kim, Med Phys 15:7 (1988) and Butts et al., Magn Reson Med 53:418 (2005) for view-angle tilting and
its blur; Koch et al., Magn Reson Med 61:381 (2009) for MAVRIC; Lu et al., Magn Reson Med 62:66 (2009) for SEMAC;
Schenck, Med Phys 23:815 (1996) for the field of magnetised bodies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Encoding, Image, MetalShift
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace, kspace_from_image
from .thermometry import HZ_PER_TESLA

Volume = npt.NDArray[np.float32]

#: Below this share of its peak the slice's spectrum is not undone: noise would be amplified more than five times.
BLUR_FLOOR = 0.2
#: What a scan may be at its worst when it does not say: 3 T, a readout of 150 Hz per pixel of 1 mm, a slice of 4 mm
#: excited by a pulse of 1 kHz. Cobalt-chromium is the strongest metal that is still put into a scanner.
WORST_FIELD_T, WORST_READOUT_HZ_PER_MM, WORST_SLICE_HZ_PER_MM, WORST_PPM = 3.0, 150.0, 250.0, 900.0
AXES = {"i": 0, "j": 1, "k": 2}


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


def scan_facts(encoding: Encoding) -> dict[str, str]:
    """What decides how far a scan moves the signal beside metal, as text for the image's metadata.

    ``field_t``, ``readout_axis`` and ``slice_axis`` (i, j or k of the image), ``readout_hz_per_mm`` and
    ``slice_hz_per_mm`` (gradients; inf for 3D scans), ``spectral_bin_hz`` (width) of multi-spectral scans. What the
    header does not say is left out. The scan's metadata ``rf_bandwidth_hz``, ``spectral_bin_hz`` and
    ``bin_centres_hz`` count.
    """
    facts: dict[str, str] = {}
    if encoding.field_t:
        facts["field_t"] = f"{encoding.field_t:g}"
    if encoding.trajectory != "cartesian":
        # Off-resonance blurs radial and spiral scans, and moves EPI along the phase direction: no readout to name.
        return facts
    facts |= {"readout_axis": "i", "slice_axis": "k"}
    if encoding.dwell_time_s:
        facts["readout_hz_per_mm"] = f"{1.0 / (encoding.dwell_time_s * encoding.encoded_fov_mm[2]):.6g}"
    if encoding.is_3d:
        facts["slice_hz_per_mm"] = "inf"
    else:
        bandwidth = _positive(encoding.metadata.get("rf_bandwidth_hz"))
        thickness = _positive(encoding.metadata.get("slice_thickness_mm"))
        if bandwidth is not None and thickness is not None:
            facts["slice_hz_per_mm"] = f"{bandwidth / thickness:.6g}"
    width = _positive(encoding.metadata.get("spectral_bin_hz")) or _bin_width(encoding.metadata.get("bin_centres_hz"))
    if width is not None:
        facts["spectral_bin_hz"] = f"{width:g}"
    return facts


def implant_shift(
    image: Image, axis_ras: npt.ArrayLike, diameter_mm: float, susceptibility_ppm: float | None = None
) -> MetalShift:
    """How far ``image`` may show a straight implant from where it is, by the :func:`scan_facts` in its metadata.

    ``axis_ras``: (3,) of the implant. ``susceptibility_ppm``: of its metal against tissue, None when unknown. The
    direction of the static field and the sign of the gradients are not used: the result holds for all of them.
    What is missing is taken at its worst and named. Raises ReconstructionError for an impossible implant.
    """
    axis = np.asarray(axis_ras, dtype=np.float64)
    length = float(np.linalg.norm(axis)) if axis.shape == (3,) else 0.0
    if not (np.isfinite(length) and length > 0 and np.isfinite(diameter_mm) and diameter_mm > 0):
        raise ReconstructionError(
            f"an implant needs an axis (3,) and a diameter above 0, got {axis.tolist()} and {diameter_mm} mm"
        )
    if susceptibility_ppm is not None and not (np.isfinite(susceptibility_ppm) and susceptibility_ppm != 0):
        raise ReconstructionError(f"the susceptibility must be a number that is not 0, got {susceptibility_ppm} ppm")
    axis, radius = axis / length, diameter_mm / 2
    assumed = [] if susceptibility_ppm is not None else ["the metal"]
    field_t = _fact(image, "field_t", WORST_FIELD_T, "the field strength", assumed)
    ppm = abs(susceptibility_ppm) if susceptibility_ppm is not None else WORST_PPM
    across = np.linalg.svd(axis[None])[2][1]
    # At its surface, for the worst direction of the field; taken from twice the radius, where it is four times less.
    hz = 4 * float(cylinder_hz(2 * radius * across, axis, radius, ppm, field_t, across))
    hz = min(hz, _positive(image.metadata.get("spectral_bin_hz"), 2 * hz) / 2)
    readout = hz / _fact(image, "readout_hz_per_mm", WORST_READOUT_HZ_PER_MM, "the readout gradient", assumed)
    sliced = hz / _fact(image, "slice_hz_per_mm", WORST_SLICE_HZ_PER_MM, "the slice gradient", assumed)
    across_mm = along_mm = float(np.hypot(readout, sliced))
    directions = [_direction(image, name) for name in ("readout", "slice")]
    if any(direction is None for direction, mm in zip(directions, (readout, sliced), strict=True) if mm > 0):
        # Of an unknown direction all may lie across the implant, or all along it.
        assumed.append("the directions of readout and slice")
    else:
        # One field moves the signal in both directions, so along one line; the signs of the gradients are not known.
        first, second = (
            np.zeros(3) if direction is None else mm * direction
            for direction, mm in zip(directions, (readout, sliced), strict=True)
        )
        lines = (first + second, first - second)
        along_mm = max(abs(float(line @ axis)) for line in lines)
        across_mm = max(float(np.linalg.norm(line - (line @ axis) * axis)) for line in lines)
    shift, void = void_of_rod(across_mm, radius)
    return MetalShift(
        shift,
        end_shift(along_mm, radius),
        void,
        void_of_rod(readout, radius)[0],
        void_of_rod(sliced, radius)[0],
        tuple(assumed),
    )


def void_of_rod(displacement_mm: float, radius_mm: float) -> tuple[float, float]:
    """(shift of its middle, half width) in mm of the void that a rod leaves along the direction of displacement.

    ``displacement_mm`` D: of the signal at the rod's surface; at the distance r it is D (a / r)^2, the same on both
    sides. While D is below a / 2 the void moves as a whole. Beyond, signal on the near side folds over, and that on the
    far side is stretched to less than half: with R = (2 D a^2)^(1/3) the void reaches from -R / 2 to 3 R / 2. When the
    field's direction is not along or across that of the displacement, one flank of the void is wider than the other and
    its middle moves sideways instead, by no more.
    """
    if displacement_mm <= radius_mm / 2:
        return displacement_mm, radius_mm
    reach = float(np.cbrt(2 * displacement_mm * radius_mm**2))
    return reach / 2, reach


def end_shift(displacement_mm: float, radius_mm: float) -> float:
    """Most that an end of a rod may seem to move along the rod, mm, when signal is displaced in that direction.

    On the axis, at z from an end that the field crosses, signal moves by D (1 - z / sqrt(z^2 + a^2)); the smallest
    place that any signal comes to is at most 1.5 (D a^2)^(1/3) beyond the end.
    """
    return min(displacement_mm, 1.5 * float(np.cbrt(displacement_mm * radius_mm**2)))


def _fact(image: Image, key: str, worst: float, words: str, assumed: list[str]) -> float:
    value = _positive(image.metadata.get(key))
    if value is None:
        assumed.append(words)
        return worst
    return value


def _direction(image: Image, name: str) -> Any:
    """Unit vector (3,) RAS along which a scan reads or selects slices, None when its metadata does not say."""
    number = AXES.get(image.metadata.get(f"{name}_axis", ""))
    return None if number is None else image.ras_from_ijk[:3, number] / image.spacing_mm[number]


def _bin_width(centres: str | None) -> float | None:
    """Largest step between the centres of spectral bins, Hz, separated by spaces; None when they cannot be read."""
    try:
        steps = np.diff(np.sort([float(part) for part in (centres or "").split()]))
    except ValueError:
        return None
    return float(steps.max()) if steps.size and steps.max() > 0 else None


def _positive(text: str | None, otherwise: float | None = None) -> Any:
    """A positive number, infinite allowed; ``otherwise`` when it is none."""
    try:
        value = float(text) if text is not None else float("nan")
    except ValueError:
        return otherwise
    return value if value > 0 else otherwise
