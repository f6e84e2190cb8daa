"""A temperature map in the scene of a session: its name, unit, colours and legend, where the scanner saw it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slicer
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.scan_nodes import scanOf
from IntraopMRILib.scene.session_view import SessionView
from IntraopMRILib.session import Plan
from IntraopMRILib.session.products import map_of
from IntraopMRILib.session.updates import ImageReady, MapReady
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import SessionError

GOOD = Verdict((Reason("error", 0.5, "mm", "below 1 mm", Level.GOOD),))
RAS_FROM_IJK = np.array([[-2.0, 0, 0, 20], [0, 1.6, -1.2, 5], [0, 1.2, 1.6, -9], [0, 0, 0, 1]])


def image(name: str, values: Any = None, **metadata: str) -> Image:
    k, j, i = np.ogrid[:12, :16, :20]
    ball = ((k - 6) ** 2 + (j - 8) ** 2 + (i - 10) ** 2 < 25) * np.float32(100)
    return Image(ball.astype(np.float32) if values is None else values, RAS_FROM_IJK, name, metadata=metadata)


def heat(top: float = 20.0, **more: str) -> MapReady:
    values = np.full((12, 16, 20), np.nan, np.float32)
    values[3:9, 4:12, 5:15] = np.linspace(0, top, 10)
    shown = image("Heat temperature change", values, quantity="temperature change", unit="°C", **more)
    dose = image("Heat dose", np.abs(values), quantity="thermal dose (CEM43)", unit="min")
    return MapReady((shown, dose), image("Heat magnitude", quantity="magnitude"))


@pytest.fixture
def view(headless: HeadlessScene) -> SessionView:
    before = image("before")
    return SessionView(SceneBridge(headless.scene), Plan("P-1", "test", before, before.with_array(before.array > 0)))


def test_it_says_what_it_is_and_lies_where_it_was_seen(view: SessionView) -> None:
    view.apply(heat())
    node: Any = view.bridge.node("map.0")
    assert node.GetName() == "Heat temperature change"
    assert node.GetAttribute("IntraopMRI.Unit") == "°C"
    matrix = slicer.util.vtkMatrixFromArray(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), RAS_FROM_IJK)
    display = node.GetScalarVolumeDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0.0, 20.0)
    assert display.GetColorNode().GetName() == "IntraopMRI rising"
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert legend.GetTitleText() == "temperature\nchange (°C)"
    others: list[Any] = [view.bridge.node(role) for role in ("map.1", "map.picture")]
    assert [other.GetAttribute("IntraopMRI.Unit") for other in others] == ["min", None]
    assert np.isnan(slicer.util.arrayFromVolume(node)[0, 0, 0])
    with pytest.raises(SessionError, match="holds °C, no picture"):
        scanOf(node)


def test_the_next_one_takes_its_place_with_its_own_scale(view: SessionView) -> None:
    view.apply(heat())
    before: Any = view.bridge.node("map.0")
    cold = heat(-12.0, cooled_from_c="-2")
    view.apply(MapReady(cold.maps[:1], None))
    node: Any = view.bridge.node("map.0")
    assert node is before
    assert view.bridge.node("map.1") is None
    assert view.bridge.node("map.picture") is None
    assert node.GetScalarVolumeDisplayNode().GetWindowLevelMin() == -12.0 - 3.0
    colours = {node.GetScene().GetNthNodeByClass(n, "vtkMRMLColorLegendDisplayNode") for n in range(4)} - {None}
    assert len(colours) == 1


def test_it_is_no_scan_and_takes_no_registration_away(view: SessionView) -> None:
    picture = image("T1")
    view.apply(ImageReady(picture, "native", None, 0.0))
    view.bridge.setRegistration(np.eye(4), GOOD, picture.uid, "identity")
    view.apply(heat())
    assert view.bridge.registration is not None
    assert view.volume() is view.bridge.node("intraop.native")
    view.bridge.withdraw("a new scan")
    node: Any = view.bridge.node("map.0")
    assert node.GetDisplayVisibility()


@pytest.mark.parametrize("values", [np.nan, 0.0, -3.0])
def test_what_others_send_is_shown_with_what_is_known(view: SessionView, values: float) -> None:
    """Only a unit, no name; a threshold that is no number; nothing that is known at all."""
    sent = image("From elsewhere", np.full((12, 16, 20), values, np.float32), unit="K", cooled_from_c="much")
    found = map_of(sent, None)
    assert found is not None
    view.apply(found)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(view.bridge.node("map.0"))
    assert legend.GetTitleText() == "From elsewhere\n(K)"


def test_what_has_no_unit_is_no_map() -> None:
    assert map_of(image("T1", quantity="magnitude"), None) is None
    found = map_of(image("T", unit="°C", quantity="temperature change"), None)
    assert found is not None
    assert found.picture is None
