"""Screws of one operation in the panel: planned in a folder, one row each on page 4, decided on one after the other."""

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
from panels.operation import GOOD, product

__all__ = ["app"]

LEVELS, SIDES = ("L2", "L3", "L4", "L5"), ("left", "right")
NAMES = [f"{level} {side}" for level in LEVELS for side in SIDES]
#: That one has no void in the scan.
LOST = NAMES[5]
#: How far each was placed from its plan, mm.
OFF_MM = dict(zip(NAMES, (0.1, 0.2, 1.2, 0.0, 3.0, 0.0, 0.3, 0.1), strict=True))


def line(name: str, entry: np.ndarray, folder: int) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
    node.CreateDefaultDisplayNodes()
    for place in (entry, entry + np.array([0.0, 40.0, 0.0])):
        node.AddControlPoint(*place)
    slicer.mrmlScene.GetSubjectHierarchyNode().CreateItem(folder, node)
    return node


class Screws:
    """A session without a scanner in which each screw lies where OFF_MM says."""

    def __init__(self) -> None:
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        self.running, p = self.panel.running, self.panel.parameters
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Screws")
        self.lines = [
            line(name, np.array([14.0 * (1 - 2 * (n % 2)), -20.0, 30.0 - 18.0 * (n // 2)]), folder)
            for n, name in enumerate(NAMES)
        ]
        line("Ruler", np.zeros(3), hierarchy.GetSceneItemID())
        array = np.random.default_rng(1).normal(100.0, 5.0, (60, 60, 60)).astype(np.float32)
        grid = np.diag([2.0, 2.0, 2.0, 1.0])
        grid[:3, 3] = -59.0
        p.patientId, p.surgeon = "P-1", ""
        p.preopVolume = slicer.util.addVolumeFromArray(array, grid, "Spine before")
        p.plannedImplant, p.implantDiameterMm = self.lines[0], 6.5
        self.image = Image(array, grid, "Spine", 1_700_000_000.0, "P-1")

    def page(self, name: str) -> Any:
        return next(page for phase, page in self.panel.pages.items() if phase.name == name)

    def open(self, name: str) -> None:
        self.panel.open(self.page(name).phase)
        self.panel.refresh()

    def connect(self) -> None:
        self.panel.parameters.implantFolder = True
        self.session = product("session").Session(product("scene.panels.nodes").planLater(self.panel.parameters)())
        self.running._connected((self.session, product("scene.prepared").preparePlan(self.session.plan)))

    def arrive(self) -> None:
        updates, implant = product("session.updates"), product("assess.implant")
        session, image = self.session, self.image
        session.journal.image(image, "native")
        session._decisions.forget()
        session._tell(updates.ImageReady(image, "native", None, 0.0))
        pose = product("register.rigid").RigidRegistration(np.eye(4), GOOD, 1.0, 0.2, 0.9, 0.1, 1.0, image.uid, "preop")
        session._registered(pose, image)
        seen = Verdict((Reason("void depth", 0.9, "", "above 0.5", Level.GOOD),))
        for planned in session.plan.trajectories:
            if planned.name == LOST:
                session._tell(updates.Problem("assess implants", "no void", about=updates.deviation(LOST)))
                session.journal.missing(updates.deviation(LOST), "no void like it was found")
                continue
            off = np.array([OFF_MM[planned.name], 0.0, 0.0])
            actual = replace(planned, entry_ras_mm=planned.entry_ras_mm + off, tip_ras_mm=planned.tip_ras_mm + off)
            detected = product("assess.implant_detection").DetectedImplant(
                actual, implant.Spread(0.15), None, seen, image, 7.0
            )
            session._decisions.implant(
                product("session.implants").compared(planned, detected, (image.uid,), "rigid pose", 0.05)
            )
        wait_until(lambda: self.running.image is not None and self.running.image.image is image, 30, "the scan")
        wait_until(lambda: len(self.running.implants) == len(NAMES) - 1, 30, "the screws")
        self.open("SCAN")

    def rows(self) -> dict[str, list[str]]:
        table = self.page("SCAN").ui.carriedTable
        texts = [[table.item(row, n).text() for n in range(table.columnCount)] for row in range(table.rowCount)]
        return {row[0]: row[1:] for row in texts}

    def chosen(self) -> str:
        table = self.page("SCAN").ui.carriedTable
        return str(table.item(table.currentRow(), 0).text())


@pytest.fixture
def screws(app: Any) -> Iterator[Screws]:
    found = Screws()
    yield found
    found.running.close()


def test_a_folder_of_lines_is_a_plan_of_many_screws(screws: Screws) -> None:
    """One line alone could be planned in the panel."""
    nodes, p = product("scene.panels.nodes"), screws.panel.parameters
    screws.open("CASE")
    ui = screws.page("CASE").ui
    assert [each.name for each in nodes.planLater(p)().trajectories] == NAMES[:1]
    assert ui.implantFolder.text == f"All {len(NAMES)} lines of its folder"
    ui.implantFolder.click()
    screws.panel.refresh()
    assert [ui.implantTable.item(row, 0).text() for row in range(ui.implantTable.rowCount)] == NAMES
    # A screw of another diameter; what is no number changes nothing.
    ui.implantTable.item(6, 1).setText("7,5")
    ui.implantTable.item(7, 1).setText("thick")
    screws.panel.refresh()
    assert ui.implantTable.item(7, 1).text() == "6.5 mm"
    plan = nodes.planLater(p)()
    assert [each.name for each in plan.trajectories] == NAMES, "in the order of the data tree, without the ruler"
    assert [each.diameter_mm for each in plan.trajectories] == [6.5] * 6 + [7.5, 6.5]
    np.testing.assert_allclose(plan.trajectories[3].entry_ras_mm, (-14.0, -20.0, 12.0))


def test_a_screw_without_a_tip_or_with_the_name_of_another_is_said(screws: Screws) -> None:
    nodes, p = product("scene.panels.nodes"), screws.panel.parameters
    p.implantFolder = True
    screws.lines[3].SetName(NAMES[0])
    with pytest.raises(SessionError, match=f"two planned implants are called '{NAMES[0]}'"):
        nodes.planLater(p)
    screws.lines[3].SetName(NAMES[3])
    screws.lines[4].RemoveNthControlPoint(1)
    with pytest.raises(SessionError, match=f"'{NAMES[4]}' needs two points"):
        nodes.planLater(p)
    screws.open("CASE")
    assert f"Place both points of '{NAMES[4]}'" in screws.page("CASE").state().text


def test_every_screw_has_its_row_and_is_decided_on_in_turn(screws: Screws, tmp_path: Path) -> None:
    screws.connect()
    screws.arrive()
    scan, ui = screws.page("SCAN"), screws.page("SCAN").ui
    assert not ui.carriedSection.isVisibleTo(scan.widget), "nothing is decided before the registration is confirmed"
    screws.running.confirm()
    screws.panel.parameters.surgeon = "Dr. Example"
    screws.panel.refresh()
    rows = screws.rows()
    assert list(rows) == NAMES
    assert rows["L3 left"] == ["1.2", "1.2", "0.0°", "inacc.", "Decide"]
    assert rows["L4 left"][3] == "unacc."
    assert rows[LOST] == ["–", "–", "–", "–", "Not found"]
    assert not ui.tableSection.collapsed
    assert "7 of 7 implants undecided" in scan.state().text
    assert (ui.acceptButton.text, ui.rejectButton.text) == ("Leave", "Revise")
    assert screws.chosen() == NAMES[0]
    ui.acceptButton.click()
    assert screws.chosen() == NAMES[1], "the next one is offered"
    ui.carriedTable.selectRow(NAMES.index("L4 left"))
    assert "unacceptable" in ui.itemLabel.text
    ui.rejectButton.click()
    assert screws.rows()["L4 left"][-1] == "Revise"
    record = screws.session.journal.record
    assert [each.name for each in record.implants] == [name for name in NAMES if name != LOST]
    by_name = {each.name: each for each in record.implants}
    assert (by_name["L4 left"].decision, by_name["L4 left"].decided_by) == ("revise", "Dr. Example")
    assert by_name["L2 left"].decision == "stays"
    assert by_name["L5 right"].decision == "open"
    # What is as good as it gets, and without a doubt, may be left at once.
    ui.acceptGoodButton.click()
    left = {name for name, row in screws.rows().items() if row[-1] == "Decide"}
    assert left == {"L3 left"}, "it is inaccurate"
    assert "1 of 7 implants undecided" in scan.state().text
    ui.leaveButton.click()
    page, document = report(screws, tmp_path)
    assert [each["name"] for each in document["implants"]] == [name for name in NAMES if name != LOST]
    places = [page.index(f"<tr><th>{name}</th>") for name in NAMES if name != LOST]
    assert places == sorted(places), "in the report as in the record"
    assert "to be revised, decided by Dr. Example" in page
    assert page.count("not decided") == 3, "in the summary, in the table, and beside its numbers"
    assert "no void like it was found" in page


def test_a_new_scan_takes_decisions_back(screws: Screws) -> None:
    screws.connect()
    screws.arrive()
    screws.running.confirm()
    screws.panel.parameters.surgeon = "Dr. Example"
    screws.panel.refresh()
    old = screws.running.implants[NAMES[0]]
    screws.page("SCAN").ui.acceptButton.click()
    assert screws.rows()[NAMES[0]][-1] == "Stays", "another session begins with its first one"
    screws.image = screws.image.with_array(screws.image.array + 1.0)
    screws.arrive()
    with pytest.raises(SessionError, match="newer image"):
        screws.session.decide_implant(old, True, "Dr. Example")
    screws.running.confirm()
    screws.panel.refresh()
    assert screws.rows()[NAMES[0]][-1] == "Decide"
    assert {each.decision for each in screws.session.journal.record.implants} == {"open"}
    screws.page("SCAN").ui.carriedTable.selectRow(0)
    assert "On an earlier scan: Stays (by Dr. Example)" in screws.page("SCAN").ui.itemLabel.toolTip


def report(screws: Screws, folder: Path) -> tuple[str, dict[str, Any]]:
    screws.open("DECIDE")
    page = screws.page("DECIDE")
    page.ui.decisionBox.currentIndex = 1
    page.ui.reportFolderEdit.currentPath = str(folder)
    screws.panel.refresh()
    screws.panel.ui.nextButton.click()
    assert page.state().readiness.name == "DONE", screws.running.problem
    return (folder / "report.html").read_text(), json.loads((folder / "session.json").read_text())
