"""The one prominent button leads on from where a session stands, also where it went wrong, and says nothing stale."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.geometry import apply
from panels.operation import REFUSED, RISK, TARGET, Operation, pose, product, texts
from panels.test_heat import numbers, tell
from PySide6 import QtWidgets

__all__ = ["app"]


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation()


def guided(operation: Operation) -> None:
    """A confirmed registration, and all of the plan accepted."""
    operation.register()
    operation.running.confirm()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.page("SCAN").choices.acceptGood()


def test_a_refused_registration_leads_to_another_scan(operation: Operation) -> None:
    """Page 3 is not done either, and nothing there would help."""
    operation.arrive(operation.image)
    refused = product("register.rigid").RigidRegistration(
        pose(), REFUSED, 1.0, 0.5, 0.9, 0.1, 1.0, operation.image.uid, "preop"
    )
    operation.session._registered(refused, operation.image)
    operation.open("SCAN")
    operation.until(lambda: operation.running.registered is not None, "the refusal")
    ui = operation.panel.ui
    assert ui.nextButton.text == "Choose another volume"
    assert ui.nextButton.enabled
    assert "Pointer" not in ui.whyLabel.text
    assert ui.whyLabel.text.startswith("Registration refused: folded tissue")
    # What waits for another page still leads there.
    operation.open("NAVIGATE")
    assert ui.nextButton.text.startswith("Go to: ")


def test_the_sentence_of_page_5_follows_the_pointer_by_itself(operation: Operation) -> None:
    guided(operation)
    operation.open("NAVIGATE")
    ui = operation.panel.ui
    operation.point(apply(pose(), TARGET))
    assert "The pointer guides" in ui.whyLabel.text
    wait_until(lambda: "no distance is shown" in ui.whyLabel.text, 5, "the end of it")
    said = ui.whyLabel.text
    # Its age is counted in one place; a second one would stand still beside it.
    assert not any(sign.isdigit() for sign in said)
    assert operation.page("NAVIGATE").ui.alarmLabel.text.count("The last pose of")


def test_a_pointer_on_the_table_is_calm_until_page_5_is_opened(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided(operation)
    monkeypatch.setattr(product("navigate.watch"), "ASIDE_S", 0.4)
    monkeypatch.setattr(operation.session, "links", lambda: {"tracker": ("127.0.0.1:1", True)})
    operation.open("NAVIGATE")
    operation.point(apply(pose(), TARGET))
    ui, amber = operation.page("NAVIGATE").ui, product("scene.panels.style").CHECK

    def unseen(seconds: float) -> list[str]:
        """The tracker does not see it for so long; then, what the 3D view says."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            operation.running.place(Pose(np.eye(4), "Pointer", time.monotonic(), time.time(), valid=False))
            operation.running._move()
            operation.page("NAVIGATE").poseArrived()
            slicer.app.processEvents()
        operation.page("NAVIGATE").tick()
        operation.panel.annotate()
        return texts(operation, "3D")

    assert any("POINTER NOT SEEN" in text for text in unseen(0.1))
    assert amber in ui.alarmLabel.text
    said = unseen(0.5)
    assert not any("NOT SEEN" in text for text in said)
    assert "pointer out of sight" in said
    assert amber not in ui.alarmLabel.text
    assert "out of sight" in ui.alarmLabel.text
    assert "mm" not in ui.residualDistanceLabel.text + ui.riskDistanceLabel.text + ui.targetDistanceLabel.text
    operation.open("DECIDE")
    assert not any("NOT SEEN" in text for text in unseen(0.1))
    # Whoever opens the page of the pointer wants it.
    operation.open("NAVIGATE")
    assert any("POINTER NOT SEEN" in text for text in unseen(0.1))
    assert amber in ui.alarmLabel.text


def test_the_views_carry_the_distance_to_the_nearest_structure_at_risk(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided(operation)
    monkeypatch.setattr(operation.session, "links", lambda: {"tracker": ("127.0.0.1:1", True)})
    operation.open("NAVIGATE")

    def said() -> list[str]:
        operation.panel.annotate()
        return texts(operation, "3D")

    operation.point(apply(pose(), TARGET))
    shown = said()
    assert "MOTOR TRACT" in shown
    distance = shown[shown.index("MOTOR TRACT") + 1]
    assert distance.endswith(" mm")
    assert "±" in distance
    operation.point(apply(pose(), RISK))
    assert any("TOO NEAR: MOTOR TRACT" in words for words in said())
    wait_until(lambda: operation.running.view.waitsForPose(), 5, "the stale pose")
    assert "MOTOR TRACT" not in said()


def test_an_ablation_asks_for_the_mark_it_needs(operation: Operation) -> None:
    guided(operation)
    operation.open("SCAN")
    tell(operation, numbers("drift not corrected: mark the heated spot"))
    ui = operation.panel.ui
    assert ui.nextButton.text == "Mark the hottest spot"
    ui.nextButton.click()
    assert operation.panel.parameters.heatedPlace is not None
    operation.running.progress = 0.4, "receiving Thermometry"
    tell(operation, numbers())
    assert ui.nextButton.text == "Temperature is measured"
    tell(operation, numbers(), received_s=time.monotonic() - 60)
    assert ui.nextButton.text == "Please wait"
    operation.running.progress = None


def test_an_ablation_needs_no_scroll_bar(operation: Operation, app: Any) -> None:
    window = slicer.util.mainWindow()
    window.resize(1280, 800)
    guided(operation)
    operation.open("SCAN")
    for widget in vars(operation.page("SCAN").ui).values():
        if type(widget).__name__ == "ctkCollapsibleButton":
            widget.collapsed = True  # as the page begins
    tell(operation, numbers(), 43.2)
    operation.page("SCAN").ui.markHottestButton.click()
    tell(operation, numbers(), 43.2)
    for _ in range(5):
        app.processEvents()
    scroll = window.findChild(QtWidgets.QScrollArea)
    assert scroll.verticalScrollBar().maximum == 0
    assert not operation.page("SCAN").ui.residualLabel.visible, "as in the views, temperature takes its place"
    operation.running.disconnect()
    operation.panel.refresh()
    assert operation.page("SCAN").ui.heatSection.collapsed, "the next session begins as the first did"
