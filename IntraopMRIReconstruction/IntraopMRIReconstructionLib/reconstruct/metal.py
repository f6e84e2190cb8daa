"""Imaging beside metal: view-angle tilting, multi-spectral combination, and how far a scan may displace an implant.

Sources: Cho, Kim, Kim, Med Phys 15:7 (1988) and Butts et al., Magn Reson Med 53:418 (2005) for view-angle tilting and
its blur; Koch et al., Magn Reson Med 61:381 (2009) for MAVRIC; Lu et al., Magn Reson Med 62:66 (2009) for SEMAC;
Schenck, Med Phys 23:815 (1996) for the field of magnetised bodies.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Encoding, Image, KSpace, MetalShift
from ..errors import ReconstructionError
from ..operators.remembered import by_scan
from .thermometry import HZ_PER_TESLA

Volume = npt.NDArray[np.float32]

#: A tilted view that leaves less than this share of a shift leaves none: headers carry rounded numbers.
UNDONE = 1e-3
#: Below this share of its peak the slice's spectrum is not undone: noise would be amplified more than five times.
BLUR_FLOOR = 0.2
#: What a scan may be at its worst when it does not say: 3 T, a readout of 150 Hz per pixel of 1 mm, a slice of 4 mm
#: excited by a pulse of 1 kHz. Cobalt-chromium is the strongest metal that is still put into a scanner.
WORST_FIELD_T, WORST_READOUT_HZ_PER_MM, WORST_SLICE_HZ_PER_MM, WORST_PPM = 3.0, 150.0, 250.0, 900.0
AXES = {"i": 0, "j": 1, "k": 2}
#: Entries of an encoding's metadata, see :func:`bins_missing`, :func:`semac_missing` and :func:`view_angle_deg`.
BIN_CENTRES_HZ, SEMAC_FOV_MM, VAT_TILT_DEG = "bin_centres_hz", "semac_fov_mm", "vat_tilt_deg"
#: Entry of an image's metadata: shifts across slices up to so many mm were undone.
COVERED = "slice_covered_mm"
#: How a warning ends that a contrast is only a part of an image.
PART = "alone: no picture of the whole"


def bins_missing(encoding: Encoding) -> str:
    """What a scan lacks for spectral bins, "" when its contrasts are bins.

    Contract: metadata ``bin_centres_hz``, the centre frequency of each contrast, separated by spaces.
    """
    if encoding.contrasts < 2 or len(encoding.metadata.get(BIN_CENTRES_HZ, "").split()) != encoding.contrasts:
        return "spectral bins need the centre frequency of each contrast, which the header lacks"
    return ""


def bin_centres_hz(encoding: Encoding) -> npt.NDArray[np.float64]:
    """Centre frequency of each contrast. Raises ReconstructionError for what is no number."""
    said = encoding.metadata[BIN_CENTRES_HZ]
    try:
        return np.array([float(text) for text in said.split()])
    except ValueError as error:
        raise ReconstructionError(f"centres of spectral bins must be numbers in Hz, got '{said}'") from error


def semac_missing(encoding: Encoding) -> str:
    """What a scan lacks for SEMAC, "" when its contrasts are the steps of a slice encoding.

    Contract: a Cartesian 2D scan; metadata ``semac_fov_mm``: field of view across each slice. Contrast n of N is the
    step (n - N // 2) / semac_fov_mm cycles per mm, and encoded planes are as far apart as the slices.
    """
    if encoding.contrasts < 2 or SEMAC_FOV_MM not in encoding.metadata:
        return "SEMAC needs slices with steps of slice encoding as contrasts, and their field of view in the header"
    if encoding.is_3d or encoding.trajectory != "cartesian":
        return "SEMAC is for Cartesian slices"
    return ""


def semac_fov_mm(encoding: Encoding) -> float:
    """Field of view across each slice. Raises ReconstructionError for what is no length."""
    said = encoding.metadata[SEMAC_FOV_MM]
    fov_mm = _positive(said, 0.0)
    if not 0 < fov_mm < np.inf:
        raise ReconstructionError(f"the field of view of SEMAC must be a length in mm, got '{said}'")
    return float(fov_mm)


@by_scan
def part_words(encoding: Encoding) -> str:
    """A warning for one contrast that is shown alone though it is no image of its own, "" when it is one."""
    if not bins_missing(encoding):
        return f"one of {encoding.contrasts} spectral bins {PART}"
    return "" if semac_missing(encoding) else f"one of {encoding.contrasts} steps of slice encoding {PART}"


@by_scan
def view_angle_deg(encoding: Encoding) -> float:
    """Tilt of the view, 0 for a plain scan.

    Contract: metadata ``vat_tilt_deg``, above 0: the angle at which slices are read, by a slice gradient during the
    readout whose sign undoes the shift of off-resonant signal. Raises ReconstructionError for an angle that cannot be,
    and where there are no slices to tilt.
    """
    said = encoding.metadata.get(VAT_TILT_DEG, "")
    if not said:
        return 0.0
    angle = _positive(said, 0.0 if said.strip() in ("0", "0.0") else np.nan)
    if not 0 <= angle < 80 or (angle and (encoding.is_3d or encoding.trajectory != "cartesian")):
        raise ReconstructionError(
            f"a view is tilted by less than 80 degrees, in Cartesian slices, got '{said}' degrees in a "
            f"{'3D' if encoding.is_3d else '2D'} {encoding.trajectory} scan: check the header"
        )
    return float(angle)


def deblurred_view(kspace: KSpace, tilt_deg: float) -> tuple[KSpace, float]:
    """k-space of a tilted view without its blur, and how wide that was (mm along the readout)."""
    encoding = kspace.encoding
    thickness = slice_thickness_mm(encoding)
    gain = vat_gain(encoding.encoded_matrix[2], tilt_deg, thickness, encoding.encoded_fov_mm[2])
    calibration = None if kspace.calibration is None else kspace.calibration * gain
    width = thickness * float(np.tan(np.deg2rad(tilt_deg)))
    return replace(kspace, samples=kspace.samples * gain, calibration=calibration), width


def slice_thickness_mm(encoding: Encoding) -> float:
    """What the header says, or the distance of the slices."""
    stated = _positive(encoding.metadata.get("slice_thickness_mm"))
    return float(stated if stated is not None else encoding.encoded_fov_mm[0] / encoding.encoded_matrix[0])


def vat_gain(size: int, tilt_deg: float, slice_mm: float, field_mm: float) -> Volume:
    """What undoes the blur of view-angle tilting on each of ``size`` centred samples of a readout, float32.

    Seen at the angle ``tilt_deg``, a slice of thickness ``slice_mm`` is smeared over ``slice_mm * tan(tilt)``: its
    spectrum is divided by that of the slice, where enough of it is left. ``field_mm``: field of view of the readout.
    It acts on each coil alone, before anything is combined. Source: Butts et al. (2005). Raises ReconstructionError
    for angles or lengths that cannot be.
    """
    if not 0 <= abs(tilt_deg) < 80 or slice_mm <= 0 or field_mm <= 0:
        raise ReconstructionError(
            f"view-angle tilting needs a tilt below 80 degrees and lengths above 0 mm, got {tilt_deg} degrees, a slice "
            f"of {slice_mm} mm and a field of {field_mm} mm"
        )
    cycles_per_mm = (np.arange(size) - size // 2) / field_mm
    blur = np.sinc(cycles_per_mm * slice_mm * np.tan(np.deg2rad(tilt_deg)))
    return np.asarray(blur / np.maximum(blur**2, BLUR_FLOOR**2), dtype=np.float32)


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
    metal moved across slices is found in the planes beside. The root of the sum of squares never cancels signal whose
    phase differs between slices; what two slices excite in halves comes out 0.7 times as bright. Raises
    ReconstructionError for wrong shapes.
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
    ``slice_hz_per_mm`` (gradients; inf for 3D scans), ``spectral_bin_hz`` (width) of multi-spectral scans,
    ``vat_tilt_deg`` of tilted views, whose ``readout_hz_per_mm`` is that of what the tilt leaves of the shift. What the
    header does not say is left out. The scan's metadata ``rf_bandwidth_hz``, ``spectral_bin_hz``, ``bin_centres_hz``
    and ``vat_tilt_deg`` count.
    """
    return dict(_scan_facts(encoding))


@by_scan
def _scan_facts(encoding: Encoding) -> dict[str, str]:
    facts: dict[str, str] = {}
    if encoding.field_t:
        facts["field_t"] = f"{encoding.field_t:g}"
    if encoding.trajectory != "cartesian":
        # Off-resonance blurs radial and spiral scans, and moves EPI along the phase direction: no readout to name.
        return facts
    facts |= {"readout_axis": "i", "slice_axis": "k"}
    sliced = None
    if encoding.is_3d:
        facts["slice_hz_per_mm"] = "inf"
    else:
        bandwidth = _positive(encoding.metadata.get("rf_bandwidth_hz"))
        thickness = _positive(encoding.metadata.get("slice_thickness_mm"))
        if bandwidth is not None and thickness is not None:
            sliced = bandwidth / thickness
            facts["slice_hz_per_mm"] = f"{sliced:.6g}"
    if encoding.dwell_time_s:
        mm_per_hz = encoding.dwell_time_s * encoding.encoded_fov_mm[2]
        tilt = 0.0 if sliced is None else view_angle_deg(encoding)
        if tilt and sliced is not None:
            # What a slice gradient moves back while the signal is read. When it is not known, nothing is taken off.
            left = abs(mm_per_hz - float(np.tan(np.deg2rad(tilt))) / sliced)
            mm_per_hz = left if left > UNDONE * mm_per_hz else 0.0
            facts[VAT_TILT_DEG] = f"{tilt:g}"
        facts["readout_hz_per_mm"] = f"{1.0 / mm_per_hz:.6g}" if mm_per_hz else "inf"
    centres = encoding.metadata.get("bin_centres_hz", "")
    width = _positive(encoding.metadata.get("spectral_bin_hz")) or _bin_width(centres)
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
    bin_hz = _positive(image.metadata.get("spectral_bin_hz"))
    if bin_hz is not None:
        hz = min(hz, bin_hz / 2)
    readout_hz_per_mm = _fact(image, "readout_hz_per_mm", WORST_READOUT_HZ_PER_MM, "the readout gradient", assumed)
    slice_hz_per_mm = _fact(image, "slice_hz_per_mm", WORST_SLICE_HZ_PER_MM, "the slice gradient", assumed)
    readout, sliced = hz / readout_hz_per_mm, hz / slice_hz_per_mm
    covered_mm = _positive(image.metadata.get(COVERED), 0.0)
    if sliced <= covered_mm:
        # What is farther comes back at a wrong place: nothing is taken off then.
        sliced = 0.0
    across_mm = float(np.hypot(readout, sliced))
    ends_mm = end_shift(across_mm, radius)
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
        ends_mm = max(_end_shift_along(line, axis, radius) for line in lines)
        across_mm = max(float(np.linalg.norm(line - (line @ axis) * axis)) for line in lines)
    shift, void = void_of_rod(across_mm, radius)
    (readout_shift, readout_void), (slice_shift, slice_void) = (void_of_rod(mm, radius) for mm in (readout, sliced))
    rests = [
        f"{hz:.0f} Hz at the metal"
        + (f" by {ppm:g} ppm in {field_t:g} T" if bin_hz is None else f", half a spectral bin of {bin_hz:g} Hz"),
        f"readout {readout_hz_per_mm:.4g} Hz/mm" + (" by the tilted view" if VAT_TILT_DEG in image.metadata else ""),
        "no slice gradient" if np.isinf(slice_hz_per_mm) else f"slices {slice_hz_per_mm:.4g} Hz/mm",
    ]
    if covered_mm:
        rests.append(f"slices put in place up to {covered_mm:g} mm (SEMAC)")
    return MetalShift(
        shift,
        ends_mm,
        void,
        readout_shift,
        slice_shift,
        tuple(assumed),
        2 * readout_void,
        2 * slice_void,
        ", ".join(rests),
        end_void_mm=end_void(float(np.hypot(readout, sliced)), radius),
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


def end_void(displacement_mm: float, radius_mm: float) -> float:
    """How far beyond an end of a rod signal may be stretched to less than half, mm; the shaft need not show it.

    A field along the rod leaves its shaft alone and comes out of its ends. Far from an end, at z, it displaces signal
    by D (a^2 / 2) z / (z^2 + s^2)^(3/2) at s beside the axis, whose steepest slope across is 0.43 D a^2 / z^3; near it,
    above its rim, the slope is that over the edge of a half plane, D / (pi z). Below 1 signal is stretched to no less
    than half.
    """
    return min(displacement_mm / np.pi, float(np.cbrt(0.43 * displacement_mm * radius_mm**2)))


def _end_shift_along(line_mm: npt.NDArray[np.float64], axis: npt.NDArray[np.float64], radius_mm: float) -> float:
    """Most that an end may seem to move along the ``axis`` (3,) when signal is displaced along ``line_mm`` (3,).

    All signal moves along parallel lines, and no line has a void of its own where it meets no metal: what the whole
    displacement does at an end happens along the line, and only the part of that along the axis moves the end.
    """
    length = float(np.linalg.norm(line_mm))
    return abs(float(line_mm @ axis)) / length * end_shift(length, radius_mm) if length > 0 else 0.0


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


def _bin_width(centres: str) -> float | None:
    """Largest step between the centres of spectral bins, Hz, separated by spaces; None when they cannot be read."""
    try:
        sorted_hz = sorted(float(part) for part in centres.split())
    except ValueError:
        return None
    largest = max((b - a for a, b in itertools.pairwise(sorted_hz)), default=0.0)
    return largest if largest > 0 else None


def _positive(text: str | None, otherwise: float | None = None) -> Any:
    """A positive number, infinite allowed; ``otherwise`` when it is none."""
    try:
        value = float(text) if text is not None else float("nan")
    except ValueError:
        return otherwise
    return value if value > 0 else otherwise
