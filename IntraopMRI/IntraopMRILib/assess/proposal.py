"""Where non-enhancing tumour is probably left on an intraoperative T2 or FLAIR scan: a proposal, reviewed by a person.

What was bright before and is still there shows the same brightness; what was taken out is the cavity. Within a few mm
of its wall surgery makes tissue as bright (swelling, blood): there nobody can tell, so that it widens the interval.
Brightness is that over normal tissue around the tumour, a smooth bias field taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement, Progress, no_progress
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from IntraopMRIReconstructionLib.geometry import apply, invert, within_mm
from scipy import ndimage

from .carry import Mapping, box_around, carried_points, mapped, occupied, require_seen
from .enhancement import TISSUE_FRACTION, log_relative, on_grid, robust_sigma
from .labels import checked_label

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Labels of a tumour above this are non-enhancing (1 enhancing, 2 necrosis).
NECROSIS = 2
#: Normal tissue so far around the tumour, mm, is what its brightness is compared with.
CONTEXT_MM = 25.0
#: Outlines of raters differ by so much, mm, however well they are carried over.
LEAST_MARGIN_MM = 2.0
#: So deep in the wall of a cavity, mm, surgery makes tissue as bright as tumour.
RIM_MM = 4.0
#: A layer thinner than this, mm, beside the rim or beside fluid is its partial volume.
THIN_MM = 2.0
#: A little smoothing against noise, mm.
SMOOTH_MM = 0.8
#: Logarithms of what is fluid, over normal tissue: below on FLAIR, above on T2.
DARK, BRIGHT = -0.6, 0.6
#: At least this part of the tissue around is fluid, with so many times as much of it dark as bright or the reverse.
LEAST_FLUID, CLEARLY = 0.005, 2.0
#: Grey against white matter correlates at least so much between two volumes whose contrast is known.
LEAST_LIKE = 0.2
#: A tumour must have been this much brighter than normal tissue, as a logarithm, to be told from it.
LEAST_CONTRAST = 0.15
#: The brightest normal tissue is that above this quantile, as far from fluid, mm: nearer, partial volume is as bright.
NORMAL_QUANTILE, FROM_FLUID_MM = 0.95, 3.0
#: The contrast of a tumour is this many times that before surgery at least and at most, by another echo time.
CHANGE = (0.6, 1.6)
#: When less than this part of the region is bright, it says nothing of how bright tumour is.
LEAST_BRIGHT = 0.02
#: Where the border lies between normal tissue (0) and tumour (1), and the range in which it may lie.
BORDER, BORDER_RANGE = 0.5, (0.35, 0.65)
#: When more of the tumour's place than this is neither bright nor cavity, scan, outline or registration are wrong.
MOST_UNEXPLAINED = 0.6
#: Points of the preoperative volumes are taken this far apart, mm.
STEP_MM = 2.0


@dataclass(frozen=True, eq=False)
class Proposal:
    """What is probably left, for a person to review; no result before that.

    ``label``: 0 / 1, uint8 (k, j, i), on the grid of the scan. ``open``: the same where it cannot be told whether
    bright tissue is tumour or was made bright by surgery. ``volume``: of ``label`` in cm3; its interval holds what the
    border, the registration and ``open`` leave. ``sequence``: 'FLAIR' or 'T2', as seen in the scan. ``rests_on``: what
    a person must know to judge it. ``scan``: the scan itself, where both labels lie on it.
    """

    label: Image
    open: Image
    volume: Measurement
    sequence: str
    rests_on: str
    scan: Image


def propose_non_enhancing(
    scan: Image,
    tumour: Image,
    intraop_from_preop: Mapping,
    error_mm: float,
    cavity: Image,
    brain: Image,
    preop: Image,
    flair: Image | None = None,
    progress: Progress = no_progress,
) -> Proposal:
    """Propose the non-enhancing tumour that is left.

    ``scan``: intraoperative T2 or FLAIR. ``tumour``: label on a preoperative grid, 3 and above non-enhancing.
    ``intraop_from_preop``: (4, 4) or a function on RAS points (n, 3); ``error_mm``: its uncertainty at the tumour.
    ``cavity``, ``brain``: labels in the frame of ``scan``, on any grid. ``preop``: the preoperative volume, T1 or T2 /
    FLAIR. ``flair``: preoperative T2 or FLAIR, in the same frame.
    Raises AssessmentError, with nothing proposed, when the tumour has no non-enhancing part or was not brighter than
    its surroundings, when the scan does not cover it, or when it is no T2 or FLAIR for certain; Cancelled.
    """
    inside = _checked(scan, tumour, error_mm)
    _tell(progress, 0.0, "carrying the tumour over")
    margin = max(LEAST_MARGIN_MM, error_mm)
    points = carried_points(inside, tumour, scan, intraop_from_preop)
    require_seen(points, scan, scan, f"scan '{scan.name}'")
    box = box_around(points, scan, margin + CONTEXT_MM)
    place = _Place(scan, box, occupied(points, box), margin, cavity, brain)

    _tell(progress, 0.3, "comparing with normal tissue")
    relative = ndimage.gaussian_filter(
        log_relative(on_grid(scan, scan, box), place.normal, scan.ras_from_ijk), SMOOTH_MM / place.spacing
    )
    sequence = _sequence(relative[place.around])
    before = _before(tumour, inside, intraop_from_preop, place, relative, preop, flair)

    _tell(progress, 0.6, "looking for what is still bright")
    level = _tumour_level(relative, place, before, sequence)
    found = _Found(relative, place, level, sequence)
    if (unexplained := found.unexplained) > MOST_UNEXPLAINED:
        raise AssessmentError(
            f"{100 * unexplained:.0f} % of the carried-over tumour is neither bright on '{scan.name}' nor in the "
            "cavity: check the outline before surgery and the registration; nothing is proposed"
        )
    _tell(progress, 1.0, "proposal made")
    return _proposal(scan, tumour, box, found, sequence, before, preop if flair is None else flair, margin)


class _Place:
    """Where things are in the box (k, j, i) of the scan. ``carried``: the tumour; ``region``: with the margin.

    ``rim``: tissue that surgery may have made bright; ``around``: brain away from all of it, fluid included;
    ``normal``: without the darkest of it, for the fit of the bias field.
    """

    def __init__(
        self, scan: Image, box: tuple[slice, slice, slice], carried: Mask, margin_mm: float, cavity: Image, brain: Image
    ) -> None:
        self.scan, self.box, self.carried = scan, box, carried
        self.spacing = np.asarray(scan.spacing_mm)[::-1]
        values = on_grid(scan, scan, box)
        seen = values > 0
        self.cavity = _label_on(cavity, scan, box)
        self.brain = (_label_on(brain, scan, box) | self.cavity) & seen
        self.rim = within_mm(self.cavity, RIM_MM, self.spacing) & ~self.cavity
        self.region = within_mm(carried, margin_mm, self.spacing) & (self.brain | carried) & ~self.cavity & seen
        near = within_mm(carried | self.cavity, margin_mm + RIM_MM, self.spacing)
        self.around = self.brain & ~near
        if self.around.any():
            self.normal = self.around & (values > TISSUE_FRACTION * np.percentile(values[self.around], 75.0))
        else:
            self.normal = self.around

    def ijk(self, points_ras: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Index (3, n), order k j i, in the box of RAS points (n, 3)."""
        index = apply(invert(self.scan.ras_from_ijk), points_ras)[:, ::-1].T
        return np.asarray(index - np.array([[s.start] for s in self.box]))


