"""Plan, targets and structures at risk carried over to the intraoperative image, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, resample_matrix
from scipy import ndimage

from .deformable import DeformableRegistration
from .deformable_verdict import CHECK_UNCERTAINTY_MM, REFUSED_UNCERTAINTY_MM
from .rigid import RigidRegistration
from .sampling import resampled

#: A rigid pose says nothing of brain shift: inside the brain this much is added to its uncertainty, mm.
UNKNOWN_SHIFT_MM = 10.0
#: Parts (%) of a thing outside the brain, where nothing was matched and bone does not follow, and in the cavity, where
#: tissue is gone: more than the first is said, more than half and the thing is not offered.
CHECK_OUTSIDE, CHECK_GONE, REFUSED_PART = 5.0, 1.0, 50.0
#: A straight instrument cannot follow a path that the brain shift has bent by more than this, mm.
CHECK_BEND_MM = 1.0
#: Points of one thing that are looked up; the displacement is smooth on a scale of many voxels.
MOST_POINTS = 20_000
#: Slices of a volume that are carried over at once.
SLAB = 8

Kind = Literal["target", "plan", "risk", "landmark"]


@dataclass(frozen=True, eq=False)
class Carried:
    """One planned thing carried over. ``before_mm`` (n, 3) preoperative RAS; ``rigid_mm`` where the rigid pose puts it
    and ``now_mm`` where the brain shift has brought it, both (n, 3) intraoperative RAS.

    ``mean_shift_mm``, ``shift_mm``: how far beyond the rigid pose it moved, mean and largest of its points.
    ``uncertainty_mm``: 95 % radius, largest of its points. ``verdict``: refused means that it is not offered.
    ``accepted``: None until a person (``decided_by``, at ``decided_utc``, ISO 8601) has decided; only then it moves.
    """

    kind: Kind
    name: str
    before_mm: npt.NDArray[np.float64]
    rigid_mm: npt.NDArray[np.float64]
    now_mm: npt.NDArray[np.float64]
    mean_shift_mm: float
    shift_mm: float
    uncertainty_mm: float
    method: str
    verdict: Verdict
    accepted: bool | None = None
    decided_by: str = ""
    decided_utc: str = ""

    @property
    def key(self) -> str:
        """Names the thing among all planned ones."""
        return f"{self.kind}.{self.name}"

    @property
    def offered(self) -> bool:
        """Whether there is anything to accept."""
        return self.verdict.level is not Level.REFUSED

    @property
    def undecided(self) -> bool:
        """Whether it is offered and nobody has decided."""
        return self.offered and self.accepted is None

    @property
    def position_mm(self) -> npt.NDArray[np.float64]:
        """The points (n, 3) that may be used: carried over only when a person has accepted it."""
        return self.now_mm if self.accepted else self.rigid_mm

    @property
    def basis(self) -> str:
        """What that position rests on, in words for a person."""
        if self.accepted:
            return f"carried over, accepted by {self.decided_by} at {self.decided_utc[11:16]} UTC"
        return "rigid pose"

    def decided(self, accepted: bool, by: str, utc: str) -> Carried:
        """The same with a person's decision. Raises RegistrationError for what was not offered, or without a name."""
        if accepted and not self.offered:
            raise RegistrationError(f"'{self.name}' cannot be carried over: {self.verdict.text}; it stays where it is")
        if not by.strip():
            raise RegistrationError(f"'{self.name}' needs the name of the person who decides: enter it first")
        return replace(self, accepted=accepted, decided_by=by.strip(), decided_utc=utc)


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

    def item(self, kind: Kind, name: str, points: npt.ArrayLike) -> Carried:
        """One thing, by its point (3,) or points (n, 3), preoperative RAS mm; those of a ``plan`` follow its path."""
        before = np.atleast_2d(np.asarray(points, dtype=np.float64))
        if before.ndim != 2 or before.shape[1] != 3 or not len(before) or not np.isfinite(before).all():
            raise RegistrationError(f"'{name}' must be finite points of shape (n, 3) in mm, got shape {before.shape}")
        before = before[:: -(-len(before) // MOST_POINTS)]
        rigid = apply(self._pose, before)
        found = self._deformable
        if found is None:
            unknown = Reason("brain shift", UNKNOWN_SHIFT_MM, "mm", "followed", Level.REFUSED)
            unmoved = (before, rigid, rigid, 0.0, 0.0, UNKNOWN_SHIFT_MM)
            return Carried(kind, name, *unmoved, self.method, Verdict((unknown,)))
        now = found.intraop_from_preop_points(before)
        moved = np.linalg.norm(now - rigid, axis=1)
        radius = float(uncertainty_at(found.uncertainty, now).max())
        verdict = _verdict(found, now, radius, straight=kind == "plan")
        sizes = (float(moved.mean()), float(moved.max()), radius)
        return Carried(kind, name, before, rigid, now, *sizes, self.method, verdict)

    def volume(self, image: Image, like: Image, *, label: bool = False) -> Image:
        """``image`` of the preoperative frame on the grid of the intraoperative ``like``; labels stay labels."""
        if self._deformable is None:
            index = resample_matrix(like.ras_from_ijk, image.ras_from_ijk, invert(self._pose))
            array = image.array if label else image.array.astype(np.float32)
            moved = resampled(np.ascontiguousarray(array), like.array.shape[:3], index, 0 if label else 1)
            return like.with_array(moved, name=image.name)
        result = np.zeros(like.array.shape[:3], image.array.dtype if label else np.float32)
        # Slab by slab: the points of a whole volume would take gigabytes.
        for first in range(0, len(result), SLAB):
            slab = result[first : first + SLAB]
            k, j, i = np.indices(slab.shape)
            points = apply(like.ras_from_ijk, np.stack([i, j, k + first], axis=-1).reshape(-1, 3).astype(float))
            ijk = apply(invert(image.ras_from_ijk), self._deformable.preop_from_intraop(points))
            values = ndimage.map_coordinates(
                image.array,
                ijk[:, ::-1].T,
                order=0 if label else 1,
                mode="constant",
                prefilter=False,
                output=result.dtype,
            )
            slab[...] = values.reshape(slab.shape)
        return like.with_array(result, name=image.name)


def _verdict(found: DeformableRegistration, now: npt.NDArray[np.float64], radius_mm: float, straight: bool) -> Verdict:
    """Whether one thing may be carried over, from the registration as a whole and from where the thing lies."""
    against = sum(reason.level is not Level.GOOD for reason in found.verdict.reasons)
    outside = 100.0 * float((_values(found.brain, now, order=0) == 0).mean())
    gone = 100.0 * float((_values(found.cavity, now, order=0) != 0).mean())
    reasons = [
        Reason("signs against the registration", float(against), "", "0", found.verdict.level),
        _reason("uncertainty", radius_mm, "mm", CHECK_UNCERTAINTY_MM, REFUSED_UNCERTAINTY_MM),
        _reason("outside the brain", outside, "%", CHECK_OUTSIDE, REFUSED_PART),
        _reason("in the cavity", gone, "%", CHECK_GONE, REFUSED_PART),
    ]
    if straight:
        along = np.linspace(0.0, 1.0, len(now))[:, None]
        bend = float(np.linalg.norm(now - (now[0] + along * (now[-1] - now[0])), axis=1).max())
        reasons.append(_reason("bend of the path", bend, "mm", CHECK_BEND_MM, np.inf))
    return Verdict(tuple(reasons))


def _reason(name: str, value: float, unit: str, check_above: float, refused_above: float) -> Reason:
    level = Level.REFUSED if value > refused_above else Level.CHECK if value > check_above else Level.GOOD
    return Reason(name, value, unit, f"at most {check_above:g} {unit}", level)


@dataclass(frozen=True)
class LocalShift:
    """What is known of the brain shift at one place: how far the tissue there has come, and the 95 % radius, mm."""

    shift_mm: float
    uncertainty_mm: float


def local_shift(registration: DeformableRegistration, point_ras: npt.ArrayLike) -> LocalShift | str:
    """Brain shift at an intraoperative RAS point (3,), mm; outside the brain and in the cavity that, in words."""
    point = np.asarray(point_ras, dtype=np.float64).reshape(1, 3)
    if _values(registration.cavity, point, order=0)[0]:
        return "in the cavity"
    if not _values(registration.brain, point, order=0)[0]:
        return "outside the brain"
    vector = _values(registration.shift, point)[0]
    return LocalShift(float(np.linalg.norm(vector)), float(uncertainty_at(registration.uncertainty, point)[0]))


def shown_shift(registration: DeformableRegistration) -> Image:
    """Brain shift (k, j, i) in mm for a colour map; negative outside the brain and in the cavity: not known there."""
    return _known(registration, registration.magnitude().array, "Brain shift (mm)")


def shown_uncertainty(registration: DeformableRegistration) -> Image:
    """95 % radius (k, j, i) in mm for a colour map; negative where it is not known."""
    return _known(registration, registration.uncertainty.array, "Uncertainty 95 % (mm)")


def shown_distance(distance: Image, registration: DeformableRegistration) -> Image:
    """Any distance (k, j, i) in mm on the registration's grid for a colour map; negative where nothing is known."""
    return _known(registration, distance.array, distance.name)


def shown_arrows(registration: DeformableRegistration) -> Image:
    """Displacements (k, j, i, 3), RAS mm, from where the rigid pose puts tissue to where it is now; zero elsewhere."""
    inverse = registration.inverse_shift
    k, j, i = np.indices(inverse.array.shape[:3])
    places = apply(inverse.ras_from_ijk, np.stack([i, j, k], axis=-1).reshape(-1, 3).astype(float))
    now = places + inverse.array.reshape(-1, 3)
    known = (_values(registration.brain, now, order=0) != 0) & (_values(registration.cavity, now, order=0) == 0)
    return inverse.with_array(inverse.array * known.reshape(*inverse.array.shape[:3], 1), "Brain shift arrows")


def _known(registration: DeformableRegistration, values: npt.NDArray[np.floating], name: str) -> Image:
    known = (registration.brain.array != 0) & (registration.cavity.array == 0)
    return registration.shift.with_array(np.where(known, values, -1.0).astype(np.float32), name)


def _values(image: Image, points_ras: npt.NDArray[np.float64], order: int = 1) -> npt.NDArray[np.float64]:
    """Values (n,) or (n, c) at RAS points (n, 3); order 0 counts nothing beyond the border, order 1 its edge value."""
    ijk = apply(invert(image.ras_from_ijk), points_ras)
    mode = "nearest" if order else "constant"
    parts = np.moveaxis(image.array, -1, 0) if image.array.ndim == 4 else (image.array,)
    found = [
        ndimage.map_coordinates(part, ijk[:, ::-1].T, order=order, mode=mode, prefilter=False, output=np.float64)
        for part in parts
    ]
    return np.stack(found, axis=1) if image.array.ndim == 4 else np.asarray(found[0])


def uncertainty_at(uncertainty: Image, points_ras: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """95 % radius (n,) in mm at intraoperative RAS points (n, 3), for the pointer; its edge value beyond the map."""
    return _values(uncertainty, np.atleast_2d(np.asarray(points_ras, dtype=np.float64)))


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
