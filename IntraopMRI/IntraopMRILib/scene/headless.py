"""A MRML scene with Slicer's application logic but without its application: for the demo, the tests and the report.

Inside Slicer none of this is needed: there the application owns the scene and the logics.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import slicer
import vtk

#: Logics whose constructors or scene hooks register nodes, storage, terminologies and representations.
_MODULE_LOGICS = (
    "vtkSlicerVolumesLogic",
    "vtkSlicerSegmentationsModuleLogic",
    "vtkSlicerMarkupsLogic",
    "vtkSlicerModelsLogic",
    "vtkSlicerTransformLogic",
    "vtkSlicerSubjectHierarchyModuleLogic",
)


class HeadlessScene:
    """Owns a scene, its application logic and the module logics that the nodes of a session need."""

    def __init__(self, scene: Any | None = None) -> None:
        useOffscreenOpenGL()
        self.scene = slicer.vtkMRMLScene() if scene is None else scene
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.applicationLogic.SetMRMLScene(self.scene)
        self.applicationLogic.GetColorLogic().SetMRMLScene(self.scene)
        self.applicationLogic.GetColorLogic().AddDefaultColorNodes()
        # The application's own colour logic registers it; that logic asks for the files of an installed Slicer.
        self.scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
        self.applicationLogic.SetSliceLogics(vtk.vtkCollection())
        self.applicationLogic.SetViewLogics(vtk.vtkCollection())
        self._logics = [self._registered(getattr(slicer, name)()) for name in _MODULE_LOGICS]
        if self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode") is None:
            crosshair = slicer.vtkMRMLCrosshairNode()
            crosshair.SetCrosshairName("default")
            self.scene.AddNode(crosshair)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def _registered(self, logic: Any) -> Any:
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        name = logic.GetClassName().removeprefix("vtkSlicer").removesuffix("Logic").removesuffix("Module")
        self.applicationLogic.SetModuleLogic(name, logic)
        return logic


def useOffscreenOpenGL() -> None:
    """Let VTK open EGL windows at once where there is no display, instead of trying an X server and warning."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
