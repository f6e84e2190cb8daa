"""Measures that a person's drawing completes: what each needs, and the numbers that come of it.

A residual nidus, cord lesion or non-enhancing tumour is outlined, landmarks are placed on the intraoperative scan. The
registration brings them into the axes of the preoperative scan, so that a patient who lies otherwise has not changed;
the same landmarks there give the value before surgery and the change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Matrix, Measurement
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy.spatial import KDTree

from ..assess.bone import (
    cobb_angle,
    cup_orientation,
    osteotomy_deviation,
    pelvic_frame,
    plane_normal,
    require_above,
    sagittal_balance,
)
from ..assess.leg import leg_axes, leg_length
from ..assess.lesion import cord_residual, non_enhancing_residual, vascular_residual
from ..assess.proposal import NECROSIS
from ..assess.resection import RanoClass, with_non_enhancing
from ..register.landmarks import fit_rigid, register_landmarks
from ..workflow.record import ResidualEntry
from .plan import Plan

Points = npt.NDArray[np.float64]
Groups = Mapping[str, Points]
#: Measurements, and what must be known beside them.
Numbers = tuple[tuple[Measurement, ...], str]

#: Standard deviation (mm, each axis) with which a person places a landmark in a picture of 1 mm voxels; in a coarser
#: one half a voxel.
PLACED_MM = 1.0
#: An interval holds 95 % of a normal error; derivatives are taken over so many mm.
SIGMAS, STEP_MM = 1.96, 0.05
#: A residual farther than this from where the rigid pose puts what was there is another thing: brains shift less, mm.
ELSEWHERE_MM = 20.0
#: The kind that the software can propose.
PROPOSED = "nonenhancing"


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a person has drawn on the intraoperative image ``image_uid``, RAS mm.

    ``points``: name and place (3,), in order; names may be numbered ('upper 1'). ``label``: outline, empty when nothing
    is left. ``option``: one of those of the recipe, its first one when empty.
    """

    image_uid: str
    points: tuple[tuple[str, npt.ArrayLike], ...] = ()
    label: Image | None = None
    option: str = ""


@dataclass(frozen=True, eq=False)
class Scan:
    """Where it was drawn: pose (4, 4) of the preoperative volume in that image, its error (mm), largest voxel (mm).

    ``rano``: class of the enhancing residual on that image, None without one.
    """

    intraop_from_preop: Matrix
    error_mm: float
    voxel_mm: float
    rano: RanoClass | None = None


@dataclass(frozen=True)
class Found:
    """The numbers of one measure, and what a person must know beside them.

    ``proposed``: what a person has changed of the software's proposal; empty where the outline is drawn by hand.
    """

    kind: str
    title: str
    measurements: tuple[Measurement, ...]
    note: str = ""
    proposed: str = ""


@dataclass(frozen=True)
class Recipe:
    """One kind of measure. ``groups``: least number of points by the name that they share, 0 where they may be absent.

    ``outline``: whether an outline on the intraoperative scan is needed. ``options``: what has to be said beside.
    ``hint``: for the person who draws.
    """

    title: str
    hint: str
    work: Callable[[Plan, Drawn, Scan], Numbers]
    groups: Mapping[str, int] = field(default_factory=dict)
    outline: bool = False
    options: tuple[str, ...] = ()


def rano_of(residual: ResidualEntry | None) -> RanoClass | None:
    """The class of the enhancing residual in a record."""
    return None if residual is None else RanoClass(residual.rano, residual.rano_best, residual.rano_worst)


