"""Page 4 with a map of temperature: shown over its own picture when it comes, and gone from the views with a scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Image
from panels.operation import Operation, grid, product, texts

__all__ = ["app"]


@pytest.fixture
def operation(app: Any) -> Operation:
    return Operation()


def heat(operation: Operation, picture: Image, scan: str = "first") -> Any:
    values = np.full(picture.array.shape, np.nan, np.float32)
    values[20:30, 20:30, 20:30] = 18.0
    metadata = {"quantity": "temperature change", "unit": "°C", "scan": scan}
    shown = Image(values, grid(), "Heat temperature change", metadata=metadata)
    found = product("session.updates").MapReady((shown,), picture)
    operation.session._tell(found)
    operation.until(lambda: operation.running.maps is found, "the map")
    return found


def shown() -> tuple[Any, ...]:
    """Layers of the first slice, the lowest first."""
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    ids = (composite.GetNthLayerVolumeID(layer) for layer in range(3))
    return tuple(slicer.mrmlScene.GetNodeByID(one) if one else None for one in ids)


def test_a_map_is_shown_over_its_own_picture_and_a_scan_takes_its_place(operation: Operation) -> None:
    operation.open("SCAN")
    p, ShiftMap = operation.panel.parameters, product("scene.parameters").ShiftMap
    ui = operation.page("SCAN").ui
    assert not ui.shiftMapBox.enabled
    heat(operation, replace(operation.scan(), name="Heat"))
    bridge = operation.running.view.bridge
    # Before any other scan: it is all there is to see.
    assert p.shiftMap is ShiftMap.QUANTITY
    assert ui.shiftMapBox.enabled
    assert shown() == (bridge.node("map.picture"), bridge.node("map.picture"), bridge.node("map.0"))
    operation.register()
    assert p.shiftMap is ShiftMap.NONE
    assert shown()[1] is bridge.node("intraop.contrast")
    assert operation.running.registered is not None
    # While the comparison waits for a person nothing comes over it.
    heat(operation, replace(operation.scan(), name="Heat"), "while comparing")
    assert p.shiftMap is ShiftMap.NONE
    operation.running.confirm()
    heat(operation, replace(operation.scan(), name="Heat"))
    assert operation.running.registered is not None
    assert bridge.registration is not None
    assert p.shiftMap is ShiftMap.QUANTITY
    assert shown() == (bridge.node("around"), bridge.node("map.picture"), bridge.node("map.0"))
    p.shiftMap = ShiftMap.NONE
    operation.panel.refresh()
    assert shown()[1:] == (bridge.node("intraop.contrast"), None)
    # The next frame of the same scan does not come in between.
    heat(operation, replace(operation.scan(), name="Heat"))
    assert p.shiftMap is ShiftMap.NONE
    assert shown()[1] is bridge.node("intraop.contrast")
    heat(operation, replace(operation.scan(), name="Heat"), "another")
    assert p.shiftMap is ShiftMap.QUANTITY


def test_the_field_beside_metal_waits_until_it_is_asked_for(operation: Operation) -> None:
    """It comes with a picture that has to be registered and looked at first."""
    operation.register()
    p, ShiftMap = operation.panel.parameters, product("scene.parameters").ShiftMap
    heat(operation, operation.running.image.image)
    assert p.shiftMap is ShiftMap.NONE
    p.shiftMap = ShiftMap.QUANTITY
    operation.panel.refresh()
    bridge = operation.running.view.bridge
    assert shown() == (bridge.node("map.picture"), bridge.node("map.picture"), bridge.node("map.0"))
    assert not bridge.node("map.frame").GetDisplayVisibility(), "the scan shows as much as the map"


@pytest.mark.parametrize("taken_s", [1_700_000_000.0, None])
def test_the_scan_stands_around_a_map_dimmed_and_says_when_it_was_taken(
    operation: Operation, taken_s: float | None
) -> None:
    operation.image = replace(operation.image, acquired_utc_s=taken_s)
    operation.register()
    operation.running.confirm()
    slab = Image(np.ones((3, 20, 20), np.float32), np.diag([2.0, 2.0, 4.0, 1.0]), "Heat")
    values = replace(
        slab, array=18.0 * slab.array, name="temperature",
        metadata={"quantity": "temperature change", "unit": "°C", "baseline": "37 °C", "scan": "first"},
    )  # fmt: skip
    operation.session._tell(product("session.updates").MapReady((values,), slab))
    operation.until(lambda: operation.running.maps is not None, "the map")
    bridge, scan = operation.running.view.bridge, operation.running.view.volume()
    around, frame = bridge.node("around"), bridge.node("map.frame")
    assert shown() == (around, bridge.node("map.picture"), bridge.node("map.0"))
    assert around.GetImageData() is scan.GetImageData(), "no voxel is copied"
    assert around.GetDisplayNode().GetWindow() > 2 * scan.GetDisplayNode().GetWindow()
    assert not around.GetSaveWithScene()
    assert frame.GetDisplayVisibility()
    bounds = [0.0] * 6
    frame.GetRASBounds(bounds)
    np.testing.assert_allclose(bounds, [-1.0, 39.0, -1.0, 39.0, -2.0, 10.0], atol=1e-6)
    for view in ("Red", "Green", "Yellow"):
        slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode().JumpSliceByCentering(10.0, 10.0, 4.0)
    operation.panel.annotate()
    for view in ("Red", "Green", "Yellow"):
        said = texts(operation, view)
        assert "OUTSIDE THE FRAME" in said
        assert "not measured there" in said
        when = "T1 contrast, time unknown" if taken_s is None else "T1 contrast, as it lay"
        assert any(text.startswith(when) for text in said), said
        # The scale is the temperature itself, from that before heating.
        assert {"37", "47", "57", "°C"} <= set(said)
        assert "IN THIS SLICE" not in said
    assert "Measured inside" in texts(operation, "Red")
    # A slice beside the slab has none of its colours, and must not look cold for that.
    axial = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    for away_mm, outside in ((9.9, False), (10.1, True), (-1.9, False), (-2.1, True), (4.0, False)):
        axial.JumpSliceByCentering(10.0, 10.0, away_mm)
        operation.panel.annotate()
        assert ("IN THIS SLICE" in texts(operation, "Red")) is outside, away_mm
        assert "IN THIS SLICE" not in texts(operation, "Green")
    assert not slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(bridge.node("map.0")).GetVisibility(), "one scale"
    operation.panel.parameters.shiftMap = product("scene.parameters").ShiftMap.NONE
    operation.panel.refresh()
    operation.panel.annotate()
    assert bridge.node("around") is None
    assert not frame.GetDisplayVisibility()
    assert not {"OUTSIDE THE FRAME", "Measured inside", "57"} & set(texts(operation, "Red"))
    with operation.page("SCAN").compare.opaque(None):
        assert shown() == (scan, None, None)
