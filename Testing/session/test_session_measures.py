"""What a person draws becomes numbers: against constructed truth, in a patient who lies otherwise than before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.assess.resection import RanoClass
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Plan, Session
from IntraopMRILib.session.measures import RECIPES, Drawn, Found, Scan, grouped, measured
from IntraopMRILib.workflow.record import as_document, from_json, to_json
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Reason, Verdict
from IntraopMRIReconstructionLib.errors import AssessmentError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, rotation_about

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
POSE = np.eye(4)
POSE[:3, :3] = rotation_about((0.4, 0.1, 1.0), 23.0)
POSE[:3, 3] = (12.0, -7.0, 4.0)
SCAN = Scan(POSE, 0.3, 1.0)
Named = list[tuple[str, np.ndarray]]


def preop() -> Image:
    return Image(np.ones((8, 8, 8), np.float32), np.eye(4), "T1")


def plan_of(*kinds: str, before: Iterable[tuple[str, np.ndarray]] = (), **more: object) -> Plan:
    return Plan("P", "test", preop(), measures=kinds, landmarks=dict(before), **more)  # type: ignore[arg-type]


def drawn(points: Named, option: str = "", pose: np.ndarray = POSE) -> Drawn:
    """Points of the preoperative frame where they are in the scan."""
    return Drawn("scan", tuple((name, apply(pose, place)) for name, place in points), option=option)


def disc(name: str, tilt_deg: float, height_mm: float, axis: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> Named:
    """Four points around an endplate that is turned about ``axis``."""
    turn = rotation_about(axis, tilt_deg)
    around = 18.0 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=float)
    return [(f"{name} {n + 1}", turn @ place + (0.0, 0.0, height_mm)) for n, place in enumerate(around)]


def named(found: Found) -> dict[str, Measurement]:
    return {m.name: m for m in found.measurements}


def holds(measurement: Measurement, true: float, within: float = 1e-6) -> None:
    assert measurement.value == pytest.approx(true, abs=within)
    assert measurement.interval is not None
    assert measurement.interval[0] <= true <= measurement.interval[1]
    assert measurement.based_on[0] == "scan"


def test_cobb_angle_before_now_and_its_change_in_a_patient_who_lies_otherwise() -> None:
    before = disc("Upper", 16.0, 60.0) + disc("Lower", -9.0, -40.0)
    now = disc("upper", 10.0, 60.0) + disc("lower", -4.0, -40.0)
    found = measured(plan_of("cobb", before=before), "cobb", drawn(now), SCAN)
    name = "Cobb angle, coronal, supine"
    values = named(found)
    holds(values[name], -14.0)
    holds(values[f"{name}: before surgery"], -25.0)
    holds(values[f"{name}: change"], 11.0)
    assert found.note == "Before surgery 25 deg, convex to the left; now 14 deg, convex to the left."
    assert "+ is convex to the right, - to the left" in values[name].definition
    assert "axes of the preoperative scan" in values[name].definition
    sagittal = measured(plan_of("cobb"), "cobb", drawn(now, "sagittal"), SCAN)
    assert [m.name for m in sagittal.measurements] == ["Cobb angle, sagittal, supine"]
    holds(sagittal.measurements[0], 0.0)


@pytest.mark.parametrize(
    ("tilt_deg", "now_deg", "change_deg", "words"),
    [
        (12.0, 12.0, 32.0, "12 deg, convex to the right: beyond straight, to the other side."),
        (-12.0, -12.0, 8.0, "12 deg, convex to the left."),
        (1.0, 1.0, 21.0, "1 deg, convex to the right: straight as far as can be told."),
    ],
)
def test_a_curve_that_is_corrected_beyond_straight_is_not_one_that_is_left(
    tilt_deg: float, now_deg: float, change_deg: float, words: str
) -> None:
    """20 degrees that became 12 to the other side read as 12 left over, and as 8 corrected of 32."""
    before = disc("upper", 20.0, 60.0) + disc("lower", 0.0, -40.0)
    now = disc("upper", -tilt_deg, 60.0) + disc("lower", 0.0, -40.0)
    found = measured(plan_of("cobb", before=before), "cobb", drawn(now), SCAN)
    values = [m.value for m in found.measurements]
    assert values == pytest.approx([now_deg, -20.0, change_deg])
    assert found.note == f"Before surgery 20 deg, convex to the left; now {words}"
    side = (1.0, 0.0, 0.0)
    bent = disc("upper", tilt_deg, 60.0, side) + disc("lower", 0.0, -40.0, side)
    (angle,) = measured(plan_of("cobb"), "cobb", drawn(bent, "sagittal"), SCAN).measurements
    # Turned right-handed about R, the upper endplate leans back: that is lordosis.
    assert angle.value == pytest.approx(tilt_deg)


def test_endplates_that_are_exchanged_bend_no_spine_to_the_other_side() -> None:
    now = disc("lower", 10.0, 60.0) + disc("upper", -4.0, -40.0)
    with pytest.raises(AssessmentError, match="the upper endplate must lie above the lower one"):
        measured(plan_of("cobb"), "cobb", drawn(now), SCAN)


def test_intervals_hold_the_truth_when_points_are_placed_by_hand() -> None:
    rng = np.random.default_rng(3)
    exact = disc("upper", 12.0, 60.0) + disc("lower", -8.0, -40.0)
    inside = []
    for _ in range(200):
        placed = [(name, place + rng.normal(0.0, 1.0, 3)) for name, place in exact]
        (angle,) = measured(plan_of("cobb"), "cobb", drawn(placed), Scan(POSE, 0.0, 1.0)).measurements
        assert angle.interval is not None
        inside.append(angle.interval[0] <= -20.0 <= angle.interval[1])
    assert 0.9 <= np.mean(inside) <= 0.99


def test_an_angle_of_zero_is_as_unsure_as_any_other() -> None:
    """A straight spine was told to have 0.0 to 0.0 degrees."""
    straight, bent = (disc("upper", 0.0, 60.0) + disc("lower", tilt, 0.0) for tilt in (0.0, 20.0))
    widths = []
    for points in (straight, bent):
        (angle,) = measured(plan_of("cobb"), "cobb", drawn(points), SCAN).measurements
        assert angle.value is not None
        assert angle.interval is not None
        widths.append(angle.interval[1] - angle.value)
    assert widths[0] == pytest.approx(widths[1], rel=0.2)


def test_cup_by_the_definitions_of_murray() -> None:
    inclination, anteversion = np.deg2rad(42.0), np.deg2rad(17.0)
    axis = np.array([np.cos(anteversion) * np.sin(inclination), np.sin(anteversion), 0.0])
    axis[2] = -np.cos(anteversion) * np.cos(inclination)
    across = np.linalg.svd(axis[None])[2][1:]
    turns = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    for side, sign in (("right", 1.0), ("left", -1.0)):
        mirror = np.array([sign, 1.0, 1.0])
        rim = [mirror * ((90.0, 0.0, -60.0) + 26 * (np.cos(t) * across[0] + np.sin(t) * across[1])) for t in turns]
        pelvis = [("ASIS right", np.array([120.0, 0, 20])), ("ASIS left", np.array([-120.0, 0, 20]))]
        points = [*((f"rim {n}", place) for n, place in enumerate(rim)), *pelvis, ("pubis", np.array([0.0, 0, -80]))]
        values = named(measured(plan_of("hip"), "hip", drawn(points, side), SCAN))
        # The pelvis carries the registration: marked before surgery, it need not be marked again.
        only_rim = [(name, place) for name, place in points if name.startswith("rim")]
        again = measured(plan_of("hip", before=points[-3:]), "hip", drawn(only_rim, side), SCAN)
        assert [m.value for m in again.measurements] == pytest.approx([m.value for m in values.values()])
        assert again.note == ""
        radiographic = [m for name, m in values.items() if "radiographic" in name]
        holds(next(m for m in radiographic if "inclination" in m.name.lower()), 42.0, 1e-4)
        holds(next(m for m in radiographic if "anteversion" in m.name.lower()), 17.0, 1e-4)


def test_a_leg_before_and_now_with_intervals_and_with_what_its_scan_does_not_show() -> None:
    def knee(mpta: float) -> Named:
        slope = np.deg2rad(90.0 - mpta)
        aside = 35.0 * np.array([np.cos(slope), 0.0, np.sin(slope)])
        ankle = ("Ankle", np.array([0.0, 0.0, -360.0]))
        return [("Knee", np.zeros(3)), ankle, ("Plateau medial", -aside), ("Plateau lateral", aside)]

    values = named(measured(plan_of("leg", before=knee(82.0)), "leg", drawn(knee(89.0)), SCAN))
    holds(values["mMPTA, right"], 89.0, 1e-4)
    holds(values["mMPTA, right: change"], 7.0, 1e-4)
    assert values["Hip-knee-ankle angle HKA, right"].missing_because == "not placed: femoral head"


def test_the_operated_leg_against_the_other_one() -> None:
    pelvis = [("Teardrop right", np.array([55.0, 0, 0])), ("Teardrop left", np.array([-55.0, 0, 0]))]
    legs = [("Trochanter right", np.array([70.0, 0, -46])), ("Trochanter left", np.array([-70.0, 0, -40]))]
    found = measured(plan_of("length", before=pelvis), "length", drawn(legs), SCAN)
    values = named(found)
    holds(values["Leg length difference, right operated"], 6.0, 1e-4)
    assert values["Femoral offset, right"].value is None
    other = named(measured(plan_of("length", before=pelvis), "length", drawn(legs, "left"), SCAN))
    holds(other["Leg length difference, left operated"], -6.0, 1e-4)


def test_sagittal_balance_with_and_without_the_neck() -> None:
    slope, tilt = np.deg2rad(40.0), np.deg2rad(15.0)
    corners = np.array([[0, -17 * np.cos(slope), 17 * np.sin(slope)], [0, 17 * np.cos(slope), -17 * np.sin(slope)]])
    hips, wide = 100 * np.array([0, np.sin(tilt), -np.cos(tilt)]), np.array([85.0, 0.0, 0.0])
    points = disc("L1 ", -12.0, 150.0, (1.0, 0.0, 0.0))
    points += [("S1 posterior", corners[0]), ("S1 anterior", corners[1])]
    points += [("hip 1", hips + wide), ("hip 2", hips - wide)]
    values = named(measured(plan_of("sagittal"), "sagittal", drawn(points), SCAN))
    holds(values["Sacral slope SS"], 40.0)
    holds(values["Pelvic tilt PT"], 15.0)
    holds(values["Pelvic incidence PI"], 55.0)
    holds(values["Lumbar lordosis LL"], 40.0 - 12.0)
    assert values["Sagittal vertical axis SVA"].value is None
    neck = [*points, ("C7", corners[0] + (0.0, 33.0, 420.0))]
    values = named(measured(plan_of("sagittal"), "sagittal", drawn(neck), SCAN))
    holds(values["Sagittal vertical axis SVA"], 33.0)


def motion(angle_deg: float, shift: tuple[float, float, float], about: np.ndarray) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = rotation_about((0.0, 1.0, 0.0), angle_deg)
    result[:3, 3] = about - result[:3, :3] @ about + shift
    return result


def test_an_osteotomy_against_its_plan() -> None:
    places = np.array([[0, 0, 0], [60, 5, 0], [20, 45, 10], [10, -5, 50.0]])
    before = [(f"Bone {n}", place) for n, place in enumerate(places)]
    middle = places.mean(axis=0)
    plan = plan_of("osteotomy", before=before, correction=motion(10.0, (0, 0, 0), middle))
    now = [(name, apply(motion(7.5, (0.0, 0.0, 3.0), middle), place)) for name, place in before]
    found = measured(plan, "osteotomy", drawn(now), SCAN)
    values = named(found)
    holds(values["Correction: rotation error"], 2.5)
    holds(values["Correction: rotation error, coronal plane"], -2.5)
    holds(values["Correction: translation error"], 3.0)
    assert "Landmarks fit to 0.0 mm" in found.note
    wrong = [(name, place + 30.0 * (name == "Bone 1")) for name, place in now]
    with pytest.raises(SessionError, match="do not fit one another"):
        measured(plan, "osteotomy", drawn(wrong), SCAN)
    with pytest.raises(SessionError, match="three landmarks"):
        measured(plan, "osteotomy", drawn(now[:2]), SCAN)


def ball(directions: np.ndarray, at: np.ndarray, radius_mm: float) -> Image:
    grid = corner_from_centre(directions, at, (40, 40, 40))
    k, j, i = np.indices((40, 40, 40))
    away = np.linalg.norm(apply(grid, np.stack([i, j, k], axis=-1).astype(float)) - at, axis=-1)
    return Image((away < radius_mm).astype(np.uint8), grid)


def test_what_is_left_of_a_nidus(directions: np.ndarray) -> None:
    at = np.array([20.0, 5.0, -8.0])
    plan = plan_of("vascular", nidus=ball(np.eye(3), at, 12.0))
    residual = ball(directions, apply(POSE, at + np.array([0.0, 6.0, 0.0])), 6.0)
    found = measured(plan, "vascular", Drawn("scan", label=residual, option="seen"), SCAN)
    values = named(found)
    holds(values["Residual nidus"], 4 / 3 * np.pi * 6.0**3 / 1000, 0.05)
    holds(values["Nidus removed"], 100 * (1 - 1 / 8), 1.0)
    assert found.note == "Residual nidus, shunt seen."
    gone = measured(plan, "vascular", Drawn("scan", label=residual.with_array(0 * residual.array)), SCAN)
    assert named(gone)["Residual nidus"].value == 0.0
    assert "not a proof of cure" in gone.note
    away = ball(directions, apply(POSE, at + np.array([60.0, 0.0, 0.0])), 6.0)
    with pytest.raises(SessionError, match=r"4[0-5] mm from the nidus"):
        measured(plan, "vascular", Drawn("scan", label=away), SCAN)


@pytest.mark.parametrize(
    ("radius_mm", "enhancing", "words"),
    [
        (6.0, ("1 or 2A", "1 or 2A", "2B"), "RANO class 1 (1 to 2B over the interval)"),
        (14.0, ("1 or 2A", "1 or 2A", "2B"), "RANO class 2A (2A to 2B over the interval)"),
        (14.0, ("3A", "2B", "3A"), "RANO class 3A (2B to 3A over the interval)"),
        (10.4, ("1 or 2A", "1 or 2A", "1 or 2A"), "RANO class 1 (1 to 2A over the interval)"),
    ],
)
def test_the_non_enhancing_residual_decides_between_the_best_classes(
    directions: np.ndarray, radius_mm: float, enhancing: tuple[str, str, str], words: str
) -> None:
    """Five cm3 (a ball of 10.6 mm) are the limit of a supramaximal resection; what enhances still comes first."""
    at = np.array([20.0, 5.0, -8.0])
    outer, inner = (ball(np.eye(3), at, radius).array for radius in (18.0, 9.0))
    tumour = ball(np.eye(3), at, 1.0).with_array(np.where(inner, 1, 3 * outer).astype(np.uint8))
    plan = plan_of("nonenhancing", tumour=tumour)
    residual = ball(directions, apply(POSE, at), radius_mm)
    found = measured(plan, "nonenhancing", Drawn("scan", label=residual), replace(SCAN, rano=RanoClass(*enhancing)))
    values = named(found)
    true = 4 / 3 * np.pi * radius_mm**3 / 1000
    before = 4 / 3 * np.pi * (18.0**3 - 9.0**3) / 1000
    holds(values["Residual non-enhancing tumour"], true, 0.1)
    holds(values["Extent of resection, non-enhancing tumour (T2 / FLAIR)"], 100 * (1 - true / before), 1.0)
    assert found.note.startswith(words)
    assert "nCE" in found.note
    alone = measured(plan_of("nonenhancing"), "nonenhancing", Drawn("scan", label=residual), SCAN)
    assert [m.name for m in alone.measurements] == ["Residual non-enhancing tumour"]
    assert alone.note.startswith("No RANO class")
    away = ball(directions, apply(POSE, at + np.array([80.0, 0.0, 0.0])), radius_mm)
    with pytest.raises(SessionError, match="mm from the tumour"):
        measured(plan, "nonenhancing", Drawn("scan", label=away), SCAN)
    with pytest.raises(SessionError, match="outline it"):
        measured(plan, "nonenhancing", Drawn("scan"), SCAN)


def test_a_cord_lesion_along_a_centre_line_of_before_or_now(directions: np.ndarray) -> None:
    line = np.array([[0.0, 0.0, z] for z in np.linspace(-40, 40, 17)])
    residual = ball(directions, apply(POSE, np.zeros(3)), 7.0)
    by_now = Drawn("scan", tuple((f"F-{n}", place) for n, place in enumerate(apply(POSE, line))), residual)
    for plan, each in (
        (plan_of("cord"), by_now),
        (plan_of("cord", centreline=line), Drawn("scan", label=residual)),
    ):
        found = measured(plan, "cord", each, SCAN)
        values = named(found)
        holds(values["Length along the cord"], 14.0, 1.2)
        holds(values["Largest cross-section"], np.pi * 49.0, 12.0)
        assert ("before surgery" in found.note) is (plan.centreline is not None)
    with pytest.raises(SessionError, match="no centre line"):
        measured(plan_of("cord"), "cord", Drawn("scan", label=residual), SCAN)


def test_names_share_a_group_by_what_stands_before_their_number() -> None:
    names = ("Upper 1", "upper-2", "UPPER3", "L1", "L1 2", "l1-3", "S1 posterior", "C7", "hip_2")
    found = grouped((name, np.zeros(3)) for name in names)
    counts = {name: len(places) for name, places in found.items()}
    assert counts == {"upper": 3, "l1": 3, "s1 posterior": 1, "c7": 1, "hip": 1}


def test_what_is_missing_is_named() -> None:
    upper = disc("upper", 5.0, 40.0)
    with pytest.raises(SessionError, match=r"missing on the intraoperative scan: 'lower' 3 \(there are 0\)"):
        measured(plan_of("cobb"), "cobb", drawn(upper), SCAN)
    partly = measured(plan_of("cobb", before=upper), "cobb", drawn(upper + disc("lower", 0.0, 0.0)), SCAN)
    assert len(partly.measurements) == 1
    assert "Not compared with before surgery: points are missing on the preoperative scan" in partly.note
    with pytest.raises(SessionError, match="no measure: choose one of vascular, cord"):
        measured(plan_of("cobb"), "knee", drawn(upper), SCAN)
    with pytest.raises(SessionError, match="outline it on the intraoperative scan"):
        measured(plan_of("cord"), "cord", drawn(upper), SCAN)
    with pytest.raises(SessionError, match="'oblique' is not known"):
        measured(plan_of("cobb"), "cobb", drawn(upper, "oblique"), SCAN)
    with pytest.raises(SessionError, match="finite coordinates"):
        measured(plan_of("cobb"), "cobb", Drawn("scan", (("upper 1", (0.0, np.nan, 1.0)),)), SCAN)
    thin = [(name, place * (1.0, 0.01, 1.0)) for name, place in upper + disc("lower", 0.0, 0.0)]
    with pytest.raises(AssessmentError, match="spread only"):
        measured(plan_of("cobb"), "cobb", drawn(thin), SCAN)


def test_plans_need_what_their_procedure_needs() -> None:
    with pytest.raises(SessionError, match="the label of the nidus"):
        plan_of("vascular")
    with pytest.raises(SessionError, match="a correction and three landmarks"):
        plan_of("osteotomy")
    with pytest.raises(SessionError, match="'knee'"):
        plan_of("knee")
    with pytest.raises(SessionError, match="neither a tumour nor an implant"):
        plan_of()
    assert set(RECIPES) == {"vascular", "cord", "cobb", "sagittal", "hip", "leg", "length", "osteotomy", "nonenhancing"}


@pytest.fixture
def session() -> Session:
    return Session(plan_of("cobb", "hip"))


def registered(session: Session) -> Image:
    """A scan that has arrived and was registered."""
    image = replace(preop(), name="T2")
    session._pair.take(image, "native")
    session.journal.image(image, "native")
    found = RigidRegistration(POSE, GOOD, 1.0, 0.3, 0.9, 0.1, 1.0, image.uid, "preop")
    session._pair.place("native", found)
    session._registered(found, image)
    return image


def test_numbers_go_with_the_scan_that_they_were_drawn_on(session: Session) -> None:
    points = drawn(disc("upper", 10.0, 60.0) + disc("lower", -4.0, -40.0))
    with pytest.raises(SessionError, match="newer image"):
        session.measure("cobb", points)
    image = registered(session)
    points = replace(points, image_uid=image.uid)
    session.measure("cobb", points, "Dr. X")
    (entry,) = session.journal.record.drawn
    assert (entry.kind, entry.drawn_by, entry.image_uid) == ("cobb", "Dr. X", image.uid)
    assert entry.measurements[0].value == pytest.approx(-14.0)
    assert from_json(to_json(session.journal.record)) == session.journal.record
    session.measure("cobb", replace(points, option="sagittal"))
    assert len(session.journal.record.drawn) == 1, "the same measure again replaces the one before"
    registered(session)
    assert not session.journal.record.drawn
    with pytest.raises(SessionError, match="newer image"):
        session.measure("cobb", points)


def test_a_scan_that_was_not_registered_gives_no_number(session: Session) -> None:
    image = registered(session)
    session._pair.take(image, "native")
    with pytest.raises(SessionError, match="not registered"):
        session.measure("cobb", Drawn(image.uid))


def test_a_person_may_withdraw_and_the_report_says_what_is_open(session: Session) -> None:
    image = registered(session)
    points = drawn(disc("upper", 10.0, 60.0) + disc("lower", -4.0, -40.0))
    session.measure("cobb", replace(points, image_uid=image.uid), "Dr. X")
    shown = render(as_document(session.journal.record))
    assert "Cobb angle, coronal, supine" in shown
    assert "14.0°" in shown
    assert "Drawn by Dr. X" in shown
    assert "Acetabular cup" in shown
    assert shown.count("not measured in this session") == 2, "in the summary and below"
    assert "Residual enhancing tumour" not in shown
    session.withdraw("cobb")
    assert not session.journal.record.drawn
    assert [event.kind for event in session.journal.record.events][-2:] == ["measured", "withdrawn"]
    with pytest.raises(SessionError, match="no result of the measure 'cobb'"):
        session.withdraw("cobb")
