"""Page 6: a proposal is made in the background, looks like one, and is a number only after a person has reviewed it."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import invert
from panels.operation import GOOD, product, segmentation, texts
from peers.low_grade import TUMOUR_AT, Head, followed, moved, operated

__all__ = ["app"]

TITLE = "Residual non-enhancing tumour"


class Operation:
    """A low-grade tumour, half of it taken out: a T1 is registered, a FLAIR lies beside it."""

    def __init__(self, head: Head) -> None:
        slicer.util.selectModule("IntraopMRI")
        self.panel = slicer.util.getModuleWidget("IntraopMRI").panel
        self.head, p = head, self.panel.parameters
        p.patientId, p.surgeon = "P-1", "Dr. Example"
        p.preopVolume = self.volume("T1 before", head.preop)
        tumour = {"non-enhancing": head.tumour.array != 0}
        p.tumourSegmentation = segmentation("Tumour", head.tumour.ras_from_ijk, tumour)
        p.measureScan, p.measureFlair = self.volume("FLAIR now", head.scan), self.volume("FLAIR before", head.flair)
        self.running = self.panel.running
        self.session = product("session").Session(product("scene.panels.nodes").planLater(p)())
        self.running._connected((self.session, product("scene.prepared").preparePlan(self.session.plan)))
        self.page = next(page for phase, page in self.panel.pages.items() if phase.name == "DECIDE")
        self.panel.open(self.page.phase)

    @staticmethod
    def volume(name: str, image: Image) -> Any:
        return slicer.util.addVolumeFromArray(image.array, image.ras_from_ijk, name)

    def scan(self, name: str) -> None:
        """A registered scan whose brain shift is followed."""
        head, pair = self.head, self.session._pair
        image = replace(head.scan, name=name, uid=name)
        pair.take(image, "contrast")
        self.session.journal.image(image, "contrast")
        self.session._tell(product("session.updates").ImageReady(image, "contrast", None, 0.0))
        found = product("register.rigid").RigidRegistration(head.pose, GOOD, 1.0, 0.3, 0.9, 0.1, 1.0, name, "preop")
        pair.place("contrast", found)
        self.session._registered(found, image)
        pair.follow("contrast", followed(head.pose, head.carried, head.cavity, head.brain, name))
        wait_until(lambda: self.running.registered is not None and self.running.registered.image is image, 20, "scan")
        self.running.confirm()
        titles = [recipe.title for recipe in product("session.measures").RECIPES.values()]
        self.page.ui.measureKindBox.currentIndex = titles.index(TITLE)
        self.panel.refresh()

    def propose(self) -> None:
        self.page.ui.proposeButton.click()
        wait_until(lambda: self.running.task is None, 30, "the proposal")
        self.panel.refresh()


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation(operated(0.5))


def nodes(name: str) -> list[Any]:
    return [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if name in node.GetName()]


def test_a_proposal_is_reviewed_before_it_is_a_number(operation: Operation) -> None:
    ui, parameters, journal = operation.page.ui, operation.panel.parameters, operation.session.journal
    assert not ui.proposeButton.enabled
    operation.scan("T1 now")
    assert ui.proposeButton.enabled
    operation.propose()
    assert operation.running.problem == ""
    (node,) = nodes("Proposal, not reviewed")
    assert parameters.measureOutline is node
    assert "reviewed by nobody" in ui.measureResult.text
    assert "cm³" not in ui.measureResult.text
    assert journal.record.drawn == ()
    colors = product("scene.colors")
    color = node.GetSegmentation().GetSegment("proposal").GetColor()
    assert tuple(color) == pytest.approx(colors.PROPOSED, abs=1e-3)
    assert not node.GetDisplayNode().GetVisibility2DFill()
    assert len(nodes("Cannot be told")) == 1
    shown: Any = operation
    operation.panel.annotate()
    assert "Proposal, not reviewed" in "".join(texts(shown, "Red"))
    ui.measureButton.click()
    (entry,) = journal.record.drawn
    assert entry.proposed == "unchanged"
    assert entry.measurements[0].value == pytest.approx(operation.head.left_cm3, rel=0.15)
    assert nodes("Proposal, not reviewed") == []
    assert nodes("Cannot be told") == []
    assert "reviewed by nobody" not in ui.measureResult.text
    operation.panel.annotate()
    assert "Proposal" not in "".join(texts(shown, "Red"))
    assert "Non-enhancing tumour, reviewed" in "".join(texts(shown, "Red"))
    operation.scan("T1 later")
    operation.panel.annotate()
    assert "reviewed" not in "".join(texts(shown, "Red")), "it belongs to the scan before"


def test_a_proposal_goes_with_its_scan(operation: Operation) -> None:
    operation.scan("T1 now")
    operation.propose()
    assert nodes("Proposal")
    operation.scan("T1 later")
    assert nodes("Proposal") == []
    assert operation.panel.parameters.measureOutline is None
    assert operation.page.ui.measureResult.text == ""


def test_a_flair_of_a_patient_who_has_moved_is_shown_where_the_proposal_lies(operation: Operation) -> None:
    head, parameters = operation.head, operation.panel.parameters
    operation.scan("T1 now")
    scan, motion = moved(head.scan, 3.0, 1.5, TUMOUR_AT)
    chosen = parameters.measureScan = operation.volume("FLAIR later", scan)
    operation.propose()
    assert operation.running.problem == ""
    laid = slicer.util.getNode("FLAIR later, laid on the registered scan")
    matrix = vtk.vtkMatrix4x4()
    laid.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), invert(motion) @ scan.ras_from_ijk, atol=0.05)
    assert parameters.measureScan is chosen
    words = unescape(operation.page.ui.measureResult.text)
    assert "did not lie in 'FLAIR later' as in 'T1 now' (3." in words
    assert "has moved between both scans: review it on 'FLAIR later, laid on the registered scan'" in words
    operation.page.ui.measureButton.click()
    (entry,) = operation.session.journal.record.drawn
    assert (entry.proposed, "1.5 deg" in entry.note) == ("unchanged", True)
    assert entry.measurements[0].value == pytest.approx(head.left_cm3, rel=0.15)
    assert laid.GetScene() is not None
    operation.propose()
    operation.scan("T1 later")
    assert len(slicer.util.getNodes("FLAIR later, laid*")) == 1, "that of the reviewed outline alone"


def test_why_nothing_is_proposed_is_said_and_a_proposal_can_be_cancelled(operation: Operation) -> None:
    operation.scan("T1 now")
    operation.panel.parameters.measureFlair = operation.panel.parameters.preopVolume
    operation.propose()
    assert "brighter than its surroundings" in operation.running.problem
    assert nodes("Proposal") == []
    operation.panel.parameters.measureFlair = None
    operation.page.ui.proposeButton.click()
    task = operation.running.task
    operation.running.cancel()
    task.join(30.0)
    operation.panel.refresh()
    assert nodes("Proposal") == []
    assert operation.page.ui.proposeButton.enabled


def test_other_measures_are_not_proposed_and_an_empty_outline_is_none_left(operation: Operation) -> None:
    operation.scan("T1 now")
    ui = operation.page.ui
    ui.measureKindBox.currentIndex = 0
    operation.panel.refresh()
    assert not ui.proposeButton.visible
    assert not ui.measureScan.visible
    operation.scan("T1 again")
    grid = operation.head.scan.ras_from_ijk
    empty = {"nothing left": np.zeros(operation.head.scan.array.shape, dtype=bool)}
    operation.panel.parameters.measureOutline = segmentation("Left", grid, empty)
    ui.measureButton.click()
    (entry,) = operation.session.journal.record.drawn
    assert entry.measurements[0].value == 0.0
    assert entry.proposed == ""
