"""Page 4 with a map of temperature: shown over its own picture when it comes, and gone from the views with a scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Image
from panels.operation import Operation, grid, product

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


def shown() -> tuple[Any, Any]:
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    ids = composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()
    below, above = (slicer.mrmlScene.GetNodeByID(one) if one else None for one in ids)
    return below, above


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
    assert shown() == (bridge.node("map.picture"), bridge.node("map.0"))
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
    assert shown() == (bridge.node("map.picture"), bridge.node("map.0"))
    p.shiftMap = ShiftMap.NONE
    operation.panel.refresh()
    assert shown()[1] is bridge.node("intraop.contrast")
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
    assert shown() == (bridge.node("map.picture"), bridge.node("map.0"))
