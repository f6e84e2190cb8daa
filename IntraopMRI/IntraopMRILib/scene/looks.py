"""How each kind of node looks: colours, opacities, which representation in which view. Set when a node is made."""

from __future__ import annotations

from typing import Any

import slicer

from . import colors
from .colors import Color

#: Opacity of the inside of a structure: the image below it can still be read.
FILL = 0.35
#: Width of the outline of what is left: twice that of the tumour before, in a grey print too.
RESIDUAL_LINE = 4
#: Arrows stand this far apart; shorter ones than the second would only be dots. Both mm.
ARROW_SPACING_MM, LEAST_ARROW_MM = 8.0, 1.0
#: Brightness of a scan around a map: dark enough that nobody takes it for a part of that, bright enough for bearings.
DIMMED = 0.45
#: What a display node remembers of its measures: as they were made, and as they are drawn.
MEASURE = "IntraopMRI.Made"
#: Letters of a legend.
LEGEND_POINTS = 16


def volume(node: Any, window: float, level: float) -> None:
    """Grey levels that show the tissue; manual, so that Slicer does not stretch them to noise and metal."""
    display = node.GetScalarVolumeDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(window, level)
    display.SetInterpolate(True)


def outline(node: Any) -> None:
    """Contour only: what lies inside stays visible."""
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName2D("Closed surface")
    display.SetPreferredDisplayRepresentationName3D("Closed surface")
    display.SetVisibility2DFill(False)
    display.SetOpacity2DFill(FILL)
    display.SetVisibility2DOutline(True)
    display.SetOpacity2DOutline(1.0)
    display.SetSliceIntersectionThickness(4)
    display.SetOpacity3D(0.12)