def measured(plan: Plan, kind: str, drawn: Drawn, scan: Scan) -> Found:
    """The numbers of one ``kind`` of :data:`RECIPES`. Raises SessionError or AssessmentError: what is wrong."""
    recipe = RECIPES.get(kind)
    if recipe is None:
        raise SessionError(f"'{kind}' is no measure: choose one of {', '.join(RECIPES)}")
    if recipe.outline and drawn.label is None:
        raise SessionError(f"{recipe.title}: outline it on the intraoperative scan first ({recipe.hint})")
    if recipe.options and drawn.option not in ("", *recipe.options):
        raise SessionError(f"'{drawn.option}' is not known: choose one of {', '.join(recipe.options)}")
    if not drawn.option and recipe.options:
        drawn = replace(drawn, option=recipe.options[0])
    measurements, note = recipe.work(plan, drawn, scan)
    based_on = (drawn.image_uid, plan.preoperative.uid)
    return Found(kind, recipe.title, tuple(replace(m, based_on=based_on) for m in measurements), note)


def _non_enhancing(plan: Plan, drawn: Drawn, scan: Scan) -> Numbers:
    assert drawn.label is not None
    before = None
    if plan.tumour is not None:
        _require_near(drawn.label, plan.tumour, scan, "tumour")
        before = plan.tumour.with_array((np.asarray(plan.tumour.array) > NECROSIS).astype(np.uint8))
    found = non_enhancing_residual(drawn.label, before)
    if scan.rano is None:
        return found, "No RANO class: the enhancing residual was not assessed on this scan."
    rano = with_non_enhancing(scan.rano, found[0])
    return found, f"{rano.text} with the enhancing residual of this scan: {rano.meaning}. {rano.definition}."


def _vascular(plan: Plan, drawn: Drawn, scan: Scan) -> Numbers:
    if plan.nidus is None:
        raise SessionError("the plan has no nidus: outline it on the preoperative volume and call it Nidus")
    assert drawn.label is not None
    _require_near(drawn.label, plan.nidus, scan, "nidus")
    found = vascular_residual(plan.nidus, drawn.label, {"seen": True, "not seen": False}.get(drawn.option))
    return found.measurements, found.text


def _require_near(residual: Image, before: Image, scan: Scan, what: str) -> None:
    if not residual.array.any():
        return
    places = apply(scan.intraop_from_preop @ before.ras_from_ijk, _voxels(before))
    away = KDTree(places).query(apply(residual.ras_from_ijk, _voxels(residual)))[0].min()
    if away > ELSEWHERE_MM:
        raise SessionError(
            f"the outlined residual lies {away:.0f} mm from the {what} before surgery: check which segment was "
            "chosen, and the registration"
        )


def _cord(plan: Plan, drawn: Drawn, scan: Scan) -> Numbers:
    assert drawn.label is not None
    if drawn.points:
        return cord_residual(drawn.label, np.array([np.asarray(point) for _name, point in drawn.points])), ""
    if plan.centreline is None:
        raise SessionError("the cord has no centre line: place points along it, from head to foot")
    carried = apply(scan.intraop_from_preop, np.asarray(plan.centreline, dtype=np.float64))
    return cord_residual(drawn.label, carried), "Along the centre line drawn before surgery, carried by the rigid pose."


def _by_landmarks(
    groups: Mapping[str, int],
    work: Callable[[Groups, str], tuple[Measurement, ...]],
    unmoved: tuple[str, ...] = (),
) -> Callable[[Plan, Drawn, Scan], Numbers]:
    """A measure of named landmarks: its value now, before surgery when they were placed there too, and the change.

    ``unmoved``: groups on the bone that carries the registration; placed before surgery, they need not be placed again.
    """

    def both(plan: Plan, drawn: Drawn, scan: Scan) -> Numbers:
        def sure(points: Groups, where: str, place: Scan) -> tuple[Measurement, ...]:
            complete = _complete(points, groups, where)
            return _sure(lambda moved: work(moved, drawn.option), complete, place)

        before = {name: points for name, points in grouped(plan.landmarks.items()).items() if name in groups}
        back = invert(scan.intraop_from_preop)
        now = {name: before[name] for name in unmoved if name in before}
        now |= {name: apply(back, points) for name, points in grouped(drawn.points).items()}
        found = sure(now, "intraoperative", scan)
        if not set(before) - set(unmoved):
            return found, ""
        try:
            first = sure(before, "preoperative", Scan(np.eye(4), 0.0, float(plan.preoperative.spacing_mm.max())))
        except SessionError as error:
            return found, f"Not compared with before surgery: {error}."
        return (*found, *(m for pair in zip(first, found, strict=True) for m in _change(*pair))), ""

    return both