class _Found:
    """What is bright in the region, between normal tissue at 0 and tumour at ``level`` (logarithms).

    ``likely``: pieces that reach deeper than the rim, with the part of the rim that touches them. ``open``: other
    bright tissue of the rim, and beside fluid. ``least``, ``most``: in voxels, what the border leaves of it.
    """

    def __init__(self, relative: Array, place: _Place, level: float, sequence: str) -> None:
        self.place = place
        fluid = _fluid(relative, place, level, sequence)
        beside = within_mm(fluid, 1.5, 1.0) if sequence == "T2" else np.zeros_like(fluid)
        doubtful = (place.rim | beside) & ~fluid
        self.bright = place.region & (relative > BORDER * level) & ~fluid
        thin = THIN_MM / 2.0
        deep = self.bright & ~doubtful
        core = within_mm(~within_mm(~deep, thin, place.spacing) & deep, thin + 0.5 * place.spacing.max(), place.spacing)
        core &= deep
        self.likely = core | (self.bright & doubtful & within_mm(core, RIM_MM, place.spacing))
        self.open = self.bright & ~self.likely
        strict, loose = (place.region & (relative > part * level) & ~fluid for part in BORDER_RANGE[::-1])
        shrunk = ~within_mm(~self.likely, 1.0, 1.0)
        self.least = int((strict & shrunk & ~doubtful).sum())
        grown = within_mm(self.likely, 1.0, 1.0) & ~place.cavity & ~fluid
        self.most = int((grown | (loose & place.region)).sum())
        gone = place.carried & ~self.bright & ~place.cavity & ~place.rim & ~fluid
        self.unexplained = float(gone.sum()) / max(1, int(place.carried.sum()))


