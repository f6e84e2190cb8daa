"""Another program on page 4: asked for, cancelled, gone with its image, installed only when a person agrees."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import Cancelled
from panels.operation import Operation, product

__all__ = ["app"]


class Greedy:
    """Stands in for the program: 2 mm from ours everywhere, once it is released."""

    def __init__(self) -> None:
        self.release, self.stopped = threading.Event(), threading.Event()

    def __call__(self, fixed: Image, moving: Image, ours: Any, *, progress: Any, python: str) -> tuple[Image, Image]:
        while not self.release.wait(0.005):
            if not progress(0.5, "greedy"):
                self.stopped.set()
                raise Cancelled("the cross-check was stopped")
        array = np.full(ours.shift.array.shape[:3], 2.0, np.float32)
        return ours.shift, Image(array, ours.shift.ras_from_ijk, "disagreement with greedy (mm)")


@pytest.fixture
def operation(app: Any) -> Operation:
    made = Operation()
    made.register()
    made.running.confirm()
    made.panel.refresh()
    return made


@pytest.fixture
def greedy(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> Greedy:
    made = Greedy()
    monkeypatch.setattr(product("scene.panels.crosscheck"), "greedy_disagreement", made)
    monkeypatch.setattr(product("scene.panels.crosscheck"), "greedy_available", lambda: True)
    return made


def ask(operation: Operation) -> Any:
    ui = operation.page("SCAN").ui
    ui.engineBox.currentIndex = 1
    ui.crossCheckButton.click()
    return ui


def test_ours_alone_unless_asked(operation: Operation) -> None:
    ui = operation.page("SCAN").ui
    assert ui.engineBox.currentIndex == 0
    assert not ui.crossCheckButton.enabled
    ui.engineBox.currentIndex = 1
    assert ui.crossCheckButton.enabled
    assert ui.engineBox.count == 2, "BRAINSFit is offered where Slicer has it"


def test_the_disagreement_is_measured_and_laid_over(operation: Operation, greedy: Greedy) -> None:
    ui = ask(operation)
    assert operation.panel.ui.progressBar.visible
    wait_until(lambda: operation.panel.ui.progressBar.value == 50, 20, "the progress")
    assert not ui.crossCheckButton.enabled
    greedy.release.set()
    wait_until(lambda: operation.page("SCAN").crossCheck.found, 20, "the result")
    operation.panel.refresh()
    words = "Cross-check greedy, p95: 2.0 mm in the brain, 2.0 mm within 15 mm of the cavity"
    assert ui.crossCheckLabel.text == words
    assert words in ui.residualLabel.text, "where it is seen without scrolling"
    assert "95th percentile" in ui.crossCheckLabel.toolTip
    node = operation.running.view.bridge.node("result.disagreement")
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == node.GetID()
    names = [measurement.name for measurement in operation.session.journal.record.measurements]
    assert "Cross-check greedy, in the brain" in names
    operation.image = operation.scan()
    operation.arrive(operation.image)
    assert not operation.page("SCAN").crossCheck.found
    assert composite.GetForegroundVolumeID() != node.GetID()
    names = [measurement.name for measurement in operation.session.journal.record.measurements]
    assert not any(name.startswith("Cross-check") for name in names)


def test_it_is_cancelled_by_a_person_and_by_a_new_image(operation: Operation, greedy: Greedy) -> None:
    ask(operation)
    wait_until(lambda: operation.panel.ui.progressBar.value == 50, 20, "the progress")
    operation.panel.ui.cancelButton.click()
    assert greedy.stopped.wait(10)
    assert operation.running.task is None
    assert not operation.running.problem
    greedy.stopped.clear()
    operation.panel.refresh()
    ask(operation)
    operation.image = operation.scan()
    operation.arrive(operation.image)
    assert greedy.stopped.wait(10)
    operation.panel.refresh()
    assert operation.running.task is None
    assert operation.running.view.bridge.node("result.disagreement") is None


def test_it_is_installed_only_when_a_person_agrees(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product("scene.panels.crosscheck"), "greedy_available", lambda: False)
    monkeypatch.setattr(slicer.packaging, "pip_check", lambda _requirement: False)
    asked = len(slicer.app.pipRequests)
    ask(operation)
    requester, wanted = slicer.app.pipRequests[asked]
    assert requester == "IntraopMRI"
    assert wanted[0].startswith("picsl_greedy")
    assert "picsl_greedy" in operation.running.problem
    assert operation.running.task is None