def _sure(work: Callable[[Groups], tuple[Measurement, ...]], points: Groups, scan: Scan) -> tuple[Measurement, ...]:
    """The measurements with intervals from the error of each point, to first order."""
    sigma = float(np.hypot(max(PLACED_MM, scan.voxel_mm / 2.0), scan.error_mm))
    result = work(points)
    spread = np.zeros(len(result))
    for name, places in points.items():
        for number in range(places.size):
            step = np.zeros(places.size)
            step[number] = STEP_MM
            sides = [_values(work({**points, name: places + side * step.reshape(places.shape)})) for side in (1, -1)]
            # A size without sign grows to both sides of zero: up against down, nothing would be unsure there.
            spread += (np.max([np.abs(moved - _values(result)) for moved in sides], axis=0) / STEP_MM) ** 2
    errors = SIGMAS * sigma * np.sqrt(spread)
    words = f"; in the axes of the preoperative scan; interval: points placed to {sigma:.1f} mm"
    return tuple(
        m
        if m.value is None
        else replace(
            m,
            definition=m.definition + words,
            interval=(m.value - error, m.value + error),
        )
        for m, error in zip(result, errors.tolist(), strict=True)
    )


def _values(measurements: tuple[Measurement, ...]) -> Points:
    return np.array([0.0 if m.value is None else m.value for m in measurements])


def _change(before: Measurement, now: Measurement) -> tuple[Measurement, ...]:
    """What was before surgery, and the change since."""
    first = replace(before, name=f"{before.name}: before surgery")
    if before.value is None or now.value is None or before.interval is None or now.interval is None:
        return (first,)
    error = float(np.hypot(before.interval[1] - before.value, now.interval[1] - now.value))
    change = now.value - before.value
    return first, replace(now, name=f"{now.name}: change", value=change, interval=(change - error, change + error))


def _cobb(points: Groups, option: str) -> tuple[Measurement, ...]:
    require_above(points["upper"], points["lower"], "the upper endplate", "the lower one")
    upper, lower = (plane_normal(points[name]) for name in ("upper", "lower"))
    return (cobb_angle(upper, lower, "sagittal" if option == "sagittal" else "coronal"),)


def _cobb_in_words(plan: Plan, drawn: Drawn, scan: Scan) -> Numbers:
    """The angles, and which way the curve went: a sign alone is easily read as a size."""
    found, note = _by_landmarks(_COBB, _cobb)(plan, drawn, scan)
    if len(found) < 3 or found[0].value is None or found[1].value is None or found[0].interval is None:
        return found, note
    ways = ("lordosis", "kyphosis") if drawn.option == "sagittal" else ("convex to the right", "convex to the left")
    now, before = found[0].value, found[1].value
    words = f"Before surgery {abs(before):.0f} deg, {ways[before < 0]}; now {abs(now):.0f} deg, {ways[now < 0]}"
    if now * before < 0:
        low, high = found[0].interval
        words += ": beyond straight, to the other side" if low * high > 0 else ": straight as far as can be told"
    return found, f"{words}. {note}".strip()


def _sagittal(points: Groups, _option: str) -> tuple[Measurement, ...]:
    corners = [points["s1 posterior"][0], points["s1 anterior"][0]]
    require_above(points["l1"], corners, "the endplate of L1", "that of S1")
    c7 = points["c7"].mean(axis=0) if "c7" in points else None
    return sagittal_balance(plane_normal(points["l1"]), corners, points["hip"][:2], c7)


def _cup(points: Groups, option: str) -> tuple[Measurement, ...]:
    frame = pelvic_frame(points["asis right"][0], points["asis left"][0], points["pubis"].mean(axis=0))
    side: Literal["left", "right"] = "left" if option == "left" else "right"
    outward = frame.T @ ((1.0 if side == "right" else -1.0), 0.0, -1.0)
    return cup_orientation(plane_normal(points["rim"], outward), side, frame)


