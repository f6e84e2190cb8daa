"""Page 6: landmarks and outlines on the scan become numbers, and go with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.geometry import apply, rotation_about
from panels.operation import GOOD, markups, pose, product, segmentation

__all__ = ["app"]

SIZE = 32
POSE = pose()


def grid(spacing_mm: float = 4.0) -> np.ndarray:
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    matrix[:3, 3] = -spacing_mm * (SIZE - 1) / 2
    return matrix


def ball(radius_mm: float) -> np.ndarray:
    k, j, i = np.indices((SIZE, SIZE, SIZE))
    return np.asarray(np.linalg.norm(apply(grid(), np.stack([i, j, k], axis=-1).astype(float)), axis=-1) < radius_mm)


def endplates(upper_deg: float, lower_deg: float) -> dict[str, np.ndarray]:
    around = 18.0 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=float)
    return {
        f"{name} {n + 1}": rotation_about((0, 1, 0), tilt) @ place + (0.0, 0.0, height)
        for name, tilt, height in (("upper", upper_deg, 40.0), ("lower", lower_deg, -30.0))
        for n, place in enumerate(around)
    }


class Operation:
    """A spine and a nidus in one patient: a session without a scanner, its registration exact."""

    def __init__(self) -> None:
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        p = self.panel.parameters
        values = (ball(50.0) * np.random.default_rng(1).uniform(200, 400, (SIZE,) * 3)).astype(np.float32)
        p.patientId, p.surgeon = "P-1", "Dr. Example"
        p.preopVolume = slicer.util.addVolumeFromArray(values, grid(), "T1 before")
        p.plannedLandmarks = markups("Before", endplates(14.0, -11.0))
        p.riskSegmentation = segmentation("Structures", grid(), {"Nidus": ball(16.0)})
        self.running, self.values = self.panel.running, values
        self.session = product("session").Session(product("scene.panels.nodes").planLater(p)())
        self.running._connected((self.session, product("scene.prepared").preparePlan(self.session.plan)))
        self.page = next(page for phase, page in self.panel.pages.items() if phase.name == "DECIDE")
        self.panel.open(self.page.phase)

    def scan(self, confirm: bool = True) -> None:
        """A registered scan, taken in as the worker does."""
        image = Image(self.values, grid(), "T1 native", acquired_utc_s=1_700_000_000.0)
        self.session._pair.take(image, "native")
        self.session.journal.image(image, "native")
        self.session._tell(product("session.updates").ImageReady(image, "native", None, 0.0))
        found = product("register.rigid").RigidRegistration(POSE, GOOD, 1.0, 0.3, 0.9, 0.1, 1.0, image.uid, "preop")
        self.session._pair.place("native", found)
        self.session._registered(found, image)
        wait_until(lambda: self.running.registered is not None and self.running.registered.image is image, 20, "scan")
        if confirm:
            self.running.confirm()
        self.panel.refresh()

    def choose(self, title: str) -> None:
        titles = [recipe.title for recipe in product("session.measures").RECIPES.values()]
        self.page.ui.measureKindBox.currentIndex = titles.index(title)
        self.panel.refresh()

    def rows(self) -> list[str]:
        table = self.page.ui.measuredTable
        return [table.item(row, 0).text() for row in range(table.rowCount)]


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation()


def test_the_names_of_the_plan_say_what_the_procedure_is_about(operation: Operation) -> None:
    plan = operation.session.plan
    assert plan.measures == ("vascular", "cobb")
    assert plan.nidus is not None
    assert dict(plan.at_risk) == {}
    assert dict(operation.session.journal.record.planned_measures) == {
        "vascular": "Residual nidus",
        "cobb": "Cobb angle",
    }


def test_landmarks_become_numbers_that_go_with_the_scan(operation: Operation) -> None:
    operation.choose("Cobb angle")
    ui = operation.page.ui
    assert not ui.measureButton.enabled
    assert not ui.measureOutline.visible
    assert "upper 1" in ui.measureHint.text
    operation.scan(confirm=False)
    assert not ui.measureButton.enabled, "nothing is measured before a person has confirmed"
    assert "Registration not confirmed: see page 4." in ui.measureResult.text
    operation.running.confirm()
    operation.panel.refresh()
    now = {name: apply(POSE, place) for name, place in endplates(9.0, -5.0).items()}
    operation.panel.parameters.measurePoints = markups("Now", now)
    ui.measureButton.click()
    assert "14.0" in ui.measureResult.text
    assert "±" in ui.measureResult.text
    name = "Cobb angle, coronal, supine"
    assert operation.rows() == [name, f"{name}: before surgery", f"{name}: change"]
    (entry,) = operation.session.journal.record.drawn
    assert entry.drawn_by == "Dr. Example"
    assert entry.measurements[2].value == pytest.approx(11.0)
    ui.withdrawButton.click()
    assert operation.rows() == []
    ui.measureButton.click()
    assert len(operation.rows()) == 3
    operation.scan()
    assert operation.rows() == []
    assert ui.measureResult.text == ""
    assert not ui.withdrawButton.enabled


def test_an_outline_on_the_scan_is_what_is_left_of_a_nidus(operation: Operation) -> None:
    operation.choose("Residual nidus")
    operation.scan()
    ui = operation.page.ui
    ui.measureButton.click()
    assert "outline it on the intraoperative scan first" in ui.measureResult.text
    assert not ui.measurePoints.visible
    operation.panel.parameters.measureOutline = segmentation("Left", grid(), {"residual": ball(9.0)})
    ui.measureOptionBox.currentIndex = 2
    ui.measureButton.click()
    (entry,) = operation.session.journal.record.drawn
    residual = entry.measurements[1]
    assert isinstance(residual.value, float)
    assert residual.value == pytest.approx(float(ball(9.0).sum()) * 0.064)
    assert entry.note == "Residual nidus, shunt seen."
    assert "shunt seen" in ui.measureResult.text


def test_what_was_drawn_on_a_scan_goes_from_the_next_one(operation: Operation) -> None:
    """It would lie over the new scan, and be measured, as if it had been drawn there."""
    operation.choose("Residual nidus")
    operation.scan()
    ui, parameters = operation.page.ui, operation.panel.parameters
    drawn, other = (segmentation(name, grid(), {"residual": ball(9.0)}) for name in ("Left", "Of the person"))
    parameters.measureOutline = drawn
    ui.measureOptionBox.currentIndex = 2
    ui.measureButton.click()
    assert len(operation.session.journal.record.drawn) == 1
    # Nothing goes while the scan stays, whatever is confirmed again.
    operation.running.confirmed = False
    operation.panel.refresh()
    operation.running.confirm()
    operation.panel.refresh()
    assert parameters.measureOutline is drawn
    assert drawn.GetDisplayVisibility()
    operation.scan()
    assert parameters.measureOutline is None
    assert not drawn.GetDisplayVisibility()
    assert drawn.GetScene() is slicer.mrmlScene, "a person has drawn it"
    assert other.GetDisplayVisibility()


def test_the_margin_of_the_cavity_stands_in_the_table(operation: Operation) -> None:
    operation.scan()
    image = operation.running.registered.image
    closest = Measurement("Closest margin", 2.1, "mm", "definition", interval=(0.8, 3.4))
    outside = Measurement("Tumour border outside the cavity", 0.0, "%", "definition", interval=(0.0, 4.0))
    margin = product("assess.margin").Margin(closest, outside, "anterior", np.zeros(3))
    operation.session.journal.margin(margin, image)
    operation.panel.refresh()
    assert operation.rows() == ["Closest margin", "Tumour border outside the cavity"]
    text = operation.session.journal.record.margin.text
    assert text == "Closest margin 2.1 mm (0.8 to 3.4), anterior; the cavity encloses the tumour's border."