def tumour(node: Any) -> None:
    """A thin line: where it was, beside what is left of it, which is heavy. Without colours that tells them apart."""
    outline(node)
    node.GetDisplayNode().SetSliceIntersectionThickness(RESIDUAL_LINE // 2)


def bone(node: Any) -> None:
    """Thin outline: whether it lies on the edge of the bone is what is judged."""
    outline(node)
    node.GetDisplayNode().SetSliceIntersectionThickness(2)
    node.GetDisplayNode().SetOpacity3D(0.35)


def cutOut(node: Any, lowest: float) -> None:
    """Clear where a volume has its lowest value: nothing of it is there."""
    display = node.GetScalarVolumeDisplayNode()
    # Between the volume and nothing there is no value: interpolated, a dark rim would stand there.
    display.SetInterpolate(False)
    display.SetThreshold(lowest + 0.5, 1e9)
    display.ApplyThresholdOn()


def measure(node: Any, scale: float) -> None:
    """Lines in the slices and names ``scale`` times as thick and high as they were made or a person has chosen them.

    Slicer draws both in pixels, so that they all but vanish on a screen that has many of them.
    """
    display: Any = node.GetDisplayNode() if hasattr(node, "GetDisplayNode") else None
    for what in ("SliceIntersectionThickness", "TextScale"):
        if not hasattr(display, f"Set{what}"):
            continue
        now = getattr(display, f"Get{what}")()
        made, drawn = (type(now)(part) for part in (display.GetAttribute(MEASURE + what) or f"{now} {now}").split())
        if drawn != now:
            made = now
        wanted = type(now)(round(made * scale, 1 if isinstance(now, float) else None))
        if wanted != now:
            display.SetAttribute(MEASURE + what, f"{made} {wanted}")
            getattr(display, f"Set{what}")(wanted)


def fill(node: Any, on: bool) -> None:
    """Inside of what ``residual`` or ``outline`` shows: a wash, or nothing over the image; the outline stays."""
    node.GetDisplayNode().SetVisibility2DFill(on)


def residual(node: Any) -> None:
    """Residual filled with a heavy outline, exact to the voxel; the resected part a calm wash without outline."""
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName2D("Binary labelmap")
    display.SetPreferredDisplayRepresentationName3D("Closed surface")
    display.SetSliceIntersectionThickness(RESIDUAL_LINE)
    display.SetOpacity2DFill(1.0)
    display.SetOpacity2DOutline(1.0)
    display.SetOpacity3D(1.0)
    display.SetSegmentOpacity2DFill("residual", 0.55)
    display.SetSegmentOpacity2DOutline("residual", 1.0)
    display.SetSegmentOpacity3D("residual", 1.0)
    if node.GetSegmentation().GetSegment("resected") is not None:
        display.SetSegmentOpacity2DFill("resected", 0.3)
        display.SetSegmentOpacity2DOutline("resected", 0.0)
        display.SetSegmentVisibility3D("resected", False)


def proposed(node: Any, thickness: int) -> None:
    """Thin outline, exact to the voxel, of what nobody has reviewed: the image inside is what is judged."""
    _exact(node, thickness, 0.25)


def stored(node: Any) -> None:
    """What an earlier session found: a thin outline without colour or fill, that nobody takes for a result of now."""
    display = node.GetDisplayNode() if hasattr(node, "GetDisplayNode") else None
    if display is None:
        return
    if node.IsA("vtkMRMLSegmentationNode"):
        segments = node.GetSegmentation()
        for segmentId in segments.GetSegmentIDs():
            segments.GetSegment(segmentId).SetColor(*colors.STORED)
            display.UnsetSegmentOverrideColor(segmentId)
            display.SetSegmentVisibility(segmentId, segmentId != "resected")
        fill(node, False)
        display.SetVisibility2DOutline(True)
        display.SetOpacity3D(FILL)
    elif node.IsA("vtkMRMLModelNode"):
        display.SetColor(*colors.STORED)
        display.SetOpacity(FILL)


def lethal(node: Any) -> None:
    """Outline of what has reached the lethal dose, exact to its finer grid; the temperature inside stays visible."""
    _exact(node, 4, 0.5)


def _exact(node: Any, thickness: int, opacity: float) -> None:
    """An empty outline that follows the voxels."""
    display = node.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName2D("Binary labelmap")
    display.SetPreferredDisplayRepresentationName3D("Closed surface")
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetOpacity2DOutline(1.0)
    display.SetSliceIntersectionThickness(thickness)
    display.SetOpacity3D(opacity)


def mark(node: Any) -> None:
    """Thin circle in the slices around what a person has marked as heated, or has gone to."""
    _mesh(node, colors.MARK, 0.15, thickness=2)


def frame(node: Any) -> None:
    """Edge of what was measured: a line in the slices, a box of wire in 3D."""
    _mesh(node, colors.FRAME, 1.0, thickness=2)
    display = node.GetDisplayNode()
    display.SetRepresentation(display.WireframeRepresentation)
    display.SetLighting(False)


def dimmed(node: Any, like: Any) -> None:
    """The grey levels of another volume node, as dark as what is only there for bearings."""
    display = like.GetScalarVolumeDisplayNode()
    wide = display.GetWindow() / DIMMED
    volume(node, wide, display.GetLevel() - display.GetWindow() / 2.0 + wide / 2.0)


def cavity(node: Any) -> None:
    """Outline of what is gone, so that its content stays visible."""
    outline(node)
    display = node.GetDisplayNode()
    display.SetSliceIntersectionThickness(2)
    display.SetOpacity3D(0.25)


def colorMap(node: Any, top: float, table: Any) -> None:
    """Colours from 0 to ``top`` and a legend that says so; what is below 0 is not known and stays clear."""
    display = node.GetScalarVolumeDisplayNode()
    display.SetAndObserveColorNodeID(table.GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, top)
    display.SetThreshold(0.0, 1e6)
    display.ApplyThresholdOn()
    # Between known and unknown there is no value: interpolated, a rim of small numbers would stand there.
    display.SetInterpolate(False)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(node.GetName())
    legend.SetLabelFormat("%.1f mm")
    legend.SetNumberOfLabels(5)
    # Above the letter of the patient's side, which must never be covered.
    legend.SetSize(0.14, 0.36)
    legend.SetPosition(0.98, 0.87)
    for style in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
        style.SetFontFamilyToArial()
        style.SetFontSize(LEGEND_POINTS)
    legend.SetSaveWithScene(False)


def arrows(node: Any, region: Any, table: Any) -> None:
    """From where the rigid pose puts tissue to where it is now, true to scale, in the slices and in 3D."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetVisibility(False)
    display.SetVisibility2D(True)
    display.SetVisibility3D(True)
    display.SetEditorVisibility(False)
    display.SetVisualizationMode(display.VIS_MODE_GLYPH)
    display.SetGlyphType(display.GLYPH_TYPE_ARROW)
    display.SetGlyphSpacingMm(ARROW_SPACING_MM)
    display.SetGlyphScalePercent(100.0)
    display.SetGlyphDisplayRangeMinMm(LEAST_ARROW_MM)
    display.SetGlyphDisplayRangeMaxMm(100.0)
    display.SetGlyphDiameterMm(3.0)
    # Without a colour node of our own Slicer makes one, whose long arrows are red.
    display.SetAndObserveColorNodeID(table.GetID())
    display.SetSliceIntersectionThickness(3)
    display.SetAndObserveRegionNode(region)


def hiddenLine(node: Any) -> None:
    """Markups keep the coordinates for measuring and editing; the mesh beside them is what is seen."""
    display = node.GetDisplayNode()
    display.SetVisibility2D(False)
    display.SetVisibility3D(False)
    display.SetPropertiesLabelVisibility(False)


def plannedLine(node: Any) -> None:
    """A person's own line, before a session draws it, in the colour of plans: red is what is left, or danger."""
    display = node.GetDisplayNode()
    display.SetSelectedColor(*colors.PLANNED)
    display.SetColor(*colors.PLANNED)
    display.SetLineColorFadingHueOffset(0.0)  # out of the slice it would go over into red
    # The length of a plan says nothing that is decided here.
    display.SetPropertiesLabelVisibility(False)


def targets(node: Any, below: bool = False) -> None:
    """Small named crosses; the name stands above its point, or ``below`` it."""
    display = node.GetDisplayNode()
    text = display.GetTextProperty()
    if below:
        text.SetVerticalJustificationToTop()
    else:
        text.SetVerticalJustificationToBottom()
    display.SetColor(*colors.TARGET)
    display.SetSelectedColor(*colors.TARGET)
    display.SetGlyphScale(2.0)
    display.SetTextScale(3.6)
    display.SetSliceProjection(False)


def planned(node: Any) -> None:
    """Dashes, projected into the slices so that a path that crosses them obliquely is seen whole."""
    _mesh(node, colors.PLANNED, 1.0, thickness=2)
    node.GetDisplayNode().SetSliceDisplayModeToProjection()


def actual(node: Any) -> None:
    """Solid cylinder, projected into the slices like the plan that it is compared with."""
    _mesh(node, colors.ACTUAL, 1.0, thickness=2)
    # The bone around a screw decides on a breach: let it show through.
    node.GetDisplayNode().SetSliceIntersectionOpacity(0.6)
    node.GetDisplayNode().SetSliceDisplayModeToProjection()


def pointer(node: Any) -> None:
    """White instrument."""
    _mesh(node, colors.POINTER, 1.0, thickness=2)
    node.GetDisplayNode().SetSliceDisplayModeToProjection()


def anatomy(node: Any) -> None:
    """Faint surface, both walls, in 3D only."""
    _mesh(node, colors.ANATOMY, 0.3, thickness=1)
    display = node.GetDisplayNode()
    display.SetVisibility2D(False)
    display.SetBackfaceCulling(False)
    display.SetSpecular(0.2)


def _mesh(node: Any, color: Color, opacity: float, thickness: int) -> None:
    display = node.GetDisplayNode()
    display.SetColor(*color)
    display.SetAmbient(0.25)
    display.SetOpacity(opacity)
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(thickness)
    display.SetSliceIntersectionOpacity(1.0)
