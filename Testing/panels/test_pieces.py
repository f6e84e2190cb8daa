"""Page 6: the residual piece by piece. The views go to each, and a person may judge one not to be tumour."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Measurement, Pose
from panels.operation import Operation, ball, product, texts
from peers.pieces_case import assessed
from PySide6 import QtWidgets

__all__ = ["app"]

LARGE, SECOND = np.array([-26.0, 0.0, 10.0]), np.array([-10.0, 16.0, 22.0])


@pytest.fixture
def operation(app: Any) -> Operation:
    made = Operation()
    made.panel.parameters.surgeon = "Dr. Example"
    made.register()
    find(made)
    return made


def find(operation: Operation) -> None:
    """The residual of two pieces, as the worker tells it."""
    tumour = ball(np.array([-20.0, 0, 10]), 9.0)
    made = assessed(operation.image, [ball(LARGE, 6.5), ball(SECOND, 4.5)], tumour)
    operation.session._decisions.residual(product("session.updates").ResidualFound(made))
    operation.until(lambda: operation.running.view.pieces, "the residual")


def at_piece(operation: Operation) -> list[np.ndarray]:
    """Where each slice view stands."""
    manager = slicer.app.layoutManager()
    return [
        np.array(slicer.util.arrayFromVTKMatrix(manager.sliceWidget(name).mrmlSliceNode().GetSliceToRAS())[:3, 3])
        for name in manager.sliceViewNames()
    ]


def confirmed(operation: Operation) -> Any:
    operation.running.confirm()
    operation.open("DECIDE")
    operation.panel.refresh()
    return operation.page("DECIDE").ui


def test_nothing_is_listed_before_the_registration_is_confirmed(operation: Operation) -> None:
    operation.open("DECIDE")
    ui = operation.page("DECIDE").ui
    assert not ui.pieceSection.visible
    ui = confirmed(operation)
    assert ui.pieceSection.visible
    assert [ui.pieceTable.item(row, 0).text() for row in range(ui.pieceTable.rowCount)] == ["1", "2"]
    assert "left" in ui.pieceTable.item(0, 3).text()


def test_next_and_previous_bring_all_views_there_with_a_mark(operation: Operation) -> None:
    ui, view = confirmed(operation), operation.running.view
    for button, number, place in (("next", 1, LARGE), ("next", 2, SECOND), ("next", 1, LARGE), ("previous", 2, SECOND)):
        getattr(ui, f"{button}PieceButton").click()
        assert view.piece == number
        for at in at_piece(operation):
            assert np.linalg.norm(at - place) < 3.0
        camera = slicer.app.layoutManager().threeDWidget(0).threeDView().renderWindow().GetRenderers()
        assert np.linalg.norm(camera.GetFirstRenderer().GetActiveCamera().GetFocalPoint() - place) < 3.0
        mark = view.bridge.node("result.piece")
        bounds = np.zeros(6)
        mark.GetBounds(bounds)
        assert np.linalg.norm(bounds.reshape(3, 2).mean(axis=1) - place) < 3.0
        # Calm: red is the residual alone.
        assert mark.GetDisplayNode().GetColor() == product("scene.colors").MARK
    assert not operation.panel.parameters.followPointer
    assert "Piece 2 of 2" in ui.pieceLabel.text


def test_the_views_say_which_piece_they_stand_at(operation: Operation) -> None:
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    operation.panel.annotate()
    for view in ("Red", "Green", "Yellow"):
        assert "PIECE 1 OF 2" in texts(operation, view)
    words = texts(operation, "3D")
    assert "PIECE 1 OF 2" in words
    assert "left part of where the" in " ".join(words)


def test_the_distance_of_the_tip_goes_with_its_pose(operation: Operation) -> None:
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    assert ui.pieceTable.item(0, 2).text() == "–"
    operation.point(LARGE + np.array([0.0, 0.0, 20.0]))
    assert float(ui.pieceTable.item(0, 2).text().removesuffix(" mm")) == pytest.approx(13.5, abs=1.0)
    assert "Tip to it: <b>" in ui.pieceLabel.text
    wait_until(lambda: operation.running.view.waitsForPose(), 20, "the pose to be stale")
    operation.panel.refresh()
    assert ui.pieceTable.item(0, 2).text() == "–"
    assert "Tip to it: –" in ui.pieceLabel.text


def test_a_piece_and_the_residual_are_measured_from_one_place(operation: Operation) -> None:
    confirmed(operation)
    operation.open("NAVIGATE")
    operation.open("DECIDE")
    rng, view, running = np.random.default_rng(0), operation.running.view, operation.running

    def moved() -> bool:
        """A hand that moves and trembles; whether its last pose is live."""
        began = time.monotonic() - 0.1
        for step in range(20):
            matrix = np.eye(4)
            matrix[:3, 3] = LARGE + np.array([0.0, 0.0, 30.0 - 0.5 * step]) + rng.normal(0.0, 0.5, 3)
            running.place(Pose(matrix, "Pointer", began + 0.005 * step, time.time()))
            running._move()
            operation.page("NAVIGATE").poseArrived()
        guide, tip, piece = operation.page("NAVIGATE").guidance, view.tip(), view.tipToPiece(1)
        found.update(whole=guide.residual, tip=tip, piece=piece, shown=view.readout().tip_to_residual)
        return guide.residual is not None and all(m.value is not None for m in (piece, found["shown"]))

    found: dict[str, Any] = {}
    wait_until(moved, 10, "a live pose")
    # The pose that guides is steadier than the one that came.
    assert np.linalg.norm(found["tip"] - running.pose.tip_ras_mm) > 0.05
    for one in (found["piece"], found["shown"]):
        assert one.value == pytest.approx(found["whole"].value, abs=1e-6)


def test_the_nearest_structure_is_said_once_somebody_has_decided_on_it(operation: Operation) -> None:
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    assert "not decided on: Motor tract" in ui.pieceLabel.text
    operation.open("SCAN")
    operation.choose("Motor tract")
    operation.page("SCAN").ui.rejectButton.click()
    operation.until(lambda: operation.running.view.near[1].value is not None, "the distance")
    operation.open("DECIDE")
    assert "Motor tract: <b>" in ui.pieceLabel.text
    # The views still stand at it.
    assert operation.running.view.piece == 1


def follow(operation: Operation, minutes: float) -> None:
    """The course of the first piece is measured, as the worker tells it; that of the second could not be compared."""
    course, decisions = product("assess.course"), operation.session._decisions
    ends = [Measurement("", value, "%", "", interval=(value - 4.0, value + 4.0)) for value in (41.0, 55.0)]
    change = Measurement("Piece 1: change of enhancement", 14.0, "%", "newest minus first", interval=(8.0, 20.0))
    made = {
        1: course.Course((0.0, minutes), tuple(ends), change, course.Trend.CLIMBS),
        2: course.no_course(2, "the tissue around it moved 1.6 mm between the contrast scans", ()),
    }
    decisions.completed(decisions.found, replace(decisions.found, courses=made))
    operation.until(lambda: operation.running.view.courses.get(1) is made[1], "the course")


def test_the_course_of_a_piece_says_first_what_it_does_and_what_speaks_against_it(operation: Operation) -> None:
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    assert "enhancement" not in ui.pieceLabel.text.lower()
    course, decisions = product("assess.course"), operation.session._decisions
    waits = {number: course.no_course(number, "still to be measured", ()) for number in (1, 2)}
    decisions.completed(decisions.found, replace(decisions.found, courses=waits))
    operation.until(lambda: operation.running.view.courses, "that it is to come")
    assert "Course of enhancement: –&nbsp;&nbsp;still to be measured" in ui.pieceLabel.text
    follow(operation, 6.0)
    assert "<b>Enhancement climbs</b>: 41 % to 55 % in 6 min" in ui.pieceLabel.text
    assert "no sign of tumour" not in ui.pieceLabel.text
    assert "change of enhancement: 14 ± 6 %. newest minus first" in ui.pieceTable.item(0, 0).toolTip()
    # The views still stand at it.
    assert operation.running.view.piece == 1
    follow(operation, 12.0)
    assert "After 10 min a climb is no sign of tumour" in ui.pieceLabel.text
    ui.nextPieceButton.click()
    assert "Course of enhancement: –&nbsp;&nbsp;the tissue around it moved 1.6 mm" in ui.pieceLabel.text


def test_the_report_waits_for_what_is_still_measured(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed(operation)
    operation.panel.parameters.decision = product("scene.parameters").Decision.CLOSE
    page = operation.page("DECIDE")
    assert page.action() is not None
    monkeypatch.setattr(type(operation.session), "measuring", True)
    assert page.action() is None
    assert "still being measured" in page.state().text


def test_a_person_excludes_a_piece_and_every_number_says_so(operation: Operation) -> None:
    ui = confirmed(operation)
    before = operation.running.residual.volume_cm3
    ui.nextPieceButton.click()
    ui.nextPieceButton.click()
    ui.notTumourButton.click()
    operation.until(lambda: operation.running.view.judged, "the judgement")
    assert operation.running.residual.volume_cm3 < before
    assert "Excluded by a person: Dr. Example, for this scan" in ui.pieceLabel.text
    assert ui.notTumourButton.text == "Count it again"
    operation.panel.annotate()
    assert "1 piece excluded by a person" in texts(operation, "3D")
    assert "judged not tumour by Dr. Example" in ui.basisLabel.text
    ui.notTumourButton.click()
    operation.until(lambda: not operation.running.view.judged, "all pieces again")
    assert operation.running.residual.volume_cm3 == pytest.approx(before)


def test_nobody_judges_without_a_name(operation: Operation) -> None:
    operation.panel.parameters.surgeon = ""
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    assert not ui.notTumourButton.enabled
    assert "Enter the surgeon" in ui.pieceNote.text


def test_a_new_scan_takes_the_pieces_and_the_mark_away(operation: Operation) -> None:
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    operation.arrive(operation.scan())
    assert not operation.running.view.pieces
    assert operation.running.view.bridge.node("result.piece") is None
    assert not ui.pieceSection.visible
    operation.panel.annotate()
    assert "PIECE 1 OF 2" not in texts(operation, "Red")


def test_a_new_registration_takes_them_away_too(operation: Operation) -> None:
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    found = operation.running.registered
    operation.session._registered(found.registration, operation.image)
    operation.until(lambda: operation.running.registered is not found, "the registration")
    assert not operation.running.view.pieces
    assert not ui.pieceSection.visible


def test_the_decision_and_the_pieces_are_in_sight_at_once(operation: Operation, app: Any) -> None:
    """The decision stood below the pieces, and below the edge of a small screen."""
    window = slicer.util.mainWindow()
    window.resize(1280, 800)
    ui = confirmed(operation)
    ui.nextPieceButton.click()
    for _ in range(5):
        app.processEvents()
    scroll = window.findChild(QtWidgets.QScrollArea)
    assert scroll.verticalScrollBar().value == 0
    for widget in (ui.decisionBox, ui.surgeonEdit, ui.pieceLabel, ui.nextPieceButton, ui.notTumourButton):
        bottom = widget.mapTo(scroll.widget(), widget.rect.bottomLeft()).y()
        assert bottom < scroll.viewport().size.height(), widget.objectName