def _checked(scan: Image, tumour: Image, error_mm: float) -> Mask:
    if scan.array.ndim != 3 or not np.isfinite(scan.array).all():
        raise AssessmentError(f"'{scan.name}' must be one volume (k, j, i) of finite values: choose another scan")
    if not (np.isfinite(error_mm) and error_mm >= 0):
        raise AssessmentError(f"error_mm must be zero or more millimetres, got {error_mm}")
    inside = np.asarray(checked_label(tumour, "tumour segmentation") > NECROSIS)
    if not inside.any():
        raise AssessmentError(
            "the tumour segmentation has no non-enhancing part (label 3): outline it on the preoperative T2 or FLAIR "
            "and call the segment 'non-enhancing'"
        )
    return inside


def _label_on(label: Image, scan: Image, box: tuple[slice, slice, slice]) -> Mask:
    return on_grid(label.with_array((label.array != 0).astype(np.float32)), scan, box) > 0.5


def _sequence(around: Array) -> str:
    """'FLAIR' or 'T2' by whether fluid among normal tissue is dark or bright. A T1 is told by :func:`_before`."""
    dark, bright = float((around < DARK).mean()), float((around > BRIGHT).mean())
    if dark >= max(LEAST_FLUID, CLEARLY * bright):
        return "FLAIR"
    if bright >= max(LEAST_FLUID, CLEARLY * dark):
        return "T2"
    raise AssessmentError(
        f"whether fluid is dark (FLAIR) or bright (T2) cannot be told: around the tumour {100 * dark:.1f} % is dark "
        f"and {100 * bright:.1f} % bright; choose a T2 or FLAIR scan that covers the brain around the tumour"
    )


def _before(
    tumour: Image,
    inside: Mask,
    intraop_from_preop: Mapping,
    place: _Place,
    relative: Array,
    preop: Image,
    flair: Image | None,
) -> tuple[float, float] | None:
    """Brightness of the tumour before surgery and of the brightest normal tissue then, as logarithms; None when only a
    T1 was there.

    Raises AssessmentError when the tumour was no brighter, or when the scan of now has not the contrast of a T2 or
    FLAIR: against a volume of that kind grey and white matter go together, against a T1 they are reversed.
    """
    volume = preop if flair is None else flair
    box = box_around(np.argwhere(inside)[:, ::-1].astype(np.float64), tumour, CONTEXT_MM)
    every = np.maximum(1, np.floor(STEP_MM / np.asarray(tumour.spacing_mm))).astype(int)[::-1]
    axes = [np.arange(s.start, s.stop, step) for s, step in zip(box, every, strict=True)]
    ijk = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[..., ::-1].astype(np.float64)
    shape, ras = ijk.shape[:3], apply(tumour.ras_from_ijk, ijk.reshape(-1, 3))
    now = place.ijk(mapped(intraop_from_preop, ras))
    values = _at(np.asarray(volume.array, np.float32), apply(invert(volume.ras_from_ijk), ras)[:, ::-1].T, 1)
    values = values.reshape(shape)
    label = inside[np.ix_(*axes)]
    usual = (_at(place.normal.astype(np.float32), now, 0) > 0.5).reshape(shape) & (values > 0) & ~label
    usual &= values > TISSUE_FRACTION * np.percentile(values[usual], 75.0) if usual.any() else False
    grid = tumour.ras_from_ijk.copy()
    grid[:3, :3] = grid[:3, :3] * every[::-1]
    was = log_relative(values, usual, grid)
    is_now = _at(relative, now, 1).reshape(shape)
    compared = usual & (np.abs(was) < BRIGHT) & (np.abs(is_now) < BRIGHT)
    core = ndimage.binary_erosion(label)
    contrast = float(np.median(was[core if core.any() else label]))
    told = flair is not None or contrast >= LEAST_CONTRAST
    if not told:
        # Between fluid and grey matter a T1 goes along with a FLAIR.
        compared &= was > np.median(was[usual]) if usual.any() else False
    like = float(np.corrcoef(was[compared], is_now[compared])[0, 1]) if np.count_nonzero(compared) > 2 else 0.0
    if told and contrast < LEAST_CONTRAST:
        darker = f" (it was {-100 * np.expm1(contrast):.0f} % darker)" if contrast < 0 else ""
        raise AssessmentError(
            f"on '{volume.name}' the non-enhancing tumour was not {100 * np.expm1(LEAST_CONTRAST):.0f} % brighter than "
            f"its surroundings{darker}: what is left cannot be told by brightness; outline it by hand"
        )
    if not np.isfinite(like) or like * (1 if told else -1) < LEAST_LIKE:
        raise AssessmentError(
            f"'{place.scan.name}' does not look like T2 or FLAIR beside '{volume.name}' (grey and white matter "
            f"correlate by {like:.2f}): choose the T2 or FLAIR scan, or check the registration; nothing is proposed"
        )
    return (contrast, float(np.quantile(was[usual & (np.abs(was) < BRIGHT)], NORMAL_QUANTILE))) if told else None


