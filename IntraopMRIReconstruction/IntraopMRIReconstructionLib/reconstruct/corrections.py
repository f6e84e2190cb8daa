"""Steps after the reconstruction that a person may ask for, each written into the provenance of the image.

Order: distortion, then gradients, then brightness; each works on what the one before left.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..data import Encoding, Image, Progress, assumed_geometry, no_progress
from ..errors import ReconstructionError
from .bias_field import n4, quick
from .distortion import from_opposed_blips
from .gradient_file import POSITION, read_gradient_coil
from .gradient_nonlinearity import straightened
from .result import Reconstruction, stepping

Bias = Literal["none", "quick", "n4"]

#: Entry of an EPI scan's metadata: which way its phase-encoding blips go; with any other value nobody knows.
BLIPS, OPPOSITE = "blips", {"up": "down", "down": "up"}
#: Grids of an opposed pair agree to this part of a voxel.
SAME_GRID = 0.01


@dataclass(frozen=True, eq=False)
class Corrections:
    """``opposed``: image of the same scan with opposite phase-encoding blips. ``gradients``: coefficient file of the
    gradient coil. ``bias``: evening out of brightness, quick or by N4. None, "none": leave out."""

    opposed: Image | None = None
    gradients: Path | None = None
    bias: Bias = "none"

    def __bool__(self) -> bool:
        """Whether anything is to be done."""
        return self.opposed is not None or self.gradients is not None or self.bias != "none"


def gradients_refused(encoding: Encoding) -> str:
    """Why gradient non-linearity cannot be corrected for a scan; "" when it can.

    Positions are measured from the isocentre by the definition of MRD alone, and tables name their axes for one
    position of the patient.
    """
    if encoding.metadata.get("source") != "MRD":
        return "only MRD files and streams say where the isocentre is"
    if assumed := assumed_geometry(encoding.metadata):
        return f"where the image lies is {assumed}"
    if encoding.metadata.get("patient_position") != POSITION:
        said = encoding.metadata.get("patient_position") or "not stated"
        return f"the axes of the table are known for position {POSITION}, the patient's is {said}"
    return ""


def distortion_refused(encoding: Encoding) -> str:
    """Why blips cannot be opposed for a scan; "" when they can."""
    return "" if encoding.trajectory == "epi" else "only EPI has blips"


def corrected(
    result: Reconstruction, wanted: Corrections, encoding: Encoding, progress: Progress = no_progress
) -> Reconstruction:
    """The reconstruction with the wanted corrections of its image, recorded under "corrections".

    ``progress`` as everywhere: Cancelled as soon as it returns False. Raises ReconstructionError when the scan does
    not allow a correction.
    """
    if not wanted:
        return result
    step = stepping(progress)
    image, done, warnings = result.image, [], list(result.warnings)
    if wanted.opposed is not None:
        refused = distortion_refused(encoding)
        if refused:
            raise ReconstructionError(f"the distortion cannot be corrected: {refused}")
        other = _on_grid_of(image, wanted.opposed)
        found = from_opposed_blips(image.array, other, axis=1, progress=progress)
        image = image.with_array(found.magnitude)
        largest = float(np.abs(found.shift).max()) * float(image.spacing_mm[1])
        done.append(
            f"distortion by opposed blips with '{wanted.opposed.name}' (up to {largest:.1f} mm, difference "
            f"{found.difference_before:.2f} before, {found.difference_after:.2f} after)"
        )
        warnings += found.warnings
    if wanted.gradients is not None:
        step(0.5, "gradient non-linearity")
        refused = gradients_refused(encoding)
        if refused:
            raise ReconstructionError(f"gradient non-linearity cannot be corrected: {refused}")
        coil = read_gradient_coil(wanted.gradients)
        image = straightened(image, coil, np.zeros(3), within_slices=not encoding.is_3d)
        digest = hashlib.sha256(wanted.gradients.read_bytes()).hexdigest()
        done.append(f"gradient non-linearity by '{wanted.gradients.name}' (sha256 {digest[:16]})")
        if not encoding.is_3d:
            warnings.append("slices of a 2D scan are bent themselves: straightened within the slice only")
    if wanted.bias != "none":
        step(0.7, "bias field")
        even = quick(image) if wanted.bias == "quick" else n4(image)
        image = even.image
        low, high = (float(value) for value in np.percentile(even.field, (1, 99)))
        done.append(f"bias field by {'N4' if wanted.bias == 'n4' else 'a quick polynomial'} ({low:.2f} to {high:.2f})")
        if wanted.bias == "quick":
            warnings.append("brightness was evened out quickly: do not measure on it")
    provenance = dict(result.provenance) | {"corrections": "; ".join(done)}
    metadata = dict(result.image.metadata) | {"corrections": provenance["corrections"]}
    image = replace(image, name=result.image.name, metadata=metadata)
    return replace(result, image=image, warnings=tuple(warnings), provenance=provenance)


def _on_grid_of(image: Image, other: Image) -> np.ndarray:
    """``other`` in the voxel order of ``image``; opposed blips may be stored with the phase axis turned round."""
    size = np.array(image.array.shape[2::-1])
    if other.array.shape == image.array.shape:
        corners = np.array([[0, 0, 0], [size[0], 0, 0], [0, size[1], 0], [0, 0, size[2]]])
        ijk = np.linalg.inv(other.ras_from_ijk) @ image.ras_from_ijk @ np.c_[corners, np.ones(4)].T
        if np.allclose(ijk[:3].T, corners, atol=SAME_GRID):
            return np.asarray(other.array)
        turned = corners.copy()
        turned[:, 1] = size[1] - 1 - corners[:, 1]
        if np.allclose(ijk[:3].T, turned, atol=1 + SAME_GRID):
            # About the centre of the Fourier transform, voxel N // 2.
            return np.asarray(np.roll(other.array[:, ::-1], round(float(turned[0, 1] - ijk[1, 0])), axis=1))
    raise ReconstructionError(
        f"'{other.name}' does not lie on the grid of '{image.name}': both scans of opposed blips need the same matrix, "
        "field of view and place"
    )
