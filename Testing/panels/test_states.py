"""States between the steps: what is refused, stale or waits for a person says so, and nothing old lies beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Level, Reason, Verdict
from IntraopMRIReconstructionLib.geometry import apply
from panels.operation import GOOD, REFUSED, TARGET, Operation, pose, product
from panels.test_earlier_result import kept
from panels.test_layout import FOLDED, overflow
from panels.test_pieces import find
from panels.test_readable import held, style
from PySide6 import QtWidgets

__all__ = ["app", "style"]

#: A refusal for two reasons, as they come.
LONG = Verdict(
    (
        Reason("overlap of both heads", 0.61, "", "above 0.85", Level.REFUSED),
        Reason("agreement of two starts", 6.2, "mm", "below 2", Level.REFUSED),
    )
)


def confirmed() -> Operation:
    operation = Operation()
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.register()
    find(operation)
    operation.running.confirm()
    return operation


def another(operation: Operation, verdict: Any = None) -> None:
    """A new image; with a verdict, registered."""
    image = replace(operation.image, uid="later", name="T1 later")
    operation.arrive(image)
    if verdict is not None:
        found = product("register.rigid").RigidRegistration(pose(), verdict, 1.0, 0.5, 0.9, 0.1, 1.0, "later", "preop")
        operation.session._registered(found, image)
        operation.until(lambda: operation.running.registered is not None, "the registration")
    operation.panel.refresh()


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (None, "the new image is not registered yet"),
        (REFUSED, "registration refused"),
        (GOOD, "registration not confirmed"),
    ],
)
def test_all_pages_say_why_the_registration_is_not_relied_on(style: str, verdict: Any, why: str) -> None:
    operation = confirmed()
    another(operation, verdict)
    panel = operation.panel.ui
    for name, label in (("NAVIGATE", "residualDistanceLabel"), ("DECIDE", "resultLabel"), ("DECIDE", "measureResult")):
        operation.open(name)
        operation.panel.refresh()
        assert why in getattr(operation.page(name).ui, label).text.lower(), label
        assert panel.whyLabel.text.lower().startswith(why), name
        assert "confirm the registration" not in panel.whyLabel.text.lower(), "one that is refused cannot be confirmed"
        held(operation.panel.widget)
    red = product("scene.panels.style").readable(product("scene.panels.style").DANGER)
    assert (red in operation.page("DECIDE").ui.resultLabel.text) is (verdict is REFUSED), "red is for the refusal alone"
    operation.open("SCAN")
    wanted = "needs a scan with contrast agent" if verdict is GOOD else why
    assert wanted in operation.page("SCAN").ui.residualLabel.text


def test_an_earlier_result_of_another_patient_shows_no_number(app: Any, tmp_path: Path) -> None:
    operation = Operation()
    operation.running.disconnect()
    operation.until(lambda: operation.running.task is None, "the end of the session")
    slicer.util.mainWindow().resize(1280, 800)
    operation.open("CASE")
    page, panel = operation.page("CASE"), operation.panel.ui
    page.ui.earlierResults.currentPath = kept(tmp_path / "own")
    assert "residual 2.0 ± 0.5 cm³" in page.ui.summaryLabel.text
    for widget in vars(page.ui).values():
        if type(widget).__name__ == "ctkCollapsibleButton":
            widget.collapsed = widget.name in FOLDED
    assert overflow(app, slicer.util.mainWindow(), operation, "CASE") == 0
    page.ui.earlierResults.currentPath = kept(tmp_path / "other", patient="P-2")
    assert "cm³" not in page.ui.summaryLabel.text
    assert panel.nextButton.text == "Choose the earlier result"
    page.ui.earlierResults.currentPath = str(tmp_path / "nowhere")
    assert panel.nextButton.text == "Choose the earlier result"


def larger(app: Any, operation: Operation) -> Iterator[None]:
    """Letters half as large again, while it is not closed."""
    before, font = QtWidgets.QApplication.font(), QtWidgets.QApplication.font()
    font.setPointSizeF(1.5 * before.pointSizeF())
    QtWidgets.QApplication.setFont(font)
    try:
        wait_until(lambda: operation.panel.suited.scale > 1.0, 5, "the larger letters")
        yield
    finally:
        QtWidgets.QApplication.setFont(before)
        wait_until(lambda: operation.panel.suited.scale == 1.0, 5, "the letters as before")


def test_no_reason_is_cut_off_however_large_the_letters(app: Any) -> None:
    slicer.util.mainWindow().resize(1280, 800)
    operation = confirmed()
    operation.point(apply(pose(), TARGET))  # page 3 is done: the pages after 4 wait for that one, and say why
    another(operation, LONG)
    for _ in larger(app, operation):
        for name in ("SCAN", "NAVIGATE", "DECIDE"):
            if name == "SCAN":
                operation.page(name).ui.compareSection.collapsed = False
            overflow(app, slicer.util.mainWindow(), operation, name)
            why = operation.panel.ui.whyLabel
            assert "agreement of two starts" in why.text, name
            assert why.heightForWidth(why.width) <= why.height, name
            scroll = slicer.util.mainWindow().findChild(QtWidgets.QScrollArea)
            assert scroll.horizontalScrollBar().maximum == 0, name


def test_what_is_measured_can_be_read_in_large_letters(app: Any) -> None:
    slicer.util.mainWindow().resize(1280, 800)
    operation = confirmed()
    ui = operation.page("DECIDE").ui
    ui.measureSection.collapsed = False
    for _ in larger(app, operation):
        titles = [ui.measureKindBox.itemText(index) for index in range(ui.measureKindBox.count)]
        ui.measureKindBox.currentIndex = titles.index("Residual non-enhancing tumour")
        overflow(app, slicer.util.mainWindow(), operation, "DECIDE")
        waiting = "Proposal, not reviewed"
        for box, words in ((ui.measureKindBox, ui.measureKindBox.currentText), (ui.measureOutline, waiting)):
            # Beside the words are the arrow and the frame.
            assert box.fontMetrics().horizontalAdvance(words) + 24 <= box.width, words


def test_a_measure_and_the_decision_share_their_place(app: Any) -> None:
    ui = confirmed().page("DECIDE").ui
    ui.decisionSection.collapsed = False
    ui.measureSection.collapsed = False
    assert ui.decisionSection.collapsed
    ui.pieceSection.collapsed = False
    assert ui.measureSection.collapsed
