"""A spine whose whole pose is refused: a person decides vertebra by vertebra, and only accepted ones carry anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.simulate.case_files import read_case, write_case
from IntraopMRIReconstructionLib.simulate.spine import INSTRUMENTED, LEVELS_MM, SpineCase, make_spine_case
from panels.operation import REFUSED, product

__all__ = ["app"]

NAMES, SCREW, TURN_DEG = tuple(LEVELS_MM), "Screw L3 right", 12.0
#: The scan ends in it.
LOST = NAMES[-1]


class BentSpine:
    """A session without a scanner in which each vertebra is where the simulated case has it; the last is not found."""

    def __init__(self, case: SpineCase, folder: Path) -> None:
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        self.case, p, self.moved_mm = case, self.panel.parameters, 0.0
        write_case(folder, None, case)
        nodes = product("scene.panels.nodes")
        list(nodes.showSimulatedCase(nodes.prepareCase(read_case(folder)), p))
        p.surgeon = ""
        self.session = product("session").Session(nodes.planLater(p)())
        self.running = self.panel.running
        self.running._connected((self.session, product("scene.prepared").preparePlan(self.session.plan)))

    def arrive(self) -> None:
        """The scan, and what the worker finds in it."""
        updates, session, plan = product("session.updates"), self.session, self.session.plan
        image = replace(self.case.noisy(), patient_id=plan.patient_id, name="Spine", acquired_utc_s=1_700_000_000.0)
        self.image = Image(image.array, image.ras_from_ijk, "Spine", 1_700_000_000.0, plan.patient_id)
        session.journal.image(self.image, "native")
        session._decisions.forget()
        session._tell(updates.ImageReady(self.image, "native", None, 0.0))
        whole = product("register.rigid").RigidRegistration(
            np.eye(4), REFUSED, 1.0, 0.5, 0.9, 0.1, 1.0, self.image.uid, "preop"
        )
        session._registered(whole, self.image)
        found = tuple(self.vertebra(number) for number in range(len(NAMES)))
        session.journal.parts(found)
        screw = plan.trajectories[0].moved(self.pose(INSTRUMENTED))
        implant, assess = product("assess.implant_detection"), product("assess.implant")
        measured = assess.compare(screw, screw, 0.3, based_on=(self.image.uid,))
        good = Verdict((Reason("contrast", 5.0, "", "above 2", Level.GOOD),))
        detected = implant.DetectedImplant(screw, assess.Spread(0.2), None, good, self.image, 3.2)
        session._decisions.implant(
            updates.ImplantFound(screw, detected, measured, assess.band(measured), "pose of L3 on its own")
        )
        bones = product("session.bones").bones_of(plan, found)
        session._decisions.offer(bones)
        session._tell(updates.BonesFound(bones, self.image, plan.preoperative))
        wait_until(lambda: self.running.image is not None and self.running.image.image is self.image, 30, "the scan")
        wait_until(lambda: self.running.bones, 30, "the vertebrae")
        self.open("SCAN")

    def pose(self, name: str) -> np.ndarray:
        moved = np.eye(4)
        moved[0, 3] = self.moved_mm
        return moved @ np.asarray(self.case.truth.vertebrae[name])

    def vertebra(self, number: int) -> Any:
        name = NAMES[number]
        reasons = [Reason("correlation of the bone", 0.9, "", "above 0.6", Level.GOOD)]
        reasons.append(Reason("neighbours found, without the pose of the whole spine", 2, "", "2 and it", Level.CHECK))
        if name == LOST:
            reasons.append(Reason("part in the scan", 0.3, "", "above 0.95", Level.REFUSED))
        for other in (number - 1, number + 1):
            if 0 <= other < len(NAMES):
                reasons.append(Reason(f"turn against {NAMES[other]}", TURN_DEG, "deg", "below 15 deg", Level.GOOD))
                reasons.append(Reason(f"shift against {NAMES[other]}", 1.0, "mm", "below 8 mm", Level.GOOD))
        kind = product("register.vertebrae").VertebraRegistration
        return kind(name, self.pose(name), 0.9, 0.31, Verdict(tuple(reasons)))

    def page(self, name: str) -> Any:
        return next(page for phase, page in self.panel.pages.items() if phase.name == name)

    def open(self, name: str) -> None:
        self.panel.open(self.page(name).phase)
        self.panel.refresh()

    def decide(self, **accepted: bool) -> None:
        """By clicks, as each one comes up."""
        self.panel.parameters.surgeon = "Dr. Example"
        self.open("SCAN")
        ui = self.page("SCAN").ui
        table = ui.carriedTable
        for name, yes in accepted.items():
            table.selectRow(next(row for row in range(table.rowCount) if table.item(row, 0).text() == name))
            (ui.acceptButton if yes else ui.rejectButton).click()

    def shown(self, role: str) -> bool:
        node = self.running.view.bridge.node(f"bone.{role}")
        return node is not None and bool(node.GetDisplayNode().GetVisibility())

    def texts(self) -> str:
        """All that the 3D view says."""
        display = product("scene.display")
        corners = display.corners(self.panel._readout())
        lines = (*corners.topLeft, *corners.topRight, *corners.bottomLeft, *corners.bottomRight)
        return "\n".join(
            [line.text for line in lines] + [f"{b.title} {b.detail} {b.tone.name}" for b in corners.banners]
        )

    def report(self, folder: Path) -> tuple[str, dict[str, Any]]:
        self.open("DECIDE")
        page = self.page("DECIDE")
        page.ui.decisionBox.currentIndex = 1
        page.ui.reportFolderEdit.currentPath = str(folder)
        self.panel.refresh()
        assert self.panel.ui.nextButton.text == "Write report"
        self.panel.ui.nextButton.click()
        assert page.state().readiness.name == "DONE", self.running.problem
        return (folder / "report.html").read_text(), json.loads((folder / "session.json").read_text())


@pytest.fixture(scope="module")
def case() -> SpineCase:
    return make_spine_case(1, spacing_mm=3.0, curve_deg=-TURN_DEG)


@pytest.fixture
def spine(app: Any, case: SpineCase, tmp_path: Path) -> Iterator[BentSpine]:
    found = BentSpine(case, tmp_path)
    found.arrive()
    yield found
    found.running.close()


def test_each_vertebra_is_asked_for_where_it_lies(spine: BentSpine) -> None:
    scan = spine.page("SCAN")
    assert scan.state().readiness.name == "READY"
    assert "The pose of the whole spine was refused. 4 of 4 vertebrae undecided" in scan.state().text
    assert spine.panel.ui.nextButton.text == "Enter who accepts"
    assert scan.ui.verdictLabel.text.count("Refused") == 1
    assert "confirmed" not in scan.ui.verdictLabel.text
    assert not spine.running.trusted
    table = scan.ui.carriedTable
    rows = [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]
    assert rows[1] == ["L2", "0.3 mm", "L1 12.0° 1.0 mm · L3 12.0° 1.0 mm", "Decide"]
    assert rows[-1][3] == "Not found"
    assert "L1" in scan.ui.itemLabel.text
    assert not scan.ui.acceptButton.enabled, "nobody is named"
    spine.panel.parameters.surgeon = "Dr. Example"
    spine.panel.refresh()
    assert spine.panel.ui.nextButton.text == "Accept or reject: L1"
    assert not spine.panel.ui.nextButton.enabled
    table.selectRow(NAMES.index("L3"))
    wait_until(lambda: spine.panel.ui.nextButton.text == "Accept or reject: L3", 5, "the button to follow")
    assert "against L2 12.0° 1.0 mm" in scan.ui.itemLabel.text
    assert SCREW in scan.ui.itemLabel.text
    assert spine.shown("outline.L3")
    assert not spine.shown("outline.L1"), "one at a time"
    place = slicer.util.arrayFromVTKMatrix(
        slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    )[:3, 3]
    np.testing.assert_allclose(place, spine.running.bones["vertebra.L3"].position_mm[0], atol=1e-3)
    table.selectRow(NAMES.index(LOST))
    wait_until(lambda: spine.panel.ui.nextButton.text == "4 of 4 vertebrae undecided", 5, "the button to follow")
    assert not scan.ui.acceptButton.enabled
    assert not scan.ui.rejectButton.enabled


def test_the_vertebra_before_surgery_lies_where_its_own_pose_puts_it(spine: BentSpine) -> None:
    scan = spine.page("SCAN")
    scan.ui.carriedTable.selectRow(NAMES.index("L2"))
    bridge, label = spine.running.view.bridge, spine.running.bones["vertebra.L2"].label
    bounds = [0.0] * 6
    bridge.node("bone.outline.L2").GetRASBounds(bounds)
    voxels = np.argwhere(label.array != 0)[:, ::-1]
    there = apply(spine.pose("L2") @ label.ras_from_ijk, voxels.astype(float))
    np.testing.assert_allclose(np.reshape(bounds, (3, 2)).mean(axis=1), (there.min(0) + there.max(0)) / 2, atol=2.0)
    piece = bridge.node("bone.volume")
    matrix = product("scene.conversion").vtkMatrix(np.eye(4))
    piece.GetIJKToRASMatrix(matrix)
    array, grid = slicer.util.arrayFromVolume(piece), slicer.util.arrayFromVTKMatrix(matrix)
    before = apply(np.linalg.inv(spine.pose("L2")) @ grid, np.array([[3.0, 4.0, 5.0]]))
    preop = spine.session.plan.preoperative
    i, j, k = np.rint(apply(np.linalg.inv(preop.ras_from_ijk), before)[0]).astype(int)
    inside = array[array > array.min()]
    assert array[5, 4, 3] in (array.min(), pytest.approx(preop.array[k, j, i]))
    assert 0.05 < inside.size / array.size < 0.95
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    spine.panel.refresh()
    assert composite.GetForegroundVolumeID() == piece.GetID()
    assert composite.GetBackgroundVolumeID() == bridge.node("intraop.native").GetID()
    assert bridge.node("preop.volume").GetDisplayVisibility() == 0, "the whole has no place"
    assert not piece.GetSaveWithScene()


def test_navigation_and_report_rest_on_accepted_vertebrae_only(spine: BentSpine, tmp_path: Path) -> None:
    assert f"{SCREW}: – (L3: nobody has accepted it)" in spine.page("SCAN").ui.residualLabel.text
    assert not spine.shown(f"implant.{SCREW}.cylinder")
    assert "REGISTRATION REFUSED" in spine.texts()
    spine.decide(L1=True, L2=True)
    assert "vertebrae undecided" in spine.page("NAVIGATE").state().text
    assert spine.page("NAVIGATE").state().readiness.name == "BLOCKED"
    assert spine.page("DECIDE").state().readiness.name == "BLOCKED"
    spine.decide(L3=True, L4=False)
    scan = spine.page("SCAN")
    # The screw lies in an accepted vertebra: whether it stays is asked next, and holds up nothing.
    assert "1 of 1 implants undecided" in scan.state().text
    assert spine.page("NAVIGATE").state().readiness.name == "DONE"
    spine.decide(**{SCREW: True})
    assert scan.state().readiness.name == "DONE"
    assert "The whole spine is not registered. Accepted, each on its own: L1, L2, L3" in scan.state().text
    assert spine.panel.ui.nextButton.text.startswith("Go on: 5")
    assert not spine.running.trusted
    spine.open("NAVIGATE")
    assert [spine.shown(f"outline.{name}") for name in NAMES] == [True, True, True, False, False]
    assert spine.shown(f"plan.{SCREW}.dashes")
    assert spine.shown(f"implant.{SCREW}.cylinder")
    assert spine.running.view.bridge.node("bone.volume") is None, "only where it is judged"
    assert ">entry<" in spine.page("NAVIGATE").ui.implantLabel.text
    said = spine.texts()
    assert "WHOLE SPINE NOT REGISTERED only L1, L2, L3, each on its own CAUTION" in said
    assert "0.0 mm (0.0 to 0.3 mm)  entry" in said
    assert "Registration good" not in said
    text, record = spine.report(tmp_path)
    assert "accepted each on its own: L1, L2, L3<" in text
    assert "rejected by Dr. Example" in text
    assert [part["decision"] for part in record["parts"]] == ["accepted", "accepted", "accepted", "rejected", "open"]
    assert [implant["name"] for implant in record["implants"]] == [SCREW]
    names = [m["name"] for m in record["measurements"]]
    assert "L1 to L3: change of lordosis, sagittal" in names
    assert record["registration"]["verdict"]["reasons"][0]["level"] == "refused"
    assert "L1 to L3: change of lordosis" in spine.page("DECIDE").ui.resultLabel.text
    assert "Whole spine not registered" in spine.page("DECIDE").ui.resultLabel.text
    assert "Rejected: L4" in spine.page("DECIDE").ui.basisLabel.text
    assert "Not found: L5" in spine.page("DECIDE").ui.basisLabel.text


def test_a_screw_in_a_rejected_vertebra_is_a_dash_with_its_reason(spine: BentSpine, tmp_path: Path) -> None:
    spine.decide(L1=True, L2=True, L3=False, L4=True)
    spine.open("NAVIGATE")
    assert not spine.shown(f"plan.{SCREW}.dashes")
    assert not spine.shown(f"implant.{SCREW}.cylinder")
    label = spine.page("NAVIGATE").ui.implantLabel.text
    assert f"{SCREW}: –" in label
    assert "L3: rejected by Dr. Example" in label
    assert "L3: rejected" in spine.texts().replace("\n", " ")
    text, record = spine.report(tmp_path)
    assert record["implants"] == []
    missing = {m["name"]: m["missing_because"] for m in record["measurements"] if m["value"] is None}
    assert missing[f"{SCREW}: deviation from its plan"].startswith("L3: rejected by Dr. Example")
    assert "L3: rejected by Dr. Example" in text
    table = spine.page("DECIDE").ui.measuredTable
    rows = {table.item(row, 0).text(): table.item(row, 1).text() for row in range(table.rowCount)}
    assert rows[f"{SCREW}: deviation from its plan"] == "–"
    spine.decide(L3=True)
    assert spine.shown(f"implant.{SCREW}.cylinder"), "a person may think again"
    assert spine.page("DECIDE").state().readiness.name == "READY", "the written report says otherwise"


def test_when_all_are_rejected_nothing_is_navigated_and_the_report_says_so(spine: BentSpine, tmp_path: Path) -> None:
    spine.decide(L1=False, L2=False, L3=False, L4=False)
    scan = spine.page("SCAN")
    assert scan.state().readiness.name == "BLOCKED"
    assert "No vertebra is accepted" in scan.state().text
    assert spine.page("NAVIGATE").state().readiness.name == "BLOCKED"
    assert not spine.panel.ui.nextButton.text.startswith("Go on")
    assert "REGISTRATION REFUSED" in spine.texts()
    spine.open("NAVIGATE")
    assert not any(spine.shown(f"outline.{name}") for name in NAMES)
    text, record = spine.report(tmp_path)
    assert text.partition("<h2>Registration")[2].count("rejected by Dr. Example at") == 4
    assert f'<h3>{SCREW}</h3><p class="none">No value: L3: rejected by Dr. Example at' in text
    assert "each on its own: L" not in text
    assert record["implants"] == []
    assert all(m["value"] is None for m in record["measurements"])


def test_going_on_without_deciding_shows_only_what_was_accepted(spine: BentSpine, tmp_path: Path) -> None:
    spine.decide(L2=True)
    spine.page("SCAN").ui.leaveButton.click()
    assert spine.panel.ui.nextButton.text.startswith("Go on: 5")
    spine.open("NAVIGATE")
    assert [spine.shown(f"outline.{name}") for name in NAMES] == [False, True, False, False, False]
    text, record = spine.report(tmp_path)
    assert "left undecided by Dr. Example, nothing rests on them: L1, L3, L4" in text
    assert record["implants"] == []
    assert "Not decided: L1, L3, L4" in spine.page("DECIDE").ui.basisLabel.text


def test_a_new_scan_withdraws_every_vertebra(spine: BentSpine) -> None:
    spine.decide(L1=True, L2=True, L3=True, L4=True)
    old = spine.running.bones["vertebra.L1"]
    spine.moved_mm = 0.5
    spine.arrive()
    assert [bone.accepted for bone in spine.running.bones.values()] == [None] * len(NAMES)
    assert not spine.shown(f"implant.{SCREW}.cylinder")
    assert spine.page("NAVIGATE").state().readiness.name == "BLOCKED"
    with pytest.raises(SessionError, match="newer image has withdrawn"):
        spine.session.decide_bone(old, True, "Dr. Example")
    tip = spine.page("SCAN").ui.carriedTable.item(0, 0).toolTip()
    assert "On an earlier scan: accepted by Dr. Example" in tip


def test_a_loaded_scene_shows_none_of_it(spine: BentSpine, tmp_path: Path) -> None:
    spine.decide(L1=True, L2=True, L3=True, L4=True)
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    slicer.app.processEvents()
    nodes = (slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes()))
    roles = [node.GetAttribute("IntraopMRI.Role") or "" for node in nodes]
    assert not any(role.startswith("bone.") for role in roles)
    assert not spine.running.bones
