"""A headless scene for each test, and VTK's complaints as failures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import vtk
from IntraopMRILib.scene.headless import HeadlessScene


@pytest.fixture(autouse=True)
def complaints() -> Iterator[list[str]]:
    """What VTK and MRML complain of during the test; anything left in the list fails it."""
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToNever()
    heard: list[str] = []

    def hear(_window: Any, event: str, text: str) -> None:
        heard.append(f"{event}: {text}")

    hear.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]
    window.AddObserver("ErrorEvent", hear)
    window.AddObserver("WarningEvent", hear)
    before = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(window)
    yield heard
    vtk.vtkOutputWindow.SetInstance(before)
    assert not heard


@pytest.fixture
def headless() -> HeadlessScene:
    return HeadlessScene()
