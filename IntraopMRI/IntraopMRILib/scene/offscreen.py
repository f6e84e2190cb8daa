"""Slice and 3D views of a MRML scene rendered to pictures without Qt and without a screen.

Each view is a VTK render window with a group of Slicer's own displayable managers, as qMRMLSliceView and
qMRMLThreeDView assemble them; nothing here draws what a displayable manager draws.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from IntraopMRIReconstructionLib.errors import DataError
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from . import colors
from .corner_text import ViewTexts, orientationLetters
from .display import READ, Banner, ColorBar, Corners, Line, Readout, banners, corners
from .headless import useOffscreenOpenGL

Picture = npt.NDArray[np.uint8]

#: Layout name and orientation of the three slice views, as in Slicer's four-up layout.
SLICE_VIEWS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
#: Each draws over those before it: instruments over the tissue that they are in.
_SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
_THREED_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager3D",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


class View:
    """A render window with displayable managers. Close it before the scene goes."""

    def __init__(self, factory: Any, managers: tuple[str, ...], applicationLogic: Any, size: tuple[int, int]) -> None:
        useOffscreenOpenGL()
        self.renderer = vtk.vtkRenderer()
        self.renderer.SetBackground(*colors.BACKGROUND)
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.ShowWindowOff()
        self.window.SetAlphaBitPlanes(1)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory.SetMRMLApplicationLogic(applicationLogic)
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.SetRenderer(self.renderer)
        self.managers.Initialize(factory, self.renderer)
        self.texts = ViewTexts(self.renderer)

    def picture(self) -> Picture:
        """Render and return (height, width, 3) uint8, first row on top."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.SetInputBufferTypeToRGB()
        grab.ReadFrontBufferOff()
        grab.ShouldRerenderOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)
        return np.ascontiguousarray(pixels[::-1])

    def close(self) -> None:
        """Let go of the scene first, then of the window."""
        self.texts.close()
        self.managers.SetMRMLDisplayableNode(None)
        self.interactor.SetRenderWindow(None)
        self.window.Finalize()


class SliceView(View):
    """One slice view: background and foreground volume, segmentations, models and markups cut by its plane."""

    def __init__(self, scene: Any, applicationLogic: Any, layoutName: str, orientation: str, size: tuple[int, int]):
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        super().__init__(factory, _SLICE_MANAGERS, applicationLogic, size)
        self.window.SetMultiSamples(8)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        # The image comes first: overlays that were added before it would hide it instead of blending with it.
        mapper = vtk.vtkImageMapper()
        # The slice logic delivers finished 8-bit colours; the mapper must not stretch them again.
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._slice = vtk.vtkActor2D()
        self._slice.SetMapper(mapper)
        self._slice.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._slice)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(applicationLogic)
        self.logic.SetMRMLScene(scene)
        self.node = scene.GetSingletonNode(layoutName, "vtkMRMLSliceNode")
        if self.node is None:
            self.node = self.logic.AddSliceNode(layoutName)
        else:
            self.logic.SetSliceNode(self.node)
        self.node.SetOrientation(orientation)
        # Before the managers see the node: they ask the application for its logic, to know which volumes it shows.
        self._logics = applicationLogic.GetSliceLogics()
        self._logics.AddItem(self.logic)
        self.managers.SetMRMLDisplayableNode(self.node)

    def show(
        self,
        background: Any,
        foreground: Any,
        opacity: float,
        centre: npt.ArrayLike,
        heightMm: float,
        around: Any | None = None,
    ) -> None:
        """Choose the volumes (nodes or None), the point (RAS mm) in the middle, and the height of the view in mm.

        ``around``: what is seen where neither of the two reaches.
        """
        layers = [volume for volume in map(_shown, (around, background, foreground)) if volume is not None]
        ids = [volume.GetID() for volume in layers] + [None] * 3
        composite = self.logic.GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(ids[0])
        composite.SetForegroundVolumeID(ids[1])
        composite.SetForegroundOpacity(opacity if len(layers) < 3 else 1.0)
        # The third layer is made for labels, but takes any volume with the colours of its own display.
        composite.SetLabelVolumeID(ids[2])
        composite.SetLabelOpacity(opacity)
        width, height = self.window.GetSize()
        self.logic.ResizeSliceNode(width, height)
        self.node.SetFieldOfView(heightMm * width / height, heightMm, 1.0)
        self.node.SetXYZOrigin(0.0, 0.0, 0.0)
        toRas = self.node.GetSliceToRAS()
        for axis, value in enumerate(np.asarray(centre, dtype=np.float64)):
            toRas.SetElement(axis, 3, float(value))
        self.node.UpdateMatrices()
        connection = self.logic.GetImageDataConnection()
        self._slice.GetMapper().SetInputConnection(connection)
        self._slice.SetVisibility(connection is not None)

    def annotate(self, readout: Readout, legend: tuple[Line, ...] = (), colorBar: ColorBar | None = None) -> None:
        """Name and place of the plane, legend, orientation letters, scale bar, scale of a map, alarms."""
        toRas = slicer.util.arrayFromVTKMatrix(self.node.GetSliceToRAS())
        offset = self.logic.GetSliceOffset()
        letter = orientationLetters(np.sign(offset or 1.0) * toRas[:3, 2])
        name = Line(f"{self.node.GetOrientation().upper()}  {letter} {abs(offset):.0f} mm", READ, colors.TEXT_QUIET)
        millimetres = self.node.GetFieldOfView()[1] / self.window.GetSize()[1]
        alarms = tuple(Banner(banner.title, tone=banner.tone) for banner in banners(readout))
        texts = Corners(topLeft=legend, bottomLeft=(name,), banners=alarms, colorBar=colorBar)
        self.texts.update(texts, toRas, millimetres)

    def close(self) -> None:
        """Release the plane and the volumes."""
        self._slice.GetMapper().SetInputConnection(None)
        super().close()
        self._logics.RemoveItem(self.logic)
        # The logic made these for showing the slice in 3D; it does not take them away itself.
        self.logic.DeleteSliceModel()
        self.logic.SetMRMLScene(None)


