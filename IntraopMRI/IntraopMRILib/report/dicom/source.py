"""Where a volume that came as DICOM is kept already: the instance and the place of each of its slices.

It travels as text in the metadata of an image, and is believed only as far as the image itself bears it out: the same
grid and the same voxels are the original; the same lattice is the same frame of reference; anything else is neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import AnyArray, Image, Matrix
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS, invert

#: Keys of an image's metadata: the source as text, or in words why it is not known.
SOURCE, UNKNOWN = "DicomSource", "DicomSourceUnknown"
#: Corners of two grids may be apart by so much, mm: positions in headers are rounded, voxels are ten times as large.
SAME_PLACE_MM = 0.02


@dataclass(frozen=True)
class Source:
    """One series. ``instances``: SOP instance UID of each slice along k; ``frames``: number of the frame in it, from 1,
    empty where each is an instance of its own. ``lps_from_ijk``: rows of a (4, 4) matrix, mm; ``size_ijk``: voxels;
    ``voxels``: what :func:`digest` makes of them.
    """

    study_uid: str
    series_uid: str
    frame_uid: str
    sop_class: str
    modality: str
    instances: tuple[str, ...]
    frames: tuple[int, ...]
    lps_from_ijk: tuple[tuple[float, ...], ...]
    size_ijk: tuple[int, int, int]
    voxels: str

    @property
    def text(self) -> str:
        """For the metadata of an image; :func:`source_of` reads it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def matrix(self) -> Matrix:
        """``lps_from_ijk``, (4, 4)."""
        return np.array(self.lps_from_ijk, dtype=np.float64)

    def order(self, image: Image) -> int:
        """1 when the image has this very grid, -1 with slices in reverse order, 0 when it has another one."""
        if image.array.shape != self.size_ijk[::-1]:
            return 0
        lps_from_ijk = RAS_FROM_LPS @ image.ras_from_ijk
        backwards = np.diag([1.0, 1.0, -1.0, 1.0])
        backwards[2, 3] = self.size_ijk[2] - 1
        if _apart_mm(lps_from_ijk, self.matrix, self.size_ijk) <= SAME_PLACE_MM:
            return 1
        return -1 if _apart_mm(lps_from_ijk, self.matrix @ backwards, self.size_ijk) <= SAME_PLACE_MM else 0

    def difference(self, image: Image) -> str:
        """Why the image is not this series, in words; empty when it is, voxel by voxel."""
        order = self.order(image)
        if not order:
            return "it lies on another grid than the series that it came as (cropped, resampled or moved)"
        if digest(image.array[::order]) != self.voxels:
            return "its voxels are no longer those of the series that it came as"
        return ""

    def holds_frame(self, image: Image) -> bool:
        """Whether the image is on the lattice of the series and within it: cut, but neither moved nor turned."""
        source_from_image = invert(self.matrix) @ RAS_FROM_LPS @ image.ras_from_ijk
        nearest = np.rint(source_from_image)
        size = np.array(image.array.shape[2::-1]) - 1
        ends = np.stack([nearest[:3, 3], nearest[:3, :3] @ size + nearest[:3, 3]])
        inside = (ends >= 0).all() and (ends < self.size_ijk).all()
        # No motion turns only the order of slices, so that may differ.
        kept = any(np.array_equal(nearest[:3, :3], np.diag([1.0, 1.0, step])) for step in (1.0, -1.0))
        return bool(inside and kept) and _apart_mm(self.matrix @ source_from_image, self.matrix @ nearest, size) <= (
            SAME_PLACE_MM
        )


def source_of(metadata: Mapping[str, str]) -> Source | None:
    """The source that the metadata of an image name; None when they name none, or it cannot be read."""
    try:
        told: dict[str, Any] = json.loads(metadata[SOURCE])
        for name in ("instances", "frames", "size_ijk"):
            told[name] = tuple(told[name])
        told["lps_from_ijk"] = tuple(tuple(map(float, row)) for row in told["lps_from_ijk"])
        return Source(**told)
    except (KeyError, TypeError, ValueError):
        return None


def digest(array: AnyArray) -> str:
    """SHA-256 of voxels (k, j, i) as 32-bit floats: the same for every program that has read the same slices."""
    result = sha256()
    for plane in array:
        result.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return result.hexdigest()


def _apart_mm(first: Matrix, second: Matrix, size_ijk: Sequence[int] | npt.NDArray[Any]) -> float:
    """Largest distance between the corners of one grid by two matrices."""
    corners = np.array(np.meshgrid(*([0.0, float(n)] for n in size_ijk), indexing="ij")).reshape(3, -1)
    there = (first - second) @ np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(there[:3], axis=0).max())
