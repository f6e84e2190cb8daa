"""A screw in a spine whose vertebrae moved each on its own: its plan goes with its vertebra, not with the whole."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Trajectory
from IntraopMRILib.register.rigid import RigidRegistration, register_rigid
from IntraopMRILib.register.vertebrae import VertebraRegistration
from IntraopMRILib.report.html import render
from IntraopMRILib.session import Link, Plan, Session
from IntraopMRILib.session.implants import (
    Carrier,
    _without_the_whole,
    carriers,
    found_implant,
    implanted_of,
    unknown_of,
    vertebrae_among,
    vertebrae_of,
)
from IntraopMRILib.session.measures import Drawn
from IntraopMRILib.session.updates import BonesFound, ImplantFound, PlanCarried, Problem, Registered, Update
from IntraopMRILib.workflow.record import as_document
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict, no_progress
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.simulate.spine import INSTRUMENTED, LEVELS_MM, SpineCase, make_spine_case
from IntraopMRIReconstructionLib.wire.adapters import message_from_image
from IntraopMRIReconstructionLib.wire.transport import Server
from scipy.spatial.transform import Rotation
from session.conftest import PATIENT, wait_with_all

SCREW = "Screw L3"
KEYS = {"entry deviation": "entry_mm", "tip deviation": "tip_mm", "angular deviation": "angle_deg"}


def plan_of(case: SpineCase) -> Plan:
    screw = case.plan
    planned = Trajectory(screw.entry_ras_mm, screw.tip_ras_mm, screw.diameter_mm, SCREW, screw.susceptibility_ppm)
    return Plan(
        PATIENT,
        "test",
        case.preop,
        trajectories=(planned,),
        vertebrae=vertebrae_of(case.vertebrae, tuple(LEVELS_MM)),
        implanted={SCREW: INSTRUMENTED},
        pedicles={SCREW: case.pedicle},
    )


@pytest.fixture(scope="module")
def bent() -> SpineCase:
    return make_spine_case(1, spacing_mm=1.5, bend_deg=5.0, slide_mm=2.0)


@pytest.fixture(scope="module")
def scan(bent: SpineCase) -> Image:
    return replace(bent.noisy(), metadata=bent.scan.facts())


@pytest.fixture(scope="module")
def rigid(bent: SpineCase, scan: Image) -> RigidRegistration:
    return register_rigid(scan, bent.preop)


def check(found: ImplantFound, case: SpineCase) -> None:
    measured = {m.name.rpartition(": ")[2]: m for m in found.measurements}
    for name, key in KEYS.items():
        each, true = measured[name], case.truth.deviations[key]
        assert each.value == pytest.approx(true, abs=0.5)
        assert each.interval is not None
        assert each.interval[0] <= true <= each.interval[1]


def test_the_plan_goes_with_its_vertebra(bent: SpineCase, scan: Image, rigid: RigidRegistration) -> None:
    plan = plan_of(bent)
    carried = carriers(plan, scan, rigid, no_progress, 2)
    carrier, moved = carried.by_name[SCREW], carried.measurements
    assert carrier.basis == "pose of L3"
    assert carrier.own_motion is not None
    assert rigid.intraop_from_preop @ carrier.own_motion == pytest.approx(carrier.intraop_from_preop)
    found = found_implant(scan, plan.trajectories[0], carrier, plan.pedicles[SCREW])
    check(found, bent)
    assert unknown_of(found) == ""
    whole = found_implant(scan, plan.trajectories[0], Carrier(rigid.intraop_from_preop, rigid.residual_mm), None)
    assert np.linalg.norm(whole.planned.tip_ras_mm - found.planned.tip_ras_mm) > 0.7
    # Neighbours are registered too, for the collision; each motion is told with its interval.
    assert [m.name for m in moved[:3]] == [f"{name}: moved on its own" for name in ("L2", "L3", "L4")]
    upper, lower = (bent.truth.vertebrae[name][:3, :3] for name in ("L2", "L4"))
    true = Rotation.from_matrix(lower.T @ upper).as_rotvec(degrees=True) * (1, -1, 1)
    for change, expected in zip(moved[3:], true, strict=True):
        assert change.value == pytest.approx(expected, abs=0.4)
        assert change.interval is not None
        assert change.interval[0] <= expected <= change.interval[1]
    assert moved[1].value is not None
    assert moved[1].value > 0.7
    assert moved[1].interval is not None
    assert moved[1].interval[1] - moved[1].interval[0] < 1.0


def test_a_correction_without_implants_is_the_alignment_of_all_vertebrae(
    bent: SpineCase, scan: Image, rigid: RigidRegistration
) -> None:
    plan = replace(plan_of(bent), trajectories=(), implanted={}, pedicles={}, measures=("alignment",))
    found = carriers(plan, scan, rigid, no_progress, 2)
    assert [each.name for each in found.vertebrae] == list(LEVELS_MM)
    upper, lower = (bent.truth.vertebrae[name][:3, :3] for name in ("L1", "L5"))
    true = Rotation.from_matrix(lower.T @ upper).as_rotvec(degrees=True) * (1, -1, 1)
    changes = [m for m in found.measurements if m.name.startswith("L1 to L5: change of")]
    for change, expected in zip(changes, true, strict=True):
        assert change.interval is not None
        assert change.interval[0] <= expected <= change.interval[1]
        assert change.value == pytest.approx(expected, abs=1.0)
    with pytest.raises(SessionError, match="two vertebrae or more"):
        replace(plan, vertebrae={"L1": plan.vertebrae["L1"]})


def test_grade_is_told_with_its_range(bent: SpineCase, scan: Image) -> None:
    plan = plan_of(bent)
    carrier = Carrier(bent.truth.intraop_from_preop, 0.2, "pose of L3")
    sure = found_implant(scan, plan.trajectories[0], carrier, plan.pedicles[SCREW])
    unknown = found_implant(
        replace(scan, metadata={}),
        replace(plan.trajectories[0], susceptibility_ppm=None),
        carrier,
        plan.pedicles[SCREW],
    )
    assert sure.breach is not None
    assert unknown.breach is not None
    assert sure.breach.best <= sure.breach.grade <= sure.breach.worst
    assert unknown.breach.worst > sure.breach.worst
    assert "cannot be told" in unknown.grade
    assert "the metal" in unknown_of(unknown)
    assert "Gertzbein-Robbins" in sure.grade


def test_a_vertebra_that_was_not_found_gives_no_number(bent: SpineCase, scan: Image) -> None:
    lost = Verdict((Reason("correlation of the bone", 0.1, "", "above 0.6", Level.REFUSED),))
    carrier = Carrier(bent.truth.intraop_from_preop, 1.0, "pose of L3", lost)
    with pytest.raises(SessionError, match="pose of L3 was refused"):
        found_implant(scan, plan_of(bent).trajectories[0], carrier, None)


def until_bones(session: Session) -> list[Update]:
    """All updates up to the vertebrae that a person decides on, past what is refused on the way."""
    updates: list[Update] = []
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        for update in session.drain():
            updates.append(update)
            if isinstance(update, BonesFound):
                return updates
        time.sleep(0.01)
    pytest.fail(f"no vertebrae to decide on in 120 s, but {updates}")


@pytest.mark.slow
def test_a_spine_that_is_bent_beyond_one_pose_is_measured_bone_by_bone() -> None:
    """Each vertebra turned by 12 degrees against the next: no pose of the whole, nothing overlaid, yet the screw."""
    case = make_spine_case(1, spacing_mm=1.5, curve_deg=-12.0)
    scan = replace(case.noisy(), metadata=case.scan.facts(), patient_id=PATIENT)
    plan = plan_of(case)
    loose = Trajectory(np.array([40.0, -20, 60]), np.array([40.0, 20, 60]), 5.0, "In no bone")
    plan = replace(plan, trajectories=(*plan.trajectories, loose))
    with Server() as server, Session(plan) as session:
        session.connect(Link("127.0.0.1", server.port))
        assert server.wait_for_peer(10.0)
        server.send(message_from_image(scan, "spine", version=2))
        updates = until_bones(session)
        record = session.journal.record
        with pytest.raises(SessionError, match="not registered"):
            session.measure("cobb", Drawn(record.images[-1].uid))
        told = updates[-1]
        assert isinstance(told, BonesFound)
        bones = {bone.name: bone for bone in told.bones}
        for name in ("L2", "L3", "L4"):
            bones[name] = session.decide_bone(bones[name], True, "Dr. Example")
        decided = session.journal.record
    (found,) = (update for update in updates if isinstance(update, ImplantFound))
    check(found, case)
    assert found.basis == "pose of L3 on its own; count the levels"
    assert found.drawn is None
    registered = [update.registration for update in updates if isinstance(update, Registered)]
    assert [each.verdict.level for each in registered] == [Level.REFUSED]
    assert not any(isinstance(update, PlanCarried) for update in updates)
    said = [update.text for update in updates if isinstance(update, Problem)]
    assert any("nothing of it is overlaid; each vertebra is looked for on its own" in text for text in said)
    (problem,) = (update for update in updates if isinstance(update, Problem) and update.fatal)
    assert "rigid pose of the whole spine was refused" in problem.text
    assert "no number is shown for 'In no bone'" in problem.text
    assert [part.name for part in record.parts] == list(LEVELS_MM)
    assert {part.verdict.level for part in record.parts} == {Level.CHECK}
    bend = next(m for m in record.measurements if m.name == "L1 to L5: change of lordosis, sagittal")
    assert bend.value == pytest.approx(48.0, abs=1.0)
    shown = render(as_document(record))
    assert "found each on its own: L1, L2, L3, L4, L5" in shown
    assert "Bone on its own" in shown
    dash = next(m for m in record.measurements if m.name == "In no bone: deviation from its plan")
    assert dash.value is None
    assert dash.missing_because == problem.text
    assert problem.about == dash.name
    assert '<h3>In no bone</h3><p class="none">No value: the rigid pose of the whole spine was refused' in shown
    assert bones["L3"].carries == (SCREW,)
    turns = {name: turn.value for name, turn, _shift in bones["L3"].neighbours}
    assert turns == pytest.approx({"L2": 12.0, "L4": 12.0}, abs=1.0)
    assert [implant.name for implant in decided.implants] == [SCREW]
    bend = next(m for m in decided.measurements if m.name == "L2 to L4: change of lordosis, sagittal")
    assert bend.value == pytest.approx(24.0, abs=1.0)


@pytest.mark.parametrize(
    ("found", "counts"), [("ggg", "ccc"), ("ggr", "crr"), ("grg", "rrr"), ("g", "r"), ("gc", "cc"), ("gggr", "ccrr")]
)
def test_without_the_whole_a_vertebra_counts_only_with_its_neighbours(found: str, counts: str) -> None:
    levels = {"g": Level.GOOD, "c": Level.CHECK, "r": Level.REFUSED}
    each = tuple(
        VertebraRegistration(
            f"L{n + 1}", np.eye(4), 0.9, 0.3, Verdict((Reason("correlation of the bone", 0.9, "", "", levels[level]),))
        )
        for n, level in enumerate(found)
    )
    assert [v.verdict.level for v in _without_the_whole(each)] == [levels[level] for level in counts]


@pytest.mark.slow
def test_a_whole_session_carries_the_screw_with_its_vertebra(bent: SpineCase, scan: Image) -> None:
    with Server() as server, Session(plan_of(bent)) as session:
        session.connect(Link("127.0.0.1", server.port))
        assert server.wait_for_peer(10.0)
        server.send(message_from_image(replace(scan, patient_id=PATIENT), "spine", version=2))
        _, found = wait_with_all(session, ImplantFound)
        check(found, bent)
        assert found.basis == "pose of L3"
        record = session.journal.record
    assert "Gertzbein-Robbins" in record.implants[0].band
    assert "L3: moved on its own" in [m.name for m in record.measurements]


def test_the_vertebra_that_holds_the_screw_is_found_by_name_and_place(bent: SpineCase) -> None:
    plan = plan_of(bent)
    upward = {name: plan.vertebrae[name] for name in reversed(list(plan.vertebrae))}
    bones, others = vertebrae_among({"Aorta": bent.pedicle, **upward, "L10": bent.pedicle})
    assert list(bones) == list(LEVELS_MM)
    assert list(others) == ["Aorta", "L10"]
    assert implanted_of(plan.trajectories, bones) == {SCREW: INSTRUMENTED}
    assert implanted_of(plan.trajectories, {"L1": bones["L1"]}) == {}


def test_plans_that_name_what_is_not_there_are_refused(bent: SpineCase) -> None:
    plan = plan_of(bent)
    with pytest.raises(SessionError, match="vertebra 'T9'"):
        replace(plan, implanted={SCREW: "T9"})
    with pytest.raises(SessionError, match="pedicles for"):
        replace(plan, pedicles={"other": bent.pedicle})
    with pytest.raises(SessionError, match="vertebra 'L1' is empty"):
        replace(plan, vertebrae={"L1": bent.pedicle.with_array(np.zeros_like(bent.pedicle.array))})