def _of_a_leg(
    measure: Callable[[Groups, Literal["right", "left"]], tuple[Measurement, ...]],
) -> Callable[[Groups, str], tuple[Measurement, ...]]:
    """A measure that takes one point of each name, and a side."""

    def work(points: Groups, option: str) -> tuple[Measurement, ...]:
        single = {name: places.mean(axis=0) for name, places in points.items()}
        return measure(single, "left" if option == "left" else "right")

    return work


def _osteotomy(plan: Plan, drawn: Drawn, scan: Scan) -> Numbers:
    """The fragment's own motion against that of the bone which carries the registration."""
    if plan.correction is None:
        raise SessionError("the plan has no correction: give the planned motion of the bone")
    now = dict(drawn.points)
    names = [name for name in plan.landmarks if name in now]
    if len(names) < 3:
        raise SessionError(
            f"an osteotomy needs three landmarks of the moved bone with the same names before and now, got {names}"
        )
    before = np.array([np.asarray(plan.landmarks[name], dtype=np.float64) for name in names])
    place = apply(
        invert(scan.intraop_from_preop), np.array([np.asarray(now[name], dtype=np.float64) for name in names])
    )
    fit = register_landmarks(before, place)
    if fit.verdict.level is Level.REFUSED:
        raise SessionError(f"the landmarks before and now do not fit one another ({fit.verdict.text}): check them")

    def work(points: Groups) -> tuple[Measurement, ...]:
        achieved = fit_rigid(points["before"], points["now"])
        assert plan.correction is not None
        return osteotomy_deviation(plan.correction, achieved, before.mean(axis=0))

    found = _sure(work, {"before": before, "now": place}, scan)
    # Sizes are not negative, only their parts are signed.
    sizes = ("rotation error", "translation error")
    sure = tuple(
        replace(m, interval=(max(0.0, m.interval[0]), m.interval[1])) if m.interval and m.name.endswith(sizes) else m
        for m in found
    )
    return sure, f"Landmarks fit to {fit.fre_mm:.1f} mm."


def kinds_of(landmarks: Mapping[str, npt.ArrayLike], nidus: bool, correction: bool, alignment: bool) -> tuple[str, ...]:
    """Measures that a plan is about: by its landmarks (by name), a nidus, a planned correction of a bone, or vertebrae
    without an implant, whose alignment it must be."""
    counts = {name: len(places) for name, places in grouped(landmarks.items()).items()}
    by_name = [
        kind
        for kind, recipe in RECIPES.items()
        if recipe.groups and all(counts.get(name, 0) >= least for name, least in recipe.groups.items())
    ]
    return tuple(["vascular"] * nidus + by_name + ["osteotomy"] * correction + ["alignment"] * alignment)


def grouped(points: Iterable[tuple[str, npt.ArrayLike]]) -> dict[str, Points]:
    """Points (n, 3) by the name that they share, without its number, in small letters: 'Upper 1' is one of 'upper'."""
    found: dict[str, list[Points]] = {}
    for name, point in points:
        place = np.asarray(point, dtype=np.float64)
        if place.shape != (3,) or not np.isfinite(place).all():
            raise SessionError(f"the point '{name}' must be three finite coordinates in mm: place it or remove it")
        # 'L1', 'C7' are names; what follows them is the number.
        key = re.fullmatch(r"(l1|c7|s1 posterior|s1 anterior)?(.*?)[\s_.-]*\d*", name.strip().lower())
        assert key is not None
        found.setdefault(((key[1] or "") + key[2]).strip(), []).append(place)
    return {name: np.array(places) for name, places in found.items()}