def _tumour_level(relative: Array, place: _Place, before: tuple[float, float] | None, sequence: str) -> float:
    """Brightness of tumour on the scan of now, as a logarithm: two classes, normal tissue being at 0.

    Begun from the contrast before surgery, scaled as that of the brightest normal tissue has changed; without it from
    twice that of the brightest normal tissue, than which no tumour is fainter then. When hardly any of the region is
    bright, that is what stays.
    """
    away = place.normal & ~within_mm(place.around & (np.abs(relative) > BRIGHT), FROM_FLUID_MM, place.spacing)
    usual = relative[away if away.sum() > place.normal.sum() // 10 else place.normal]
    normal = max(float(np.quantile(usual, NORMAL_QUANTILE)), 2.0 * robust_sigma(usual))
    least = LEAST_CONTRAST if before is not None else normal / BORDER
    level = least if before is None else before[0] * float(np.clip(normal / max(before[1], 1e-3), *CHANGE))
    values = relative[place.region & ~place.rim]
    for _ in range(10):
        high = 1.6 * level if sequence == "T2" else np.inf
        bright = values[(values > BORDER * level) & (values < high)]
        if bright.size < max(LEAST_BRIGHT * values.size, 50):
            break
        level = max(least, float(np.median(bright)))
    return level


def _fluid(relative: Array, place: _Place, level: float, sequence: str) -> Mask:
    if sequence == "FLAIR":
        return np.asarray(relative < DARK)
    around = relative[place.around]
    fluid = float(np.median(around[around > max(BRIGHT, 1.2 * level)])) if (around > 1.2 * level).any() else np.inf
    return np.asarray(relative > (level + max(fluid, level)) / 2.0)


def _proposal(
    scan: Image,
    tumour: Image,
    box: tuple[slice, slice, slice],
    found: _Found,
    sequence: str,
    before: tuple[float, float] | None,
    volume: Image,
    margin: float,
) -> Proposal:
    label, doubt = (np.zeros(scan.array.shape, np.uint8) for _ in range(2))
    label[box], doubt[box] = found.likely, found.open
    cm3 = scan.voxel_volume_ml
    likely, least, most = (n * cm3 for n in (int(found.likely.sum()), found.least, found.most))
    open_cm3 = float(found.open.sum()) * cm3
    measured = Measurement(
        "Proposed residual non-enhancing tumour, not reviewed",
        likely,
        "cm3",
        f"Bright on {sequence} as the tumour was, within {margin:.1f} mm of where it is now, outside the cavity; "
        f"interval: a voxel at the border, a border at {BORDER_RANGE[0]:g} to {BORDER_RANGE[1]:g} of its brightness, "
        f"and the {open_cm3:.1f} cm3 within {RIM_MM:g} mm of the cavity or beside fluid that cannot be told",
        interval=(min(least, likely), max(most, likely)),
        based_on=(scan.uid, tumour.uid),
    )
    known = (
        f"the tumour on '{volume.name}' before surgery, {100 * np.expm1(before[0]):.0f} % brighter than normal tissue"
        if before is not None
        else "the two classes in the scan alone, since no T2 or FLAIR from before surgery was there"
    )
    rests_on = (
        f"'{scan.name}', seen as {sequence}; {known}; the carried-over label, within {margin:.1f} mm. Within "
        f"{RIM_MM:g} mm of the cavity swelling and blood are as bright as tumour, which cannot be told apart; nor can "
        "oedema that was there before."
    )
    grid = scan.with_array
    return Proposal(grid(label, "proposal"), grid(doubt, "cannot be told"), measured, sequence, rests_on, scan)


def _at(values: Array, index: npt.NDArray[np.float64], order: int) -> Array:
    return np.asarray(ndimage.map_coordinates(values, index, np.float32, order, mode="constant", cval=0.0))


def _tell(progress: Progress, fraction: float, what: str) -> None:
    if not progress(fraction, what):
        raise Cancelled("the proposal was stopped")
