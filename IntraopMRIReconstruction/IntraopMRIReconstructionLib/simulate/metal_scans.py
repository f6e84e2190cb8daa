"""Raw data of slices beside metal: signal far off resonance, with a tilted view (VAT) and slice encoding (SEMAC).

A few round parts of the head are off resonance by a number of their own. Each is excited where the slice gradient
makes up for that, and read where the readout gradient puts it: all in closed form, see :mod:`.analytic`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..data import Acquisition
from ..errors import DataError
from ..geometry import corner_from_fourier_centre
from .analytic import HEAD_2D, Ellipsoid, grid_points_mm, kspace_at, object_at
from .raw_scans import FIELD_MM, Plane, RawScan, Truth

SLICE_MM = 4.0
#: Gradients while a slice is excited and while it is read, Hz per mm.
SLICE_HZ_PER_MM, READOUT_HZ_PER_MM = 250.0, 500.0


@dataclass(frozen=True)
class Insert:
    """A disc in the even part of the brain: ``centre_mm`` (x, y), ``z_mm`` from and to, brightness, frequency."""

    centre_mm: tuple[float, float]
    radius_mm: float
    z_mm: tuple[float, float]
    value: float
    hz: float


INSERTS = (
    Insert((0.0, -60.0), 13.0, (-6.0, 6.0), 1.3, 1500.0),
    Insert((48.0, 30.0), 11.0, (-10.0, 2.0), 1.1, -2500.0),
)
#: Brightness of the brain where the discs are.
AROUND = 0.55


def metal_scan(
    matrix: int = 64,
    coils: int = 4,
    slices: int = 8,
    steps: int = 8,
    tilted: bool = True,
    noise: float = 0.002,
    inserts: tuple[Insert, ...] = INSERTS,
    acceleration: int = 1,
) -> RawScan:
    """Slices ``SLICE_MM`` apart. ``steps``: of slice encoding over as many slices, 1 for none. ``tilted``: whether the
    view is, by the angle that undoes the shift along the readout. Truth: brightness and frequency of each slice."""
    if slices < 1 or steps < 1:
        raise DataError(f"a scan beside metal needs a slice and a step of encoding, got {slices} and {steps}")
    plane = Plane(matrix, coils, noise, 7)
    tangent = SLICE_HZ_PER_MM / READOUT_HZ_PER_MM if tilted else 0.0
    metadata = {
        "slice_thickness_mm": f"{SLICE_MM:g}",
        "rf_bandwidth_hz": f"{SLICE_HZ_PER_MM * SLICE_MM:g}",
    }
    if steps > 1:
        metadata["semac_fov_mm"] = f"{steps * SLICE_MM:g}"
    if tilted:
        metadata["vat_tilt_deg"] = f"{np.rad2deg(np.arctan(tangent)):.6f}"
    voxel = FIELD_MM / matrix
    flat = plane.encoding("Beside metal", "cartesian", metadata=metadata)
    encoding = replace(
        flat,
        encoded_matrix=(slices, matrix, matrix),
        recon_matrix=(slices, matrix, matrix),
        encoded_fov_mm=(slices * SLICE_MM, FIELD_MM, FIELD_MM),
        recon_fov_mm=(slices * SLICE_MM, FIELD_MM, FIELD_MM),
        ras_from_ijk=corner_from_fourier_centre(
            np.diag([-voxel, -voxel, SLICE_MM]), (0.0, 0.0, 0.0), (matrix, matrix, slices)
        ),
        contrasts=steps,
        acceleration=(1, acceleration),
        calibration_lines=(0, 16) if acceleration > 1 else (0, 0),
        dwell_time_s=1 / (READOUT_HZ_PER_MM * FIELD_MM),
    )
    lines = _lines(matrix, acceleration)
    k = (np.arange(matrix) - matrix // 2) / FIELD_MM
    points = np.stack(np.broadcast_arrays(k[None, :], k[lines][:, None]), axis=-1)
    # Discs leave a hole in the head where they are, and lie off resonance in it.
    parts = [(HEAD_2D, (-np.inf, np.inf), 0.0)]
    for insert in inserts:
        disc = (insert.centre_mm, (insert.radius_mm, insert.radius_mm))
        parts.append(((Ellipsoid(*disc, -AROUND),), insert.z_mm, 0.0))
        parts.append(((Ellipsoid(*disc, insert.value),), insert.z_mm, insert.hz))
    seen = [(kspace_at(points, shape, plane.coils) * (matrix / FIELD_MM**2), z_mm, hz) for shape, z_mm, hz in parts]
    blocks = []
    for step in range(steps):
        kz = (step - steps // 2) / (steps * SLICE_MM)
        for number in range(slices):
            middle = (number - slices // 2) * SLICE_MM
            clean = sum(signal * _slice(k, kz, tangent, middle, z_mm, hz) for signal, z_mm, hz in seen)
            blocks.append(
                Acquisition(
                    encoding.scan_id,
                    plane.noisy(np.moveaxis(np.asarray(clean), 0, 1)),
                    lines.astype(np.int32),
                    np.full(len(lines), number, np.int32),
                    contrast=step,
                    last=(step, number) == (steps - 1, slices - 1),
                )
            )
    return RawScan(encoding, tuple(blocks), _truth(matrix, slices, inserts))


def _lines(matrix: int, acceleration: int) -> npt.NDArray[np.int_]:
    """Every ``acceleration``-th line, and all of the 16 in the middle that calibrate."""
    number = np.arange(matrix)
    return np.flatnonzero((number % acceleration == 0) | (np.abs(number - matrix // 2 + 0.5) < 8))


def _slice(
    k: npt.NDArray[np.float64], kz: float, tangent: float, middle_mm: float, z_mm: tuple[float, float], hz: float
) -> npt.NDArray[np.complex128]:
    """Factor of each sample of a readout for what is excited of z_mm: moved along the readout, seen from aside."""
    excited = middle_mm - hz / SLICE_HZ_PER_MM
    low, high = max(z_mm[0], excited - SLICE_MM / 2), min(z_mm[1], excited + SLICE_MM / 2)
    if low >= high:
        return np.zeros(len(k), np.complex128)
    cycles = k * tangent + kz
    wave = np.exp(-2j * np.pi * (cycles * ((low + high) / 2 - middle_mm) + k * hz / READOUT_HZ_PER_MM))
    return np.asarray(np.sinc(cycles * (high - low)) * ((high - low) / SLICE_MM) * wave)


def _truth(matrix: int, slices: int, inserts: tuple[Insert, ...]) -> Truth:
    points = grid_points_mm((matrix, matrix), (FIELD_MM, FIELD_MM))
    picture = np.repeat(np.abs(object_at(points, HEAD_2D))[None], slices, axis=0)
    hz = np.zeros(picture.shape)
    middle = (np.arange(slices) - slices // 2) * SLICE_MM
    for insert in inserts:
        inside = np.hypot(*np.moveaxis(points - insert.centre_mm, -1, 0)) <= insert.radius_mm
        within = (middle >= insert.z_mm[0]) & (middle < insert.z_mm[1])
        place = within[:, None, None] & inside
        picture[place], hz[place] = insert.value, insert.hz
    return Truth(picture=picture, hz=hz)
