"""Planned things follow the brain shift one by one, when a person accepts it; every number says what it rests on."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image, Level, Pose, Reason, Verdict
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about

__all__ = ["app"]

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
REFUSED = Verdict((Reason("folded tissue", 3.0, "%", "none", Level.REFUSED),))
MOVED = np.array([3.0, -2.0, 4.0])
SIZE, SPACING_MM = 50, 2.0
TARGET, DEEP, RISK = np.array([0.0, 5.0, 10.0]), np.array([0.0, 0.0, -48.0]), np.array([20.0, 0.0, 0.0])
SHIFT_MM = float(np.linalg.norm(MOVED))


def product(module: str) -> Any:
    """A module of the extension as it is now: the tests beside this one reload it."""
    return importlib.import_module(f"IntraopMRILib.{module}")


def grid() -> np.ndarray:
    matrix = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    matrix[:3, 3] = -SPACING_MM * (SIZE - 1) / 2
    return matrix


def places() -> np.ndarray:
    k, j, i = np.indices((SIZE, SIZE, SIZE))
    return np.asarray(apply(grid(), np.stack([i, j, k], axis=-1).astype(float)))


def ball(centre: np.ndarray, radius_mm: float) -> np.ndarray:
    return np.asarray(np.linalg.norm(places() - centre, axis=-1) < radius_mm)


def pose() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((0, 0, 1), 20.0)
    matrix[:3, 3] = (2.0, 1.0, -1.0)
    return matrix


def markups(name: str, points: dict[str, np.ndarray]) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for label, point in points.items():
        node.AddControlPoint(*point, label)
    return node


def segmentation(name: str, volume: Any, masks: dict[str, np.ndarray]) -> Any:
    colors, conversion = product("scene.colors"), product("scene.conversion")
    labels = np.zeros((SIZE, SIZE, SIZE), np.uint8)
    for value, mask in enumerate(masks.values(), 1):
        labels[mask] = value
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segments = {value: (label, label, colors.AT_RISK) for value, label in enumerate(masks, 1)}
    node.SetAndObserveSegmentation(conversion.segmentationOf(Image(labels, grid()), segments))
    node.CreateDefaultDisplayNodes()
    return node


class Operation:
    """A session without a scanner, brought into the panel as the links would: what is known of it is exact."""

    def __init__(self) -> None:
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        p = self.panel.parameters
        head = ball(np.zeros(3), 48.0) * (300 + 200 * np.sin(places()[..., 0] / 6.0))
        p.patientId, p.patientName, p.surgeon = "P-1", "Test", ""
        p.preopVolume = slicer.util.addVolumeFromArray(head.astype(np.float32), grid(), "T1 before")
        p.tumourSegmentation = segmentation("Tumour", p.preopVolume, {"enhancing": ball(np.array([-20.0, 0, 10]), 9.0)})
        p.riskSegmentation = segmentation("Risk", p.preopVolume, {"Motor tract": ball(RISK, 6.0)})
        p.plannedTarget = markups("Target", {"Biopsy": TARGET})
        p.plannedLandmarks = markups("Landmarks", {"Tent": DEEP})
        self.session = product("session").Session(product("scene.panels.nodes").planOf(p))
        self.running = self.panel.running
        self.running._connected((self.session, product("scene.prepared").preparePlan(self.session.plan)))
        self.image = self.scan()

    def scan(self) -> Image:
        array = ball(np.zeros(3), 48.0) * (300 + 200 * np.sin(places()[..., 0] / 6.0))
        return Image(array.astype(np.float32), grid(), "T1 contrast", acquired_utc_s=1_700_000_000.0)

    def arrive(self, image: Image) -> None:
        self.session.journal.image(image, "contrast")
        self.session._tell(product("session_updates").ImageReady(image, "contrast", None, 0.0))
        self.until(lambda: self.running.image is not None and self.running.image.image is image, "the image")

    def register(self, verdict: Verdict = GOOD) -> None:
        """A rigid pose, and the brain shift: all of the brain moved by MOVED."""
        self.arrive(self.image)
        rigid = product("register.rigid").RigidRegistration(
            pose(), GOOD, 1.0, 0.5, 0.9, 0.1, 1.0, self.image.uid, "preop"
        )
        push = np.broadcast_to(MOVED, (SIZE, SIZE, SIZE, 3)).astype(np.float32)
        brain = Image(ball(np.zeros(3), 42.0).astype(np.uint8), grid())
        cavity = Image(ball(np.array([-20.0, 0.0, 10.0]), 8.0).astype(np.uint8), grid())
        doubt = Image(np.full((SIZE, SIZE, SIZE), 1.2, np.float32), grid())
        found = product("register.deformable").DeformableRegistration(
            pose(), Image(-push, grid()), Image(push, grid()), cavity, brain, doubt, verdict, False, 1.0, self.image.uid
        )
        self.session._registered(rigid, self.image)
        if verdict.level is not Level.REFUSED:
            self.session._shifted(rigid, found, self.image)
            self.until(lambda: any(item.offered for item in self.running.view.items.values()), "the plan")
        else:
            self.until(lambda: self.running.view.items, "the plan")
        self.open("SCAN")

    def until(self, condition: Any, what: str) -> None:
        wait_until(condition, 20, what)
        self.panel.refresh()

    def page(self, name: str) -> Any:
        return next(page for phase, page in self.panel.pages.items() if phase.name == name)

    def open(self, name: str) -> None:
        self.panel.open(self.page(name).phase)

    def rows(self) -> dict[str, list[str]]:
        table = self.page("SCAN").ui.carriedTable
        texts = [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]
        return {row[0]: row[1:] for row in texts}

    def choose(self, name: str) -> None:
        table = self.page("SCAN").ui.carriedTable
        table.selectRow(next(row for row in range(table.rowCount) if table.item(row, 0).text() == name))

    def where(self, role: str) -> np.ndarray:
        place = [0.0, 0.0, 0.0]
        self.running.view.bridge.node(role).GetNthControlPointPositionWorld(0, place)
        return np.array(place)

    def point(self, place: np.ndarray) -> None:
        """Hold the pointer still at a place until it is trusted."""
        matrix = np.eye(4)
        matrix[:3, 3] = place
        for _ in range(60):
            self.running.place(Pose(matrix, "Pointer", time.monotonic(), time.time()))
            self.running._move()
            self.page("NAVIGATE").poseArrived()
        self.panel.refresh()


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation()


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


def test_all_good_ones_at_once_and_no_others(operation: Operation) -> None:
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.panel.refresh()
    button = operation.page("SCAN").ui.acceptGoodButton
    assert button.text == "Accept all good (2)"
    button.click()
    assert {name: row[2] for name, row in operation.rows().items()} == {
        "Biopsy": "Carried over", "Motor tract": "Carried over", "Tent": "Rigid pose (not offered)",
    }  # fmt: skip
    assert not button.enabled


def test_distances_say_what_they_rest_on(operation: Operation) -> None:
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.open("NAVIGATE")
    ui = operation.page("NAVIGATE").ui
    operation.point(apply(pose(), TARGET))
    assert "0.0 mm" in ui.targetDistanceLabel.text
    assert "Biopsy<br>rigid pose" in ui.targetDistanceLabel.text
    assert f"{SHIFT_MM:.1f} ± 1.2 mm" in ui.tipShiftLabel.text
    operation.page("SCAN").carried.acceptGood()
    operation.point(apply(pose(), TARGET))
    assert f"{SHIFT_MM:.1f} mm" in ui.targetDistanceLabel.text
    assert "carried over, accepted by Dr. Example at" in ui.targetDistanceLabel.text
    assert "± 1.2 mm" in ui.targetDistanceLabel.text
    operation.point(apply(pose(), RISK) + MOVED)
    assert "Motor tract (carried over)" in ui.alarmLabel.text
    assert "−" in ui.riskDistanceLabel.text, "the tip is inside where the tract is now"
    operation.point(np.array([-20.0, 0.0, 10.0]))
    assert ui.tipShiftLabel.text == "–", "in the cavity the shift is not known"


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


def test_a_new_image_withdraws_what_was_accepted(operation: Operation) -> None:
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.page("SCAN").carried.acceptGood()
    old = operation.running.view.items["target.Biopsy"]
    operation.image = operation.scan()
    operation.arrive(operation.image)
    assert not operation.running.view.items
    assert not operation.running.view.bridge.node("preop.target.Biopsy").GetDisplayVisibility()
    assert operation.session.journal.record.carried == ()
    with pytest.raises(SessionError, match="newer image"):
        operation.session.decide(old, True, "Dr. Example")
    operation.register()
    assert operation.rows()["Biopsy"][2] == "Rigid pose: decide"
    tip = operation.page("SCAN").ui.carriedTable.item(0, 0).toolTip()
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


def test_a_loaded_scene_carries_nothing_over(operation: Operation, tmp_path: Path) -> None:
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.page("SCAN").carried.acceptGood()
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    slicer.app.processEvents()
    p = operation.panel.parameters
    assert "target.Biopsy" in json.loads(p.carriedBefore)
    assert not operation.running.trusted
    assert operation.running.view is None
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
    operation.page("SCAN").carried.acceptGood()
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