def _complete(points: Groups, groups: Mapping[str, int], where: str) -> Groups:
    """The groups that a measure needs. Raises SessionError that names what is missing."""
    missing = [
        f"'{name}' {count} (there are {len(points.get(name, ()))})"
        for name, count in groups.items()
        if len(points.get(name, ())) < count
    ]
    if missing:
        raise SessionError(f"points are missing on the {where} scan: {', '.join(missing)}")
    return {name: points[name] for name in groups if name in points}


def _voxels(label: Image) -> Points:
    return np.argwhere(label.array != 0)[:, ::-1].astype(np.float64)


_COBB = {"upper": 3, "lower": 3}
_SAGITTAL = {"l1": 3, "s1 posterior": 1, "s1 anterior": 1, "hip": 2, "c7": 0}
_CUP = {"rim": 3, "asis right": 1, "asis left": 1, "pubis": 1}
_LEG = {
    "knee": 1, "femoral head": 0, "ankle": 0, "condyle medial": 0, "condyle lateral": 0, "plateau medial": 0,
    "plateau lateral": 0,
}  # fmt: skip
_LENGTH = {
    "teardrop right": 1, "teardrop left": 1, "trochanter right": 1, "trochanter left": 1, "head": 0, "shaft upper": 0,
    "shaft lower": 0,
}  # fmt: skip
#: Every measure by its kind.
RECIPES: Mapping[str, Recipe] = {
    "vascular": Recipe(
        "Residual nidus",
        "outline what is left of the nidus; an empty segment when nothing is",
        outline=True,
        options=("shunt not assessed", "not seen", "seen"),
        work=_vascular,
    ),
    "cord": Recipe(
        "Residual cord lesion",
        "outline the residual; points along the cord, from head to foot, beyond both of its ends",
        outline=True,
        work=_cord,
    ),
    "cobb": Recipe(
        "Cobb angle",
        "three points or more on the upper endplate of the upper end vertebra, called 'upper 1' and so on, and on the "
        "lower endplate of the lower one, 'lower 1' and so on",
        groups=_COBB,
        options=("coronal", "sagittal"),
        work=_cobb_in_words,
    ),
    "sagittal": Recipe(
        "Sagittal balance",
        "'L1' three times or more on its upper endplate, 'S1 posterior' and 'S1 anterior' on its corners, 'hip' in "
        "both femoral heads, 'C7' in its middle when it is in the scan",
        groups=_SAGITTAL,
        work=_by_landmarks(_SAGITTAL, _sagittal),
    ),
    "hip": Recipe(
        "Acetabular cup",
        "three points or more on the rim of the cup, 'rim 1' and so on; 'ASIS right', 'ASIS left' and 'pubis' here or "
        "before surgery",
        groups=_CUP,
        options=("right", "left"),
        work=_by_landmarks(_CUP, _cup, unmoved=("asis right", "asis left", "pubis")),
    ),
    "leg": Recipe(
        "Axes of a leg",
        "'knee', 'femoral head' and 'ankle' in their middles; 'condyle medial' and 'condyle lateral' at the lowest "
        "points of the femur, 'plateau medial' and 'plateau lateral' on the tibia: as far as they are in the scan",
        groups=_LEG,
        options=("right", "left"),
        work=_by_landmarks(_LEG, _of_a_leg(leg_axes)),
    ),
    "length": Recipe(
        "Leg length and offset",
        "'teardrop right' and 'teardrop left', 'trochanter right' and 'trochanter left' (lesser); for the offset "
        "'head' in the middle of the operated one, 'shaft upper' and 'shaft lower' in its femur",
        groups=_LENGTH,
        options=("right", "left"),
        work=_by_landmarks(_LENGTH, _of_a_leg(leg_length), unmoved=("teardrop right", "teardrop left")),
    ),
    "osteotomy": Recipe(
        "Correction of a bone",
        "three points or more on the moved bone, with the names that they have before surgery",
        work=_osteotomy,
    ),
    PROPOSED: Recipe(
        "Residual non-enhancing tumour",
        "outline what is left of it on T2 or FLAIR in the frame of the scan, or correct a proposal; an empty segment "
        "when nothing is",
        outline=True,
        work=_non_enhancing,
    ),
}
