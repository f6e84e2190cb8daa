"""Planned things follow the brain shift one by one, when a person accepts it; every number says what it rests on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply
from panels.operation import (
    DEEP,
    MOVED,
    REFUSED,
    RISK,
    SHIFT_MM,
    SPACING_MM,
    TARGET,
    Operation,
    markups,
    pose,
    product,
    texts,
)

__all__ = ["app"]


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation()


@pytest.fixture
def confirmed(operation: Operation) -> Operation:
    """Registered, confirmed by a person, and nothing of the plan decided."""
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.panel.refresh()
    return operation


def test_nothing_moves_before_it_is_accepted(operation: Operation) -> None:
    operation.register()
    ui = operation.page("SCAN").ui
    rows = operation.rows()
    assert rows["Biopsy"] == [f"{SHIFT_MM:.1f} mm", "1.2 mm", "Rigid pose: decide"]
    assert rows["Motor tract"][2] == "Rigid pose: decide"
    assert rows["Tent"][2] == "Rigid pose (not offered)", "outside the brain nothing is carried over"
    np.testing.assert_allclose(operation.where("preop.target.Biopsy"), apply(pose(), TARGET), atol=1e-6)
    assert operation.running.view.bridge.node("preop.target.Biopsy").GetName() == "Biopsy (rigid)"
    assert not ui.acceptButton.enabled
    assert "Confirm" in ui.carriedLabel.text
    operation.running.confirm()
    operation.panel.refresh()
    assert "who accepts" in ui.carriedLabel.text
    assert not ui.acceptButton.enabled


def test_accepted_things_move_one_by_one_and_the_record_says_who(operation: Operation) -> None:
    operation.register()
    operation.running.confirm()
    ui = operation.page("SCAN").ui
    ui.acceptedByEdit.setText("Dr. Example")
    operation.panel.refresh()
    operation.choose("Biopsy")
    ui.acceptButton.click()
    assert operation.rows()["Biopsy"][2] == "Carried over"
    assert operation.rows()["Motor tract"][2] == "Rigid pose: decide"
    np.testing.assert_allclose(operation.where("preop.target.Biopsy"), apply(pose(), TARGET) + MOVED, atol=0.02)
    assert operation.running.view.bridge.node("preop.target.Biopsy").GetName() == "Biopsy"
    operation.choose("Motor tract")
    ui.rejectButton.click()
    assert operation.rows()["Motor tract"][2] == "Rigid pose (rejected)"
    decisions = {entry.name: entry for entry in operation.session.journal.record.carried}
    assert decisions["Biopsy"].decision == "accepted"
    assert decisions["Biopsy"].decided_by == "Dr. Example"
    assert decisions["Biopsy"].moved_mean_mm == pytest.approx(SHIFT_MM, abs=1e-3)
    assert decisions["Motor tract"].decision == "rejected"
    events = [event.text for event in operation.session.journal.record.events if event.kind == "carried over"]
    assert len(events) == 2
    assert "Biopsy" in events[0]
    assert "uncertainty 1.2 mm" in events[0]
    operation.choose("Biopsy")
    ui.rejectButton.click()
    np.testing.assert_allclose(operation.where("preop.target.Biopsy"), apply(pose(), TARGET), atol=1e-6)


def test_all_good_ones_at_once_and_no_others(confirmed: Operation) -> None:
    button = confirmed.page("SCAN").ui.acceptGoodButton
    assert button.text == "Accept all good (2)"
    button.click()
    assert {name: row[2] for name, row in confirmed.rows().items()} == {
        "Biopsy": "Carried over", "Motor tract": "Carried over", "Tent": "Rigid pose (not offered)",
    }  # fmt: skip
    assert not button.enabled


def test_distances_say_what_they_rest_on(confirmed: Operation) -> None:
    confirmed.open("NAVIGATE")
    ui = confirmed.page("NAVIGATE").ui
    carried = confirmed.page("SCAN").choices
    confirmed.choose("Biopsy")
    carried.decide(False)
    confirmed.point(apply(pose(), TARGET))
    assert "0.0 mm" in ui.targetDistanceLabel.text
    assert "Biopsy, rigid pose" in ui.targetDistanceLabel.text
    assert f"{SHIFT_MM:.1f} ± 1.2 mm" in ui.tipShiftLabel.text
    confirmed.choose("Biopsy")
    carried.decide(True)
    carried.acceptGood()
    confirmed.point(apply(pose(), TARGET))
    assert f"{SHIFT_MM:.1f} mm" in ui.targetDistanceLabel.text
    assert "carried over, accepted by Dr. Example at" in ui.targetDistanceLabel.text
    assert "± 1.2 mm" in ui.targetDistanceLabel.text
    confirmed.point(apply(pose(), RISK) + MOVED)
    assert "Motor tract (carried over)" in ui.alarmLabel.text
    assert "−" in ui.riskDistanceLabel.text, "the tip is inside where the tract is now"
    assert "inside it" in ui.riskDistanceLabel.text
    confirmed.point(np.array([-20.0, 0.0, 10.0]))
    assert "–</span>&nbsp;&nbsp;in the cavity" in ui.tipShiftLabel.text, "there the shift is not known"
    assert "in the cavity" in ui.tipShiftLabel.toolTip


def test_the_expected_error_of_the_pointer_stands_at_the_target_while_touched_points_place_it(
    confirmed: Operation,
) -> None:
    register, label = confirmed.page("REGISTER"), confirmed.page("NAVIGATE").ui.targetDistanceLabel
    confirmed.page("SCAN").choices.acceptGood()
    known = np.array([[60.0, 0, 0], [-60, 10, 0], [0, 60, 20], [0, -50, 40]])
    register.ui.checkPointsSelector.setCurrentNode(markups("Known", {f"P{n}": point for n, point in enumerate(known)}))
    confirmed.open("NAVIGATE")
    confirmed.point(apply(pose(), TARGET))
    assert "TRE" not in label.text, "what places the pointer is the tracker's own calibration, whose error nobody knows"
    confirmed.panel.parameters.trackerReportsScannerFrame = False
    rng = np.random.default_rng(1)
    for point in known:
        matrix = np.eye(4)
        matrix[:3, 3] = point + rng.normal(0.0, 0.6, 3)
        confirmed.running.place(Pose(matrix, "Pointer", time.monotonic(), time.time()))
        register.touch()
    register.use(register._registration)
    confirmed.point(apply(pose(), TARGET))
    error = register._registration.expected_tre_mm([apply(pose(), TARGET) + MOVED])[0]
    assert 0.2 < error < 3.0
    assert f"expected error (TRE) {error:.1f} mm" in label.text
    assert "Fitzpatrick" in label.toolTip
    lost = Pose(np.eye(4), "Pointer", time.monotonic(), time.time(), valid=False)
    confirmed.running.place(lost)
    confirmed.page("NAVIGATE").poseArrived()
    confirmed.page("NAVIGATE").tick()
    assert "TRE" not in label.text
    confirmed.point(apply(pose(), TARGET))
    assert "TRE" in label.text
    register.withdraw()
    confirmed.page("NAVIGATE").tick()
    assert "TRE" not in label.text


def test_distances_of_an_older_scan_are_gone_before_page_5_is_seen_again(confirmed: Operation) -> None:
    confirmed.open("NAVIGATE")
    confirmed.point(apply(pose(), TARGET))
    page = confirmed.page("NAVIGATE")
    assert page.guidance is not None
    confirmed.open("SCAN")
    confirmed.image = confirmed.scan()
    confirmed.register()
    assert page.guidance is None, "nobody has confirmed"
    confirmed.running.confirm()
    assert page.guidance is None, "confirmed, but made for the scan before"
    confirmed.open("NAVIGATE")
    assert page.guidance is not None


def test_nobody_goes_on_past_what_is_undecided(confirmed: Operation) -> None:
    scan, next_button = confirmed.page("SCAN"), confirmed.panel.ui.nextButton
    assert "2 of 2 plan items undecided" in confirmed.panel.ui.whyLabel.text
    assert next_button.text == "Accept or reject: Biopsy"
    assert not next_button.enabled
    assert scan.state().readiness.name == "READY"
    assert confirmed.page("NAVIGATE").state().readiness.name == "BLOCKED"
    assert scan.ui.acceptButton.styleSheet
    assert scan.ui.acceptButton.styleSheet == scan.ui.rejectButton.styleSheet, "no way is suggested"
    scan.ui.acceptButton.click()
    assert next_button.text == "Accept or reject: Motor tract"
    scan.ui.rejectButton.click()
    assert next_button.text.startswith("Go on: 5")
    assert not scan.ui.leaveButton.isVisibleTo(scan.widget)


def test_going_on_without_deciding_is_a_choice_that_shows_nothing_and_is_written_down(confirmed: Operation) -> None:
    scan, bridge = confirmed.page("SCAN"), confirmed.running.view.bridge
    confirmed.choose("Biopsy")
    scan.ui.acceptButton.click()
    scan.ui.leaveButton.click()
    assert confirmed.panel.ui.nextButton.text.startswith("Go on: 5")
    assert "1 of 2 plan items undecided: not shown in navigation" in scan.state().text
    events = [event.text for event in confirmed.session.journal.record.events if event.kind == "carried over"]
    assert events[-1] == "left undecided by Dr. Example, not shown in navigation: Motor tract"
    decisions = {entry.name: entry.decision for entry in confirmed.session.journal.record.carried}
    assert decisions["Motor tract"] == "open", "never as accepted"
    shown = {name: bridge.node(f"preop.{name}").GetDisplayNode for name in ("target.Biopsy", "risk.Motor tract")}
    assert shown["risk.Motor tract"]().GetVisibility(), "page 4 shows what it asks about"
    confirmed.open("NAVIGATE")
    assert shown["target.Biopsy"]().GetVisibility()
    assert not shown["risk.Motor tract"]().GetVisibility()
    confirmed.point(apply(pose(), RISK))
    page = confirmed.page("NAVIGATE")
    assert page.guidance.risk is None
    assert "Motor tract: not decided" in page.ui.riskDistanceLabel.text
    assert "Not watched: Motor tract" in page.ui.alarmLabel.text
    confirmed.open("SCAN")
    assert shown["risk.Motor tract"]().GetVisibility()
    confirmed.image = confirmed.scan()
    confirmed.register()
    confirmed.running.confirm()
    confirmed.panel.refresh()
    assert not confirmed.panel.ui.nextButton.enabled, "the choice was made for another scan"


def test_next_goes_through_what_is_undecided_and_the_views_go_there(confirmed: Operation) -> None:
    ui, manager = confirmed.page("SCAN").ui, slicer.app.layoutManager()

    def middle() -> np.ndarray:
        matrix = slicer.util.arrayFromVTKMatrix(manager.sliceWidget("Red").mrmlSliceNode().GetSliceToRAS())
        return np.asarray(matrix[:3, 3])

    confirmed.choose("Motor tract")
    np.testing.assert_allclose(middle(), apply(pose(), RISK), atol=SPACING_MM)
    ui.nextItemButton.click()
    assert "Biopsy" in ui.itemLabel.text
    np.testing.assert_allclose(middle(), apply(pose(), TARGET), atol=1e-3)
    ui.acceptButton.click()
    assert "Motor tract" in ui.itemLabel.text, "the next one that nobody has decided on"


def test_every_dash_has_its_reason(operation: Operation) -> None:
    page = operation.page("NAVIGATE")
    labels = ("residualDistanceLabel", "riskDistanceLabel", "targetDistanceLabel", "tipShiftLabel", "cursorShiftLabel")

    def reasons() -> dict[str, str]:
        operation.panel.refresh()
        found = {}
        for name in labels:
            label = getattr(page.ui, name)
            assert "–</span>&nbsp;&nbsp;" in label.text, name
            found[name] = label.text.partition("&nbsp;&nbsp;")[2]
            assert found[name], name
            assert found[name] in label.toolTip, name
        return found

    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionInvalid()
    operation.register()
    operation.open("NAVIGATE")
    assert reasons()["residualDistanceLabel"] == "registration not confirmed"
    operation.running.confirm()
    found = reasons()
    assert found["riskDistanceLabel"] == "no pointer yet"
    assert found["cursorShiftLabel"] == "point at a slice"
    operation.point(np.array([-20.0, 0.0, 10.0]))
    found = reasons()
    assert found["residualDistanceLabel"] == "not measured: needs a scan with contrast agent and one without"
    assert found["targetDistanceLabel"] == "Biopsy: not decided on page 4"
    assert found["tipShiftLabel"] == "in the cavity"


def test_shift_under_the_cursor(operation: Operation) -> None:
    operation.register()
    page = operation.page("NAVIGATE")
    cross = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    cross.SetCursorPositionRAS([5.0, 5.0, 5.0])
    assert page.shiftLines() == (), "before a person has confirmed nothing is said"
    operation.running.confirm()
    operation.open("NAVIGATE")
    assert [line.text for line in page.shiftLines()] == ["BRAIN SHIFT", f"cursor {SHIFT_MM:.1f} ± 1.2 mm"]
    assert f"{SHIFT_MM:.1f} ± 1.2 mm" in page.ui.cursorShiftLabel.text
    cross.SetCursorPositionRAS([0.0, 0.0, 47.0])
    assert page.shiftLines() == ()


def test_a_refused_brain_shift_offers_nothing(operation: Operation) -> None:
    operation.register(REFUSED)
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.panel.refresh()
    ui = operation.page("SCAN").ui
    assert {row[2] for row in operation.rows().values()} == {"Rigid pose (not offered)"}
    assert {row[0] for row in operation.rows().values()} == {"–"}
    assert not ui.acceptButton.enabled
    assert not ui.acceptGoodButton.enabled
    assert not ui.shiftMapBox.enabled


def test_a_new_image_withdraws_what_was_accepted(confirmed: Operation) -> None:
    confirmed.page("SCAN").choices.acceptGood()
    old = confirmed.running.view.items["target.Biopsy"]
    confirmed.image = confirmed.scan()
    confirmed.arrive(confirmed.image)
    assert not confirmed.running.view.items
    assert not confirmed.running.view.bridge.node("preop.target.Biopsy").GetDisplayVisibility()
    assert confirmed.session.journal.record.carried == ()
    with pytest.raises(SessionError, match="newer image"):
        confirmed.session.decide(old, True, "Dr. Example")
    confirmed.register()
    assert confirmed.rows()["Biopsy"][2] == "Rigid pose: decide"
    tip = confirmed.page("SCAN").ui.carriedTable.item(0, 0).toolTip()
    assert "On an earlier scan: carried over, accepted by Dr. Example" in tip


def test_maps_arrows_and_pairs(operation: Operation) -> None:
    operation.register()
    p, manager = operation.panel.parameters, slicer.app.layoutManager()
    Pair, ShiftMap = product("scene.parameters").Pair, product("scene.parameters").ShiftMap
    composite = manager.sliceWidget("Red").mrmlSliceCompositeNode()
    bridge = operation.running.view.bridge

    def shown() -> tuple[Any, ...]:
        operation.panel.refresh()
        ids = composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()
        return tuple(slicer.mrmlScene.GetNodeByID(one) if one else None for one in ids)

    now, carried, rigid = (bridge.node(role) for role in ("intraop.contrast", "preop.volume", "preop.rigid"))
    assert shown() == (carried, now)
    p.pair = Pair.RIGID_NOW
    assert shown() == (rigid, now)
    p.pair = Pair.RIGID_CARRIED
    assert shown() == (rigid, carried)
    p.shiftMap = ShiftMap.UNCERTAINTY
    assert shown() == (now, bridge.node("result.uncertainty"))
    p.shiftMap = ShiftMap.SHIFT
    assert shown() == (now, bridge.node("result.shift"))
    managers = manager.sliceWidget("Red").sliceView().drawn.managers
    legends = managers.GetDisplayableManagerByClassName("vtkMRMLColorLegendDisplayableManager")

    def legend(role: str) -> Any:
        return legends.GetColorLegendActor(slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(bridge.node(role)))

    assert legend("result.shift").GetVisibility()
    assert not legend("result.uncertainty").GetVisibility()
    arrows = bridge.node("result.arrows").GetDisplayNode()
    assert not arrows.GetVisibility()
    p.shiftArrows = True
    operation.panel.refresh()
    assert bridge.node("result.arrows").GetDisplayNode().GetVisibility()
    bridge.withdraw("test")
    assert not bridge.node("result.arrows").GetDisplayNode().GetVisibility()


def test_a_checkerboard_shows_the_pair_that_was_asked_for(operation: Operation) -> None:
    operation.register()
    p, compare = operation.panel.parameters, operation.page("SCAN").compare
    Comparison, Pair = product("scene.parameters").Comparison, product("scene.parameters").Pair
    carry = product("register.carry_over").CarryOver
    rigid = operation.running.registered.registration
    preop = operation.session.plan.preoperative
    p.comparison = Comparison.CHECKERBOARD
    for pair, before in (
        (Pair.BEFORE_NOW, carry(rigid, operation.running.shift.deformable)),
        (Pair.RIGID_NOW, carry(rigid)),
    ):
        p.pair = pair
        operation.panel.refresh()
        wait_until(lambda: compare._board is not None and operation.running.task is None, 30, "the checkerboard")
        expected = product("scene.panels.compare").checkerboard(before.volume(preop, operation.image), operation.image)
        np.testing.assert_allclose(slicer.util.arrayFromVolume(compare._board), expected, atol=1e-5)
    p.comparison = Comparison.BLEND
    operation.panel.refresh()
    compare.close()


def test_a_loaded_scene_carries_nothing_over(confirmed: Operation, tmp_path: Path) -> None:
    confirmed.page("SCAN").choices.acceptGood()
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    slicer.app.processEvents()
    p = confirmed.panel.parameters
    assert "target.Biopsy" in json.loads(p.carriedBefore)
    assert not confirmed.running.trusted
    assert confirmed.running.view is None
    bridge = product("scene.bridge").SceneBridge(slicer.mrmlScene)
    node = bridge.node("preop.target.Biopsy")
    assert node is not None
    assert not node.GetDisplayVisibility()
    bridge.confirmRegistration()
    place = [0.0, 0.0, 0.0]
    node.GetNthControlPointPositionWorld(0, place)
    np.testing.assert_allclose(place, apply(pose(), TARGET), atol=1e-6)
    assert node.GetName() == "Biopsy (rigid)"
    bridge.clear()


def test_the_report_lists_every_decision(operation: Operation, tmp_path: Path) -> None:
    operation.register()
    operation.running.confirm()
    p = operation.panel.parameters
    p.surgeon = "Dr. Example"
    operation.page("SCAN").choices.acceptGood()
    operation.open("DECIDE")
    operation.page("DECIDE").ui.decisionBox.currentIndex = 1
    operation.page("DECIDE").ui.reportFolderEdit.currentPath = str(tmp_path)
    operation.page("DECIDE").report()
    text = (tmp_path / "report.html").read_text()
    assert "Plan carried over" in text
    assert "accepted by Dr. Example at" in text
    assert "not offered" in text
    assert "Resection cavity" in text
    names = [entry["name"] for entry in json.loads((tmp_path / "session.json").read_text())["carried"]]
    assert names == ["Biopsy", "Motor tract", "Tent"]


def test_points_of_one_name_are_refused(app: Any) -> None:
    node = markups("Target", {"A": TARGET})
    node.AddControlPoint(*DEEP, "A")
    with pytest.raises(SessionError, match="'A'"):
        product("scene.panels.nodes").pointsOf(node)


@pytest.mark.parametrize("page", ["SCAN", "NAVIGATE", "DECIDE"])
def test_too_near_is_said_in_every_view_whatever_page_is_open(confirmed: Operation, page: str) -> None:
    confirmed.open("SCAN")
    confirmed.page("SCAN").choices.acceptGood()
    confirmed.open(page)

    def said_at(place: Any) -> set[bool]:
        confirmed.point(apply(pose(), place))
        views = ("Red", "Green", "Yellow", "3D")
        return {any("TOO NEAR: MOTOR TRACT" in words for words in texts(confirmed, view)) for view in views}

    wait_until(lambda: said_at(RISK) == {True}, 10, "the alarm")
    wait_until(lambda: said_at(TARGET) == {False}, 10, "its end")
    wait_until(lambda: said_at(RISK) == {True}, 10, "the alarm again")
    wait_until(lambda: "POINTER LATE" in " ".join(texts(confirmed, "Red")), 5, "the pose to be stale")
    assert not any("TOO NEAR" in words for words in texts(confirmed, "Red"))
