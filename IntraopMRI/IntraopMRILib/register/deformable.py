"""Deformable registration of a preoperative volume to an intraoperative one, with tissue that is gone.

Coarse to fine on a cubic B-spline lattice (see :mod:`.matching`). A coarse pass that ignores the preoperative tumour
carries the preoperative image over; what is dark now and was tissue then is the cavity; the second pass fits with the
cavity and its rim masked, so that nothing is dragged into the hole. That better fit shows the cavity again, sharper,
and the blood on its wall; last, the cavity's surroundings alone are fitted at twice the resolution.

What was found in an earlier scan of the same position may take the place of both passes: cavity, wall, last steps,
uncertainty and verdict are those of the new scan all the same, and a start that does not hold there is dropped.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import FILLED, Image, Level, Matrix, Progress, Verdict, checked_rigid, no_progress
from IntraopMRIReconstructionLib.errors import DataError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage

from .deformable_verdict import LIKENESS_MM, Findings, deformable_verdict
from .deformable_work import LEVELS, MASK_MM, STIFFNESS, Work
from .lattice import Lattice
from .matching import LevelFit
from .rigid import RigidRegistration
from .sampling import BoolArray, Float32Array
from .uncertainty import distance_mm, uncertainty_mm

#: Levels of the first pass, before the cavity is known.
FIRST_PASS = 2
#: Steps of the last level again, with the cavity and its wall as the second pass shows them.
STEPS_AGAIN = 3
#: The last steps move a sound start by less than this, mm, in all of the brain but one hundredth; a longer way is not
#: gone to its end in so few, and the start is of a brain that lay otherwise.
LARGEST_CHANGE_MM, ALL_BUT = 1.0, 0.99


@dataclass(frozen=True, eq=False)
class Fit:
    """What another scan of the same position and grid can begin from. ``frame``: brain, around which the nodes lie;
    ``shape``, ``ras_from_ijk``: grid of the intraoperative image. ``filled`` (k, j, i), on that of the masks: clot or
    packing that was seen. Without agent it shows; with agent a rim that is left looks the same.
    """

    coefficients: Float32Array
    lattice: Lattice
    frame: Image
    shape: tuple[int, ...]
    ras_from_ijk: Matrix
    filled: BoolArray

    def suits(self, fixed: Image) -> bool:
        """Whether the nodes lie in ``fixed`` where they lay in the scan that this was found in."""
        return self.shape == fixed.array.shape and np.allclose(self.ras_from_ijk, fixed.ras_from_ijk, atol=1e-4)


@dataclass(frozen=True, eq=False)
class DeformableRegistration:
    """Displacements on a grid of the intraoperative image, both directions, beyond the rigid pose.

    ``shift``: Image (k, j, i, 3), RAS mm in the intraoperative frame. A point y of the intraoperative image shows the
    tissue that the rigid pose alone would have put at y + shift(y): the preoperative point is
    preop_from_intraop (y + shift(y)). ``inverse_shift``: from there back: tissue expected at z is now at
    z + inverse_shift(z). ``cavity``, ``brain``: uint8 Images on the same grid; in the cavity 1 is fluid
    or air, 2 clot or packing, whose border is not seen. ``fit``: see :class:`Fit`.
    ``begun_from``: uid of the earlier scan that it was begun from, empty when from nothing.
    """

    intraop_from_preop: Matrix
    shift: Image
    inverse_shift: Image
    cavity: Image
    brain: Image
    uncertainty: Image
    verdict: Verdict
    remapped: bool
    seconds: float
    fixed_uid: str = ""
    moving_uid: str = ""
    fit: Fit | None = None
    begun_from: str = ""

    def preop_from_intraop(self, points_ras: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Preoperative RAS (n, 3) of what the intraoperative image shows at ``points_ras`` (n, 3), mm."""
        points = np.atleast_2d(np.asarray(points_ras, dtype=np.float64))
        return apply(invert(self.intraop_from_preop), points + vectors_at(self.shift, points))

    def intraop_from_preop_points(self, points_ras: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Where the tissue at the preoperative ``points_ras`` (n, 3) is now, intraoperative RAS mm."""
        expected = apply(self.intraop_from_preop, np.atleast_2d(np.asarray(points_ras, dtype=np.float64)))
        return np.asarray(expected + vectors_at(self.inverse_shift, expected))

    def magnitude(self) -> Image:
        """Brain shift in mm, (k, j, i) on the grid of ``shift``: how far the tissue seen at each voxel has come."""
        return self.shift.with_array(np.linalg.norm(self.shift.array, axis=-1), name="brain shift (mm)")


def vectors_at(field: Image, points_ras: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Trilinear values (n, c) of a (k, j, i, c) image at RAS points (n, 3); beyond the border its nearest value."""
    ijk = apply(invert(field.ras_from_ijk), points_ras)
    return np.stack(
        [
            ndimage.map_coordinates(field.array[..., c], ijk[:, ::-1].T, order=1, mode="nearest", prefilter=False)
            for c in range(field.array.shape[3])
        ],
        axis=1,
    ).astype(np.float64)


def register_deformable(
    fixed: Image,
    moving: Image,
    rigid: RigidRegistration | npt.ArrayLike,
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    tumour: Image | None = None,
    cavity: Image | None = None,
    finest_mm: float = 2.0,
    start: DeformableRegistration | None = None,
    progress: Progress = no_progress,
    threads: int = 2,
) -> DeformableRegistration:
    """Find where the tissue of the preoperative image ``moving`` is in the intraoperative image ``fixed``.

    ``rigid``: the pose to start from. ``fixed_mask`` / ``moving_mask``: brain in either image, made when None.
    ``tumour``: preoperative tumour, not trusted in the coarse pass. ``cavity``: resection cavity in the
    intraoperative image, found when None. ``finest_mm``: 2 for seconds (with 1 around the cavity), 1 for
    the last tenths of a millimetre everywhere. ``start``: of the same ``moving`` to an earlier scan in which the
    patient lay in the same position; dropped when its grid is another one or when it does not hold in ``fixed``.
    Raises DataError for images or masks that cannot be used, RegistrationError when no brain is found, Cancelled.
    """
    began_s = time.perf_counter()
    pose = checked_rigid(rigid.intraop_from_preop if isinstance(rigid, RigidRegistration) else rigid, "rigid")
    if finest_mm not in (1.0, 2.0, 4.0):
        raise DataError(f"finest_mm must be 1, 2 or 4, got {finest_mm}")
    levels = [level for level in LEVELS if level[0] >= finest_mm]

    def found(begin: Fit | None) -> tuple[DeformableRegistration, float]:
        frame = None if begin is None else begin.frame
        work = Work(fixed, moving, pose, fixed_mask, moving_mask, tumour, progress, threads, frame)
        return _found(work, fixed, moving, pose, levels, tumour, cavity, begin, threads)

    fit = None if start is None else start.fit
    if start is not None and fit is not None and start.moving_uid == moving.uid and fit.suits(fixed):
        with contextlib.suppress(RegistrationError):
            result, change_mm = found(fit)
            if change_mm < LARGEST_CHANGE_MM and _doubts(result.verdict) <= _doubts(start.verdict):
                return replace(result, seconds=time.perf_counter() - began_s, begun_from=start.fixed_uid)
    return replace(found(None)[0], seconds=time.perf_counter() - began_s)


def _doubts(verdict: Verdict) -> set[tuple[str, Level]]:
    return {(reason.name, reason.level) for reason in verdict.reasons if reason.level is not Level.GOOD}


def _found(
    work: Work,
    fixed: Image,
    moving: Image,
    pose: Matrix,
    levels: list[tuple[float, float, int]],
    tumour: Image | None,
    cavity: Image | None,
    begin: Fit | None,
    threads: int,
) -> tuple[DeformableRegistration, float]:
    """The registration, and how far (mm) its last steps went from ``begin``; 0 without."""
    if cavity is not None:
        work.use_cavity(cavity)
    if begin is not None:
        lattice, coefficients, work.seen_filled = begin.lattice, begin.coefficients, begin.filled
    else:
        if cavity is None:
            lattice, coefficients = work.fit(levels[:FIRST_PASS], None, (0.1, 0.35))
            work.look(lattice, coefficients)
        seen_from = [level for level in levels if level[0] >= MASK_MM]
        lattice, coefficients = work.fit(seen_from, None, (0.4, 0.7))
    work.look(lattice, coefficients, cavity is None, wall=True)
    spacing, nodes_mm, steps = levels[-1]
    last = (spacing, nodes_mm, STEPS_AGAIN if spacing >= MASK_MM else steps)
    lattice, coefficients = work.fit([last], coefficients, (0.72, 0.85))
    coefficients = work.fit_near(lattice, coefficients, spacing / 2.0)
    still = work.still
    still(0.92, "inverting")
    shift, inverse, found_cavity, brain = work.result(lattice, coefficients)
    still(0.95, "estimating the uncertainty")
    tumour_now = None if tumour is None else Image(work.tumour.astype(np.uint8), brain.ras_from_ijk)
    matched = brain.with_array((work.brain & work.covered).astype(np.uint8))
    from_cavity = distance_mm(found_cavity)
    radius = uncertainty_mm(work.last, coefficients, shift, matched, from_cavity, distance_mm(work.gap()))
    findings = Findings(
        shift,
        inverse,
        found_cavity,
        brain,
        radius,
        work.last.misfit(coefficients),
        work.remapped,
        tumour_now,
        matched=matched,
        thickest_mm=float(max(fixed.spacing_mm.max(), moving.spacing_mm.max())),
        likeness=LevelFit(work.images(LIKENESS_MM), lattice, STIFFNESS, threads).likeness(coefficients),
        from_cavity_mm=from_cavity,
        missing=work.missing(),
    )
    verdict = deformable_verdict(findings)
    change_mm = 0.0
    if begin is not None:
        change = np.linalg.norm(work.moved_mm(lattice, coefficients - begin.coefficients), axis=0)
        change_mm = float(np.quantile(change[work.brain & ~work.cavity], ALL_BUT))
    still(1.0, "done")
    filled = found_cavity.array == FILLED
    fit = Fit(coefficients, lattice, work.frame, fixed.array.shape, fixed.ras_from_ijk, filled)
    uids = (fixed.uid, moving.uid)
    result = DeformableRegistration(
        pose, shift, inverse, found_cavity, brain, radius, verdict, work.remapped, 0.0, *uids, fit
    )
    return result, change_mm