class ThreeDView(View):
    """One 3D view."""

    def __init__(self, scene: Any, applicationLogic: Any, layoutName: str, size: tuple[int, int]) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(factory, _THREED_MANAGERS, applicationLogic, size)
        # Depth peeling, which sorts translucent surfaces, works without multisampling only.
        self.window.SetMultiSamples(0)
        self.renderer.SetUseFXAA(True)
        self.renderer.SetUseDepthPeeling(True)
        self.renderer.SetMaximumNumberOfPeels(8)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(applicationLogic)
        self.logic.SetMRMLScene(scene)
        self.node = scene.GetSingletonNode(layoutName, "vtkMRMLViewNode") or self.logic.AddViewNode(layoutName)
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self.node.SetBackgroundColor(*colors.BACKGROUND)
        self.node.SetBackgroundColor2(*colors.BACKGROUND)
        self.managers.SetMRMLDisplayableNode(self.node)

    def look(self, centre: npt.ArrayLike, direction: npt.ArrayLike, heightMm: float) -> None:
        """Look at ``centre`` (RAS mm) from ``direction`` (towards the eye), ``heightMm`` high; superior is up."""
        camera = self.renderer.GetActiveCamera()
        focus, towards = np.asarray(centre, dtype=np.float64), np.asarray(direction, dtype=np.float64)
        distance = heightMm / 2.0 / np.tan(np.deg2rad(camera.GetViewAngle() / 2.0))
        camera.SetFocalPoint(*focus)
        camera.SetPosition(*(focus + towards / np.linalg.norm(towards) * distance))
        camera.SetViewUp(0.0, 0.0, 1.0)
        self.renderer.ResetCameraClippingRange()

    def close(self) -> None:
        """Release the scene."""
        super().close()
        self.logic.SetMRMLScene(None)


