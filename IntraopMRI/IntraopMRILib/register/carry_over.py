"""Plan, targets and structures at risk carried over to the intraoperative image, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Measurement
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, resample_matrix
from scipy import ndimage

from .deformable import DeformableRegistration, vectors_at
from .rigid import RigidRegistration
from .sampling import resampled

#: A rigid pose says nothing of brain shift: inside the brain this much is added to its uncertainty, mm.
UNKNOWN_SHIFT_MM = 10.0


@dataclass(frozen=True, eq=False)
class Carried:
    """One thing carried over. ``before_mm`` (n, 3) preoperative RAS, ``now_mm`` (n, 3) intraoperative RAS.

    ``shift_mm``: how far beyond the rigid pose it moved, largest of its points. ``uncertainty_mm``: 95 % radius,
    largest of its points. ``accepted``: None until a person has decided.
    """

    name: str
    before_mm: npt.NDArray[np.float64]
    now_mm: npt.NDArray[np.float64]
    shift_mm: float
    uncertainty_mm: float
    method: str
    accepted: bool | None = None

    def decided(self, accepted: bool) -> Carried:
        """The same with a person's decision."""
        return replace(self, accepted=accepted)


class CarryOver:
    """Moves things by the best registration that may be used.

    A refused deformable registration falls back to the rigid pose, and ``method`` says so. Raises RegistrationError
    when the rigid pose itself is refused: nothing may be shown then.
    """

    def __init__(self, rigid: RigidRegistration, deformable: DeformableRegistration | None = None) -> None:
        if rigid.verdict.level is Level.REFUSED:
            raise RegistrationError(f"the rigid registration was {rigid.verdict.text}: nothing may be carried over")
        self._pose = rigid.intraop_from_preop
        self._deformable = deformable
        self.method = "deformable"
        if deformable is None:
            self.method = "rigid"
        elif deformable.verdict.level is Level.REFUSED:
            self._deformable = None
            self.method = f"rigid (deformable {deformable.verdict.text})"

    def points(self, points: Mapping[str, npt.ArrayLike]) -> tuple[Carried, ...]:
        """Each named point (3,) or set of points (n, 3), preoperative RAS mm."""
        return tuple(self._carried(name, value) for name, value in points.items())

    def _carried(self, name: str, value: npt.ArrayLike) -> Carried:
        before = np.atleast_2d(np.asarray(value, dtype=np.float64))
        if before.ndim != 2 or before.shape[1] != 3 or not np.isfinite(before).all():
            raise RegistrationError(f"'{name}' must be finite points of shape (n, 3) in mm, got shape {before.shape}")
        expected = apply(self._pose, before)
        if self._deformable is None:
            return Carried(name, before, expected, 0.0, UNKNOWN_SHIFT_MM, self.method)
        now = self._deformable.intraop_from_preop_points(before)
        radius = uncertainty_at(self._deformable.uncertainty, now)
        shift = float(np.linalg.norm(now - expected, axis=1).max())
        return Carried(name, before, now, shift, float(radius.max()), self.method)

    def volume(self, image: Image, like: Image, *, label: bool = False) -> Image:
        """``image`` of the preoperative frame on the grid of the intraoperative ``like``; labels stay labels."""
        if self._deformable is None:
            index = resample_matrix(like.ras_from_ijk, image.ras_from_ijk, invert(self._pose))
            array = image.array if label else image.array.astype(np.float32)
            moved = resampled(np.ascontiguousarray(array), like.array.shape[:3], index, 0 if label else 1)
            return like.with_array(moved, name=image.name)
        k, j, i = np.indices(like.array.shape[:3])
        points = apply(like.ras_from_ijk, np.stack([i, j, k], axis=-1).reshape(-1, 3).astype(float))
        ijk = apply(invert(image.ras_from_ijk), self._deformable.preop_from_intraop(points))
        values = ndimage.map_coordinates(
            image.array,
            ijk[:, ::-1].T,
            order=0 if label else 1,
            mode="constant",
            prefilter=False,
            output=image.array.dtype if label else np.float32,
        )
        return like.with_array(values.reshape(like.array.shape[:3]), name=image.name)


def uncertainty_at(uncertainty: Image, points_ras: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """95 % radius (n,) in mm at intraoperative RAS points (n, 3), for the pointer; its edge value beyond the map."""
    as_vectors = Image(uncertainty.array[..., None], uncertainty.ras_from_ijk)
    return vectors_at(as_vectors, np.atleast_2d(np.asarray(points_ras, dtype=np.float64)))[:, 0]


def shift_at(registration: DeformableRegistration, label: Image) -> tuple[Measurement, float]:
    """How far the tissue of a preoperative label has moved, and the median 95 % radius of its place now (mm).

    The displacement is that beyond the rigid pose: median over the voxels of ``label``, interval 5th to
    95th percentile.
    Raises DataError for an empty label.
    """
    index = np.argwhere(np.asarray(label.array) > 0)
    if not len(index):
        raise DataError(f"the label '{label.name}' is empty: there is nothing to measure the brain shift at")
    before = apply(label.ras_from_ijk, index[:, ::-1])
    now = registration.intraop_from_preop_points(before)
    moved = np.linalg.norm(now - apply(registration.intraop_from_preop, before), axis=1)
    low, middle, high = np.percentile(moved, (5, 50, 95))
    measurement = Measurement(
        "Brain shift at the tumour",
        float(middle),
        "mm",
        "Displacement beyond the rigid pose: median over the preoperative tumour; interval 5th to 95th percentile",
        interval=(float(low), float(high)),
        based_on=(registration.fixed_uid, registration.moving_uid),
    )
    return measurement, float(np.median(uncertainty_at(registration.uncertainty, now)))
