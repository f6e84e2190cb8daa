"""Page 6 says what the decision rests on, and its pictures show the scan alone."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Image, Measurement
from panels.operation import SPACING_MM, Operation, ball, grid, product

__all__ = ["app"]

PLACE = np.array([12.0, -4.0, 6.0])


@pytest.fixture
def operation(app: Any) -> Operation:
    made = Operation()
    made.register()
    made.open("DECIDE")
    return made


def texts(operation: Operation) -> tuple[str, str]:
    operation.panel.refresh()
    ui = operation.page("DECIDE").ui
    return ui.resultLabel.text, ui.basisLabel.text


def measured(operation: Operation) -> None:
    """A residual as the session hands it over."""
    numbers = (
        Measurement("Residual enhancing tumour", 1.1, "cm3", "volume", interval=(0.4, 2.2)),
        Measurement("Extent of resection", 92.0, "percent", "part", interval=(85.0, 97.0)),
    )
    operation.running.residual = SimpleNamespace(
        measurements=numbers, rano=SimpleNamespace(value="3A"), interval_cm3=(0.4, 2.2), volume_cm3=1.1,
        residual=Image(ball(np.zeros(3), 3.0).astype(np.uint8), grid()),
    )  # fmt: skip


def test_numbers_stand_on_a_dark_ground_that_is_given_back(operation: Operation) -> None:
    node = slicer.app.layoutManager().threeDWidget(0).mrmlViewNode()
    overlay = operation.panel.overlay
    overlay.close()
    node.SetBackgroundColor(0.7, 0.7, 0.9)
    node.SetBoxVisible(True)
    overlay.annotate(operation.running.view.readout())
    assert node.GetBackgroundColor() == (0.0, 0.0, 0.0)
    assert not node.GetBoxVisible()
    overlay.close()
    assert node.GetBackgroundColor() == (0.7, 0.7, 0.9)
    assert node.GetBoxVisible()
    node.SetBackgroundColor(0.0, 0.0, 0.0)
    node.SetBoxVisible(False)


def test_nothing_is_said_before_the_confirmation(operation: Operation) -> None:
    said, basis = texts(operation)
    assert "registration not confirmed" in said
    assert not basis


def test_the_result_and_what_it_rests_on(operation: Operation) -> None:
    operation.running.confirm()
    said, basis = texts(operation)
    assert "Residual –" in said
    assert "needs a scan with contrast agent" in said
    measured(operation)
    said, basis = texts(operation)
    assert "Residual 1.1 cm³" in said
    assert "0.4 to 2.2 cm³" in said
    assert "Resected 92 %" in said
    assert "RANO class 3A" in said
    assert "Registration good, confirmed" in basis
    assert "2 of 2 plan items undecided: not shown" in basis
    assert "8a5f00" in basis.partition("T1 contrast")[0], "a scan of 2023 is old"
    operation.panel.parameters.surgeon = "Dr. Example"
    operation.page("SCAN").choices.acceptGood()
    operation.image = Image(operation.image.array, grid(), "T1 contrast", acquired_utc_s=time.time())
    assert "Plan: 2 carried over, 0 rejected" in texts(operation)[1]


@pytest.mark.parametrize(("low", "high", "stands"), [(8.0, 97.0, False), (30.0, 52.0, True)])
def test_a_percentage_that_says_little_stands_in_the_table_alone(
    operation: Operation, low: float, high: float, stands: bool
) -> None:
    operation.running.confirm()
    result = product("scene.panels.basis").result
    outside = Measurement("Tumour border outside the cavity", 41.0, "%", "part", interval=(low, high))
    assert (outside.name in result(operation.running, [outside])) is stands


def test_the_picture_is_the_scan_alone_and_the_views_come_back(operation: Operation, tmp_path: Path) -> None:
    operation.running.confirm()
    operation.running.view.centroid = PLACE
    parameters, compare = operation.panel.parameters, operation.page("SCAN").compare
    parameters.blend = 0.3
    compare.show(product("scene.parameters").Comparison.BLEND, 0.3)
    red = slicer.app.layoutManager().sliceWidget("Red")
    composite = red.mrmlSliceCompositeNode()
    before = slicer.util.arrayFromVTKMatrix(red.mrmlSliceNode().GetSliceToRAS()).copy()
    volumes = composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()
    assert all(volumes)
    seen = []
    decide = product("scene.panels.decide")
    taken = decide.pictures_of_views

    def look() -> Any:
        place = slicer.util.arrayFromVTKMatrix(red.mrmlSliceNode().GetSliceToRAS())[:3, 3]
        seen.append((composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(), place.copy()))
        return taken()

    page = operation.page("DECIDE")
    page.ui.reportFolderEdit.currentPath = str(tmp_path)
    parameters.surgeon = "Dr. Example"
    page.report.__globals__["pictures_of_views"] = look
    page.report()
    page.report.__globals__["pictures_of_views"] = taken
    now = operation.running.view.volume().GetID()
    assert [(below, above) for below, above, _place in seen] == [(now, None)]
    np.testing.assert_allclose(seen[0][2], PLACE, atol=SPACING_MM)
    assert (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()) == volumes
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(red.mrmlSliceNode().GetSliceToRAS()), before)
    report = (tmp_path / "report.html").read_text()
    assert "Axial" in report
    assert "3D with the numbers of this moment" in report
    assert json.loads((tmp_path / "session.json").read_text())["operator"] == "Dr. Example"


def test_a_result_says_what_it_means(app: Any) -> None:
    """An implant with the deviations that it is judged by, in the colour of its grade; on which side a margin lies."""
    basis, style = product("scene.panels.basis"), product("scene.panels.style")
    deviations = tuple(
        Measurement(f"Screw: {name}", value, unit, "d", interval=(value - 0.5, value + 0.5))
        for name, value, unit in (("tip deviation", 4.4, "mm"), ("depth deviation", 1.0, "mm"))
    )
    found = SimpleNamespace(grade="unacceptable", measurements=deviations)
    plan = SimpleNamespace(tumour=None, baseline=None)
    before = SimpleNamespace(image_name="T1 first", measurements=deviations[:1], confirmed=True)
    unseen = SimpleNamespace(image_name="T1 second", measurements=deviations[:1], confirmed=False)
    journal = SimpleNamespace(record=SimpleNamespace(looks=(before, unseen)))
    running = SimpleNamespace(
        bones={}, untrustedBecause="", residual=None, session=SimpleNamespace(plan=plan, journal=journal),
        implants={"Screw": found},
    )  # fmt: skip
    margin = Measurement("Closest margin", -5.6, "mm", "d", interval=(-7.8, -3.4))
    said = basis.result(running, [margin])
    assert style.readable(style.DANGER) in said
    assert "tip 4.4 ± 0.5 mm" in said
    assert "depth" not in said
    assert "Closest margin, outside the cavity" in said
    # What nobody confirmed then is not said now.
    assert "Before, in T1 first: Screw: tip deviation 4.4 ± 0.5 mm" in said
    assert "T1 second" not in said
    numbers = (
        Measurement("Residual", 1.1, "cm3", "d", interval=(0.4, 2.2)),
        Measurement("Extent", None, "%", "d", missing_because="the rest looks like tissue"),
    )
    running.residual = SimpleNamespace(measurements=numbers, rano=SimpleNamespace(value="3A"))
    without = basis.result(running, [])
    assert "the rest looks like tissue" in without
    assert "RANO" not in without
    running.residual = None
    inside = basis.result(running, [replace(margin, value=2.1, interval=(0.8, 3.4))])
    assert "outside" not in inside
    card = product("scene.panels.navigate").scorecard(
        "Screw",
        SimpleNamespace(
            grade="unacceptable",
            basis="pose of L3",
            planned=SimpleNamespace(susceptibility_ppm=182.0),
            measurements=(*deviations, Measurement("Screw: possible shift of the void, readout", 0.5, "mm", "d")),
        ),
    )
    assert "depth" in card
    assert "possible" not in card
    assert "Titanium" in card
