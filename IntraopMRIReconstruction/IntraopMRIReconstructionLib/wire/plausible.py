"""What the header of a scan may say, whichever way it came: numbers beyond this are no scan of a person."""

from __future__ import annotations

import numpy as np

from ..data import Encoding
from ..errors import WireError

#: Counters of MRD have 16 bits, and no scanner counts farther.
MAX_COUNT = 1 << 16
#: A scanner is not longer, and a field of view in micrometres is beyond.
MAX_LENGTH_MM = 10_000.0
#: Voxels of a person are larger, and those of a field of view in metres are not.
MIN_VOXEL_MM = 0.01
#: Part of the encoded field of view that a picture shows at least; less, and two axes have changed places.
MIN_SHOWN = 1 / 16
#: The grid and the field of view name the same voxel to this part: headers round to four digits.
VOXEL_TOLERANCE = 0.01
#: Cosine between two axes of a grid: gradients are at right angles.
SKEW_TOLERANCE = 1e-3


def refuse_implausible(encoding: Encoding) -> None:
    """Raise WireError for sizes no scan has, and for a grid that contradicts the field of view."""
    counts = {
        "coils": encoding.coils,
        "contrasts": encoding.contrasts,
        "repetitions": encoding.repetitions,
        "averages": encoding.averages,
        "the encoded matrix": max(encoding.encoded_matrix),
        "the recon matrix": max(encoding.recon_matrix),
        "acceleration": max(encoding.acceleration),
    }
    for name, count in counts.items():
        if not 1 <= count <= MAX_COUNT:
            raise WireError(f"{name} must be 1 to {MAX_COUNT}, got {count}: check the header")
    if len(encoding.calibration_lines) != 2 or not 0 <= min(encoding.calibration_lines) <= MAX_COUNT:
        raise WireError(f"calibration_lines must be two numbers (z, y) from 0, got {encoding.calibration_lines}")
    for encoded_mm, recon_mm, recon, axis in zip(
        encoding.encoded_fov_mm, encoding.recon_fov_mm, encoding.recon_matrix, "zyx", strict=True
    ):
        if max(encoded_mm, recon_mm) > MAX_LENGTH_MM or recon_mm / recon < MIN_VOXEL_MM:
            raise WireError(
                f"a field of view along {axis} of {encoded_mm:g} mm, shown over {recon_mm:g} mm in {recon} voxels, is "
                "none of a person: check the units in the header"
            )
        if recon_mm < MIN_SHOWN * encoded_mm and (axis != "z" or encoding.is_3d):
            raise WireError(
                f"the image shows {recon_mm:g} mm of {encoded_mm:g} mm along {axis}: check the field of view and the "
                "order of the axes in the header"
            )
    _refuse_grid(encoding)


def _refuse_grid(encoding: Encoding) -> None:
    matrix = encoding.ras_from_ijk
    if float(np.abs(matrix[:3, 3]).max()) > MAX_LENGTH_MM:
        raise WireError(f"the image lies at {matrix[:3, 3].tolist()} mm, which is in no scanner: check its position")
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    cosines = np.abs((matrix[:3, :3] / spacing).T @ (matrix[:3, :3] / spacing) - np.eye(3))
    if float(cosines.max()) > SKEW_TOLERANCE:
        raise WireError(f"the axes of ras_from_ijk must be at right angles, got {matrix[:3, :3].tolist()}")
    stated = np.divide(encoding.recon_fov_mm, encoding.recon_matrix)[::-1]
    # Slices may have gaps between them.
    axes = 3 if encoding.is_3d else 2
    if float(np.abs(spacing / stated - 1)[:axes].max()) > VOXEL_TOLERANCE:
        raise WireError(
            f"ras_from_ijk has voxels of {np.round(spacing, 4).tolist()} mm (i, j, k), the field of view and matrix of "
            f"the image {np.round(stated, 4).tolist()} mm: one of them is wrong"
        )
