"""On a screen of many pixels lines and names are as large as on one of few, and so is what a person has chosen."""

from __future__ import annotations

from typing import Any

import pytest
import slicer
from host.fixtures import app, wait_until
from panels.operation import Operation, product

__all__ = ["app"]

SMALL, LARGE = (1280, 800), (2560, 1600)


def measures(operation: Operation) -> dict[str, tuple[int, float]]:
    """Thickness of the lines and height of the names by role."""
    bridge, found = operation.running.view.bridge, {}
    for role in bridge.roles():
        display = bridge.node(role).GetDisplayNode() if hasattr(bridge.node(role), "GetDisplayNode") else None
        if display is not None:
            names = display.GetTextScale() if hasattr(display, "GetTextScale") else 0.0
            found[role] = display.GetSliceIntersectionThickness(), names
    return found


def sized(operation: Operation, app: Any, size: tuple[int, int]) -> float:
    slicer.util.mainWindow().resize(*size)
    wait_until(lambda: slicer.util.mainWindow().size.width() == size[0], 5, "the window")
    for _ in range(10):
        app.processEvents()
    operation.panel.annotate()
    return float(operation.panel.overlay.scale())


def test_lines_and_names_keep_their_part_of_the_view(app: Any) -> None:
    operation = Operation()
    operation.register()
    try:
        assert sized(operation, app, SMALL) == 1.0
        made = measures(operation)
        assert made["preop.tumour"][0] == 2
        assert made["preop.target.Biopsy"][1] == pytest.approx(3.6)
        scale = sized(operation, app, LARGE)
        assert scale > 1.8
        for role, (thick, names) in measures(operation).items():
            assert thick == round(made[role][0] * scale), role
            assert names == pytest.approx(made[role][1] * scale, abs=0.06), role
        # A person's own choice is kept, in its measure; so is the look of what comes only now.
        display = operation.running.view.bridge.node("preop.tumour").GetDisplayNode()
        display.SetSliceIntersectionThickness(1)
        operation.panel.annotate()
        assert display.GetSliceIntersectionThickness() == round(scale)
        operation.panel.annotate()
        assert display.GetSliceIntersectionThickness() == round(scale)
        assert sized(operation, app, SMALL) == 1.0
        assert measures(operation) == {**made, "preop.tumour": (1, made["preop.tumour"][1])}
    finally:
        slicer.util.mainWindow().resize(*SMALL)


def test_what_slicer_draws_without_lines_is_left_alone(app: Any) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    product("scene.looks").measure(node, 2.0)