class OffscreenViews:
    """Axial, 3D, coronal and sagittal view in one picture. A context manager; create and close as often as needed."""

    def __init__(self, scene: Any, applicationLogic: Any, size: tuple[int, int] = (1920, 1200)) -> None:
        if min(size) < 200:
            raise DataError(f"a four-up picture must be at least 200 pixels wide and high, got {size}")
        self.size = size
        self._scene = scene
        quarter = (size[0] // 2 - 1, size[1] // 2 - 1)
        self.slices = {
            orientation: SliceView(scene, applicationLogic, name, orientation, quarter)
            for name, orientation in SLICE_VIEWS.items()
        }
        self.threeD = ThreeDView(scene, applicationLogic, "1", quarter)

    def __enter__(self) -> OffscreenViews:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(
        self,
        background: Any | None,
        foreground: Any | None = None,
        opacity: float = 0.6,
        centre: npt.ArrayLike = (0.0, 0.0, 0.0),
        heightMm: float = 150.0,
        crosshair: bool = False,
        direction: npt.ArrayLike | None = None,
        around: Any | None = None,
    ) -> None:
        """Choose volumes (nodes), foreground opacity, the RAS point in the middle and the height of the slices in mm.

        Hidden volumes (a preoperative one without a registration) are left out. ``crosshair`` marks the middle.
        ``direction``: from where the 3D view looks; by default from the side on which the point lies. ``around``: a
        volume to be seen in the slices where neither of the two reaches.
        """
        middle = np.asarray(centre, dtype=np.float64)
        for view in self.slices.values():
            view.show(background, foreground, opacity, middle, heightMm, around)
        legend = None if foreground is None else slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(foreground)
        if legend is not None:
            # It looks at the layers only when a person changes them.
            legend.Modified()
        cross = self._scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if cross is not None:
            cross.SetCrosshairRAS(*middle)
            cross.SetCrosshairThickness(cross.Medium)
            cross.SetCrosshairMode(cross.ShowSmallBasic if crosshair else cross.NoCrosshair)
        bounds = np.array([[-1.0, 1.0]] * 3) * heightMm / 2.0
        volume = _shown(foreground) or _shown(background)
        if volume is not None:
            flat = [0.0] * 6
            volume.GetRASBounds(flat)
            bounds = np.reshape(flat, (3, 2))
        body = bounds.mean(axis=1)
        side = 1.0 if middle[0] >= body[0] else -1.0
        towards = (side, 0.35, 0.7) if direction is None else direction
        self.threeD.look((middle + body) / 2.0, towards, float(np.ptp(bounds, axis=1).max()))

    def annotate(self, readout: Readout, legend: tuple[Line, ...] = (), colorBar: ColorBar | None = None) -> None:
        """Write numbers into the 3D view, names and scales into the slices, alarms into all.

        ``colorBar``: what the colours of a map mean, see :class:`.map_scale.MapScale`.
        """
        for orientation, view in self.slices.items():
            view.annotate(readout, legend if orientation == "Axial" else (), colorBar)
        self.threeD.texts.update(corners(readout))

    def fourUp(self) -> Picture:
        """(height, width, 3) uint8: axial, 3D / coronal, sagittal, with a thin divider."""
        quarters = [
            view.picture()
            for view in (self.slices["Axial"], self.threeD, self.slices["Coronal"], self.slices["Sagittal"])
        ]
        height, width = quarters[0].shape[:2]
        divider = tuple(round(255 * value) for value in colors.DIVIDER)
        result: Picture = np.full((2 * height + 2, 2 * width + 2, 3), divider, dtype=np.uint8)
        for index, quarter in enumerate(quarters):
            top, left = (index // 2) * (height + 2), (index % 2) * (width + 2)
            result[top : top + height, left : left + width] = quarter
        return result

    def close(self) -> None:
        """Release windows and observers; the scene stays."""
        for view in (*self.slices.values(), self.threeD):
            view.close()


def _shown(volume: Any | None) -> Any | None:
    """The volume, or None when it is hidden: a preoperative volume without a registration lies nowhere."""
    return volume if volume is not None and volume.GetDisplayVisibility() else None


def writePng(picture: Picture, path: str | os.PathLike[str]) -> Path:
    """Write a picture (height, width, 3) as PNG, completely or not at all."""
    target = Path(path)
    height, width = picture.shape[:2]
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(picture[::-1]).reshape(-1, 3), deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetInputData(image)
    writer.WriteToMemoryOn()
    writer.Write()
    temporary = target.with_name(target.name + ".part")
    temporary.write_bytes(vtk_to_numpy(writer.GetResult()).tobytes())
    temporary.replace(target)
    return target
