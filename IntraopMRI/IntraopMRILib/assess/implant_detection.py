"""Where an implant really lies, from its signal void in MRI: an estimate with an uncertainty, since voids bloom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, MetalShift, Verdict
from IntraopMRIReconstructionLib.errors import AssessmentError

from .implant import Spread, Trajectory
from .implant_neighbours import separated
from .implant_verdict import DIAMETER_GOOD, verdict_of
from .implant_void import CONTEXT_MM, Void, fit_voids, region_about, search, void_mask

SHIFT_SOURCE = "Schenck 1996; Butts et al. 2005"
#: An ideal fit of a sharp edge still errs by this part of a voxel.
EDGE_VOXELS = 0.15
#: Two errors that are alike likely up to their bounds, and know nothing of one another, stay within this times the root
#: of the sum of their squares in 95 of 100 cases (1.96 / sqrt 3; GUM, JCGM 100:2008, 4.3.7).
UNIFORM_95 = 1.13
#: Where the scan says all that decides on it: by the part of the widest void, over all directions of the field, that
#: the shaft shows, how far beyond an end signal is missing in the middle, and how far from there in 95 of 100 ends, as
#: parts of ``end_void_mm``; ALONG_95 of ``along_mm`` beside it. A shaft with a thin void lies along the field, which
#: comes out of its ends. Fitted to 130 simulated screws in fields of any direction; of 67 others the intervals of 64
#: held the truth.
SHOWN, END_MIDDLE, END_95, ALONG_95 = (0.5, 0.7, 0.9), (0.45, 0.42, 0.2), (0.8, 0.5, 0.25), 0.6
#: Standard deviations of the fit that an interval holds.
FIT_SIGMAS = 2.0


@dataclass(frozen=True, eq=False)
class DetectedImplant:
    """The fitted implant: axis in the image's RAS frame, where it may lie instead, trust, void mask (0 / 1).

    ``spread``: of its ends. ``shift``: how far the scan may have displaced the void, None when nobody said.
    ``beside``: planned neighbours whose own voids were found beside it.
    """

    trajectory: Trajectory
    spread: Spread
    shift: MetalShift | None
    verdict: Verdict
    void: Image
    void_diameter_mm: float
    beside: tuple[str, ...] = ()

    @property
    def uncertainty_mm(self) -> float:
        """Farthest that an end may lie from where it was found, mm."""
        return self.spread.reach_mm

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """How far the void may lie from the metal along the readout and across slices, and how wide it may be there."""
        if self.shift is None:
            return ()
        assumed = ", ".join(self.shift.assumed)
        said = f"; rests on {self.shift.basis}" if self.shift.basis else ""
        said += f"; taken at its worst because it is not known: {assumed}" if assumed else ""
        return tuple(
            Measurement(f"{self.trajectory.name}: {name}, {along}", value, "mm", f"{what}{said}", SHIFT_SOURCE,
                        based_on=(self.void.uid,))
            for along, shift, wide in (
                ("readout", self.shift.readout_mm, self.shift.readout_void_mm),
                ("slice direction", self.shift.slice_mm, self.shift.slice_void_mm),
            )
            for name, value, what in (
                (
                    "possible shift of the void",
                    shift,
                    f"Largest shift of the metal's void along the {along}, either way: part of every interval",
                ),
                ("possible width of the void", wide, f"Within it along the {along} the metal may take signal away"),
            )
            if name.startswith("possible shift") or value > 0
        )  # fmt: skip


def find_implant(
    image: Image,
    near: Trajectory,
    search_radius_mm: float = 10.0,
    shift: MetalShift | None = None,
    others: Sequence[Trajectory] = (),
) -> DetectedImplant:
    """Fit the signal void of one implant close to ``near`` (planned, carried to the frame of ``image``).

    A coarse search over both ends, then a least-squares fit of a smooth-edged void cylinder, robust against other
    dark structures, ends below the voxel. What is missing beyond the ends on average is taken off, see :func:`_ends`.
    ``shift``: how far this scan may have displaced the void; where the void looks like the implant, at most half of the
    void's own radius counts. ``others``: planned as well (same frame); where their voids touch this one they are fitted
    together, see :mod:`.implant_neighbours`. Raises AssessmentError when no void of that shape is there, when it cannot
    be told whose it is, or when the plan leaves the image.
    """
    if not (np.isfinite(search_radius_mm) and search_radius_mm > 0):
        raise AssessmentError(f"search_radius_mm must be positive, got {search_radius_mm}")
    if image.array.ndim != 3 or not np.isfinite(image.array).all():
        raise AssessmentError("the image must be one volume (k, j, i) of finite values to look for an implant")
    region = region_about(image, near, search_radius_mm + CONTEXT_MM + near.diameter_mm)
    (fit,), _ = fit_voids(region, (search(region, near, search_radius_mm),), (near.diameter_mm,))
    apart = separated(region, near, fit, others, search_radius_mm)
    region, fit = apart.region, apart.void
    verdict = verdict_of(region, fit, near)
    if verdict.level is Level.REFUSED:
        raise AssessmentError(
            f"no signal void like '{near.name}' lies within {search_radius_mm:g} mm of its planned place "
            f"({verdict.text}): check the registration and that the scan covers the implant"
        )
    fit_mm = float(
        np.linalg.norm((FIT_SIGMAS * EDGE_VOXELS * region.voxel_mm, FIT_SIGMAS * fit.sigma_mm, apart.open_mm))
    )
    if fit_mm > search_radius_mm:
        raise AssessmentError(
            f"the void found near '{near.name}' does not show where it ends: its tip is open by {fit_mm:.0f} mm, more "
            f"than the {search_radius_mm:g} mm that were searched: scan with smaller voxels"
        )
    void = np.zeros(image.array.shape, dtype=np.uint8)
    void[region.box] = void_mask(region, fit)
    radius = near.diameter_mm / 2.0
    axis = fit.axis
    if shift is not None:
        shift = apart.widened(shift)
    beyond, along_mm = _ends(fit, shift, radius)
    trajectory = Trajectory(fit.entry + beyond * axis, fit.tip - beyond * axis, near.diameter_mm, near.name)
    if shift is not None and fit.radius <= DIAMETER_GOOD[1] * radius:
        shift = shift.within(fit.radius)
    if shift is None:
        spread = Spread(fit_mm, axis, along_mm=along_mm)
    else:
        # The field at an end is not that of the rod over about one radius of the void, and that of a neighbour is not
        # the same along the shaft: so much of the shift turns it.
        turning = min(1.0, 2.0 * fit.radius / fit.length + 1.0 - 1.0 / apart.field)
        spread = Spread(fit_mm, axis, shift.across_mm, along_mm, turning)
    return DetectedImplant(
        trajectory,
        spread,
        shift,
        verdict,
        image.with_array(void, f"void of {near.name}"),
        2 * fit.radius,
        apart.names,
    )


def _ends(fit: Void, shift: MetalShift | None, radius: float) -> tuple[float, float]:
    """How far each fitted end lies beyond that of the metal, and how far from there it may be along the axis, mm.

    Calibrated where the scan says all that decides on it; bounds otherwise, and half of the shaft's bloom taken off.
    """
    bloom = 0.5 * (fit.radius - radius)
    if shift is None:
        return bloom, abs(bloom)
    if shift.assumed:
        # A flat end that is fitted there lies half way: where signal is thinned, some is left.
        return bloom, UNIFORM_95 * float(np.hypot(shift.along_mm, max(abs(bloom), 0.5 * shift.end_void_mm)))
    shown = fit.radius / max(shift.void_radius_mm, radius)
    middle, width = (float(np.interp(shown, SHOWN, part)) * shift.end_void_mm for part in (END_MIDDLE, END_95))
    # What is wider than any displacement makes it has another cause, dephasing, and may be so at the ends.
    other = 0.5 * max(0.0, fit.radius - max(shift.void_radius_mm, radius))
    along_mm = float(np.linalg.norm((ALONG_95 * shift.along_mm, width, other)))
    if fit.radius > max(DIAMETER_GOOD[1] * radius, shift.void_radius_mm):
        # So wide a void may be as wide about the ends as about the shaft, as that of a lead in a gradient echo; what
        # displacement explains is calibrated at the ends.
        along_mm = max(along_mm, fit.radius - radius - middle)
    return middle, along_mm
