"""A planned implant in one scan: carried there by its own vertebra, found, measured, graded with what is unsure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Level, Matrix, Measurement, Progress, Reason, Verdict
from IntraopMRIReconstructionLib.errors import AssessmentError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, invert, middle_of
from IntraopMRIReconstructionLib.reconstruct.metal import implant_shift

from ..assess.bone import alignment_change
from ..assess.implant import Spread, Trajectory, apart_mm, band, compare
from ..assess.implant_detection import DetectedImplant, find_implant
from ..assess.implant_neighbours import SURELY_OWN
from ..assess.pedicle import Breach, pedicle_breach, pedicle_of
from ..register.rigid import RigidRegistration
from ..register.vertebrae import VertebraRegistration, register_vertebrae
from .clearance import clearances
from .plan import Plan
from .updates import ImplantFound, own_motion

#: An error of its blocks by so many mm turns a vertebra by as many parts of this: half its width.
HALF_VERTEBRA_MM = 20.0
#: How structures that are vertebrae are called, by people and by TotalSegmentator; and those that are pedicles.
VERTEBRA = re.compile(r"(?:vertebrae?[\s_-]*)?(C[1-7]|T[1-9]|T1[0-2]|L[1-6]|S1)(?:[\s_-]*vertebrae?)?", re.IGNORECASE)
PEDICLE = re.compile("pedicle|pedikel", re.IGNORECASE)
#: Names of what is graded by its pedicle; of other implants nobody asks that.
SCREW = re.compile("screw|pedicle|schraube|pedikel", re.IGNORECASE)
#: What stands for the level where no pose of the whole does.
NEIGHBOURS = "neighbours found, without the pose of the whole spine"
#: A vertebra holds an implant when this part of its planned path lies in it, looked up at so many points; a pedicle is
#: shorter, and often outlined only where it is narrow.
LEAST_HELD, LEAST_PASSED, SAMPLES = 0.3, 0.1, 50


@dataclass(frozen=True, eq=False)
class Carrier:
    """What carries a planned implant into a scan: pose (4, 4), its error (mm), and what it is in words.

    ``own_motion``: of its vertebra before the pose of the whole spine, (4, 4) in preoperative RAS, None without one of
    both. ``middle_mm``: of its vertebra in the scan, (3,) RAS, None without one.
    """

    intraop_from_preop: Matrix
    error_mm: float
    basis: str = "rigid pose"
    verdict: Verdict | None = None
    own_motion: Matrix | None = None
    middle_mm: Matrix | None = None


@dataclass(frozen=True, eq=False)
class Carriers:
    """Carrier of each trajectory by its name, the vertebrae as they were found, and how they have moved.

    ``measurements``: how far each vertebra moved on its own, and how the angles between the first and the last of them
    have changed.
    """

    by_name: dict[str, Carrier]
    vertebrae: tuple[VertebraRegistration, ...]
    measurements: tuple[Measurement, ...]


def carriers(plan: Plan, image: Image, rigid: RigidRegistration, progress: Progress, threads: int) -> Carriers:
    """What carries each implant of the plan into ``image``.

    Vertebrae that take an implant are registered with their neighbours, all where the plan is about their alignment;
    other implants follow the pose of the whole. When that was refused, as in a spine that is bent, it is only where the
    search begins: all vertebrae are registered, one counts when its neighbours were found as well, and what lies in
    none has no carrier that could be used.
    """
    whole = rigid.verdict.level is not Level.REFUSED
    names = list(plan.vertebrae)
    taking = {names.index(name) for name in plan.implanted.values()}
    wanted = sorted({n + side for n in taking for side in (-1, 0, 1)} & set(range(len(names))))
    if not whole or "alignment" in plan.measures:
        wanted = list(range(len(names)))
    found: tuple[VertebraRegistration, ...] = ()
    if wanted:
        masks = {names[n]: plan.vertebrae[names[n]] for n in wanted}
        found = register_vertebrae(
            image,
            plan.preoperative,
            masks,
            initial=rigid.intraop_from_preop,
            progress=progress,
            threads=threads,
        )
    if not whole:
        found = _without_the_whole(found)
    by_name = {each.name: each for each in found}
    result = {}
    for trajectory in plan.trajectories:
        bone = by_name.get(plan.implanted.get(trajectory.name, ""))
        if bone is None:
            kind = "rigid pose" if whole else "rigid pose of the whole spine"
            carrier = Carrier(rigid.intraop_from_preop, rigid.residual_mm, kind, rigid.verdict)
        else:
            own = np.asarray(invert(rigid.intraop_from_preop) @ bone.intraop_from_preop) if whole else None
            kind = f"pose of {bone.name}" + ("" if whole else " on its own; count the levels")
            middle = apply(bone.intraop_from_preop, middle_of(plan.vertebrae[bone.name]))
            carrier = Carrier(bone.intraop_from_preop, bone.error_mm, kind, bone.verdict, own, middle)
        result[trajectory.name] = carrier
    moved = [_own_motion(each, plan.vertebrae[each.name], rigid, image) for each in found]
    sure = [each for each in found if each.verdict.level is not Level.REFUSED]
    moved += alignment(sure, image.uid)
    return Carriers(result, found, tuple(moved))


def alignment(found: Sequence[VertebraRegistration], image_uid: str) -> tuple[Measurement, ...]:
    """How the angles between the first and the last of these vertebrae have changed; nothing for fewer than two."""
    if len(found) < 2:
        return ()
    upper, lower = found[0], found[-1]
    error_deg = float(np.rad2deg(max(upper.error_mm, lower.error_mm) / HALF_VERTEBRA_MM))
    poses = (upper.intraop_from_preop, lower.intraop_from_preop)
    return alignment_change((upper.name, lower.name), poses, error_deg, (image_uid,))


def _without_the_whole(found: tuple[VertebraRegistration, ...]) -> tuple[VertebraRegistration, ...]:
    """Verdicts for when nothing but its neighbours says that a vertebra is the right one, and not the next level."""
    lost = [each.verdict.level is Level.REFUSED for each in found]
    result = []
    for number, each in enumerate(found):
        beside = [n for n in (number - 1, number + 1) if 0 <= n < len(found)]
        there = sum(not lost[n] for n in beside)
        level = Level.REFUSED if there < max(1, len(beside)) else Level.CHECK
        reason = Reason(NEIGHBOURS, there, "", f"{len(beside)} and it", level)
        result.append(replace(each, verdict=Verdict((*each.verdict.reasons, reason))))
    return tuple(result)


def found_implant(
    image: Image,
    trajectory: Trajectory,
    carrier: Carrier,
    pedicle: Image | str | None,
    around: Mapping[str, Image] = MappingProxyType({}),
    others: Iterable[Trajectory] = (),
) -> ImplantFound:
    """Find a planned implant (preoperative RAS) in ``image`` and measure it against its plan.

    ``pedicle``: its label, or why there is none (see :func:`pedicle_for`). ``around``: structures (preoperative RAS) to
    keep clear of, that move with what carries the implant. ``others``: planned as well (preoperative RAS).
    Raises SessionError when its vertebra or the implant itself was not found with certainty: no number then.
    """
    name = trajectory.name
    if carrier.verdict is not None and carrier.verdict.level is Level.REFUSED:
        raise SessionError(
            f"the {carrier.basis} was refused ({carrier.verdict.text}): no number is shown for '{name}'; check the "
            "outline of the vertebra and that the scan covers it"
        )
    planned = trajectory.moved(carrier.intraop_from_preop)
    shift = implant_shift(image, planned.direction, planned.diameter_mm, planned.susceptibility_ppm)
    others = [each.moved(carrier.intraop_from_preop) for each in others if each.name != name]
    detected = find_implant(image, planned, shift=shift, others=others)
    if detected.verdict.level is Level.REFUSED:
        raise SessionError(f"'{name}' was not found with certainty ({detected.verdict.text}): no number is shown")
    own_mm = apart_mm(detected.trajectory.ends, planned)
    # A neighbour with a void of its own does not lie in this one.
    for other in (each for each in others if each.name not in detected.beside):
        if SURELY_OWN * (other_mm := apart_mm(detected.trajectory.ends, other)) < own_mm:
            raise SessionError(
                f"what was found near the plan of '{name}' lies {own_mm:.1f} mm from it and {other_mm:.1f} mm from "
                f"that of '{other.name}': it is perhaps the other one, or both voids in one, no number is shown; check "
                "which one is placed"
            )
    may = detected.spread.widened(carrier.error_mm)
    breach = _breach(detected.trajectory, may, carrier, pedicle) if isinstance(pedicle, Image) else pedicle or None
    drawn = None if carrier.own_motion is None else trajectory.moved(carrier.own_motion)
    found = compared(planned, detected, (image.uid,), carrier.basis, carrier.error_mm, breach)
    clear = clearances(
        detected.trajectory, may, around, carrier.intraop_from_preop, carrier.basis, found.measurements[0].based_on
    )
    return replace(found, measurements=(*found.measurements, *clear), drawn=drawn)


def _breach(actual: Trajectory, may: Spread, carrier: Carrier, pedicle: Image) -> Breach | str:
    """Of the pedicle at its place in the scan, or why it cannot be told."""
    place = Image(pedicle.array, carrier.intraop_from_preop @ pedicle.ras_from_ijk, pedicle.name)
    # A patient seldom lies in the middle of the scanner: only the vertebra shows where its midline is.
    midline = None if carrier.middle_mm is None else float(carrier.middle_mm[0])
    try:
        return pedicle_breach(actual, place, midline, may)
    except AssessmentError as error:
        return str(error)


def compared(
    planned: Trajectory,
    detected: DetectedImplant,
    based_on: tuple[str, ...],
    basis: str,
    error_mm: float,
    breach: Breach | str | None = None,
) -> ImplantFound:
    """The found implant against its plan (both intraoperative RAS); ``error_mm``: of the plan's place.

    ``breach``: of its pedicle, or why it is missing, None where nobody asks.
    """
    measured = compare(planned, detected.trajectory, error_mm, based_on=based_on, spread=detected.spread)
    more = (not_graded(planned.name, breach, based_on),) if isinstance(breach, str) else ()
    graded = None if isinstance(breach, str) else breach
    if graded is not None:
        more = (graded.measurement,)
    return ImplantFound(planned, detected, (*measured, *more, *detected.measurements), band(measured), basis, graded)


def unknown_of(found: ImplantFound) -> str:
    """What the scan does not say and so widens the intervals, in one sentence; empty when it says all."""
    assumed: tuple[str, ...] = () if found.detected.shift is None else found.detected.shift.assumed
    if not assumed:
        return ""
    return f"the intervals of '{found.planned.name}' are wide because these are not known: {', '.join(assumed)}"


def _own_motion(bone: VertebraRegistration, label: Image, rigid: RigidRegistration, image: Image) -> Measurement:
    """How far a vertebra is from where the pose of the whole spine would put it."""
    name = own_motion(bone.name)
    definition = "Distance of the vertebra's middle from where the rigid pose of the whole spine puts it"
    if bone.verdict.level is Level.REFUSED:
        return Measurement(name, None, "mm", definition, missing_because=bone.why or bone.verdict.text)
    if rigid.verdict.level is Level.REFUSED:
        return Measurement(name, None, "mm", definition, missing_because="the pose of the whole spine was refused")
    middle = middle_of(label)
    moved = float(np.linalg.norm(apply(bone.intraop_from_preop, middle) - apply(rigid.intraop_from_preop, middle)))
    interval = (max(0.0, moved - bone.error_mm), moved + bone.error_mm)
    return Measurement(name, moved, "mm", definition, interval=interval, based_on=(image.uid,))


def vertebrae_of(labels: Image, names: tuple[str, ...]) -> dict[str, Image]:
    """One label image a vertebra from one with the values 1, 2, ...; those that are absent are left out."""
    found = {name: (labels.array == value).astype(np.uint8) for value, name in enumerate(names, start=1)}
    return {name: labels.with_array(array, name) for name, array in found.items() if array.any()}


@dataclass(frozen=True)
class Outlined:
    """Outlined structures by what they are to a plan; each field as that of :class:`.plan.Plan`."""

    vertebrae: Mapping[str, Image]
    implanted: Mapping[str, str]
    pedicles: Mapping[str, Image]
    at_risk: Mapping[str, Image]


def told_apart(structures: Mapping[str, Image], trajectories: Sequence[Trajectory]) -> Outlined:
    """Named structures by what they are to the planned ``trajectories``: what is neither vertebra nor pedicle is at
    risk. Raises SessionError when two are the same vertebra.
    """
    vertebrae, others = vertebrae_among(structures)
    pedicles, at_risk = pedicles_among(others, trajectories)
    return Outlined(vertebrae, implanted_of(trajectories, vertebrae), pedicles, at_risk)


def vertebrae_among(structures: Mapping[str, Image]) -> tuple[dict[str, Image], dict[str, Image]]:
    """(vertebrae from head to foot, the others) of named structures: vertebrae are called C1 to S1, 'L3 vertebra' too.

    Raises SessionError when two are the same vertebra.
    """
    bones: dict[str, Image] = {}
    others: dict[str, Image] = {}
    for name, label in structures.items():
        level = level_of(name)
        if level in bones:
            raise SessionError(f"two structures are the vertebra {level}: rename or remove one of them")
        (bones if level else others)[level or name] = label
    return dict(sorted(bones.items(), key=lambda bone: ("CTLS".index(bone[0][0]), int(bone[0][1:])))), others


def level_of(name: str) -> str:
    """The vertebra, as 'L3', that a structure of this name is; empty for any other."""
    found = VERTEBRA.fullmatch(name.strip())
    return found[1].upper() if found else ""


def pedicles_among(
    structures: Mapping[str, Image], trajectories: Iterable[Trajectory]
) -> tuple[dict[str, Image], dict[str, Image]]:
    """(pedicle by the name of the trajectory that passes it, what is no pedicle) of named structures.

    A pedicle has that word in its name; which one it is shows by the plan that passes it.
    """
    outlined = {name: label for name, label in structures.items() if PEDICLE.search(name)}
    passed = _passing(trajectories, outlined, LEAST_PASSED)
    found = {planned: replace(outlined[name], name=name) for planned, name in passed.items()}
    return found, {name: label for name, label in structures.items() if name not in outlined}


def pedicle_for(plan: Plan, planned: Trajectory) -> Image | str:
    """The pedicle that a planned implant shall pass: outlined, or cut from the outline of its vertebra.

    Where there is none: why, in words; empty for what is no screw in a spine.
    """
    if planned.name in plan.pedicles:
        return plan.pedicles[planned.name]
    bone = plan.implanted.get(planned.name, "")
    if bone:
        try:
            return pedicle_of(planned, replace(plan.vertebrae[bone], name=bone))
        except AssessmentError as error:
            return str(error)
    if plan.vertebrae or plan.pedicles or SCREW.search(planned.name) or SCREW.search(plan.procedure):
        return (
            f"'{planned.name}' is planned through no outlined pedicle or vertebra: outline its vertebra as a segment "
            "called as its level, such as 'L3', or its pedicle, 'L3 pedicle right', on the preoperative volume"
        )
    return ""


def not_graded(name: str, why: str, based_on: tuple[str, ...]) -> Measurement:
    """A dash with its reason where the Gertzbein-Robbins grade of an implant would stand."""
    definition = "Farthest distance of the screw's surface outside the pedicle, Gertzbein-Robbins"
    return Measurement(f"{name}: pedicle breach", None, "mm", definition, missing_because=why, based_on=based_on)


def implanted_of(trajectories: Iterable[Trajectory], vertebrae: Mapping[str, Image]) -> dict[str, str]:
    """Name of each trajectory that runs in a vertebra, and that of the vertebra which holds the most of it."""
    return _passing(trajectories, vertebrae, LEAST_HELD)


def _passing(trajectories: Iterable[Trajectory], labels: Mapping[str, Image], least: float) -> dict[str, str]:
    """Name of each trajectory of which this part runs in a label, and that of the label with the most of it."""
    result = {}
    for planned in trajectories:
        along = np.linspace(0.0, 1.0, SAMPLES)[:, None]
        points = planned.entry_ras_mm + along * (planned.tip_ras_mm - planned.entry_ras_mm)
        held = {name: _inside(label, points) for name, label in labels.items()}
        best = max(held, key=lambda name: held[name], default="")
        if best and held[best] >= least:
            result[planned.name] = best
    return result


def _inside(label: Image, points: Matrix) -> float:
    """Share of RAS points (n, 3) inside a label."""
    index = np.rint(apply(invert(label.ras_from_ijk), points)[:, ::-1]).astype(int)
    within = ((index >= 0) & (index < label.array.shape)).all(axis=1)
    return float((label.array[tuple(index[within].T)] != 0).sum()) / len(points)
