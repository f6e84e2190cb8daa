"""Reconstructions as volume nodes: the image, quantities in colour with a legend, and a preview that goes again.

Every node carries how it came about as attributes ``IntraopMRI.Reconstruction.*``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from ..data import Image
from ..reconstruct.quantities import QUANTITY, UNIT
from ..reconstruct.result import Reconstruction

#: Node attribute of a preview: percent of the scan that it was made of.
PREVIEW_ATTRIBUTE = "IntraopMRI.PreviewPercent"
#: Prefix of the attributes that tell how a volume came about.
PROVENANCE_ATTRIBUTE = "IntraopMRI.Reconstruction."
#: Attribute of a volume whose voxels are a quantity: its unit.
UNIT_ATTRIBUTE = "IntraopMRI.Unit"
#: How much of the anatomy a quantity lets through.
QUANTITY_OPACITY = 0.65
#: Colours of quantities with a sign (cold, none, hot) and of those without, dark to light, RGB.
SIGNED = ((0.02, 0.19, 0.58), (0.45, 0.68, 0.95), (0.95, 0.95, 0.95), (0.98, 0.55, 0.38), (0.65, 0.0, 0.05))
RISING = ((0.05, 0.03, 0.25), (0.45, 0.05, 0.45), (0.8, 0.22, 0.3), (0.98, 0.6, 0.1), (1.0, 1.0, 0.6))
COLORS = 256
#: A dose scale ends where tissue dies for certain (Sapareto and Dewey), equivalent minutes at 43 C.
DOSE_MAX_MIN = 240.0


class ResultNodes:
    """The nodes of one panel. Main thread only."""

    def __init__(self) -> None:
        self._previewId = ""
        self._quantityIds: dict[str, str] = {}

    def showImage(self, image: Image, node: Any) -> Any:
        """Fill ``node``, a new one when None; returns it."""
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", image.name or _("Reconstruction"))
            node.CreateDefaultDisplayNodes()
        first = node.GetImageData() is None or self.removePreview(None)
        _fill(node, image)
        if first:
            slicer.util.setSliceViewerLayers(background=node, fit=True)
        return node

    def showQuantity(self, result: Reconstruction) -> Any:
        """A quantity in colour over its own magnitude, each in a node of its own; returns the quantity's node."""
        self.removePreview(None)
        node, first = self._quantityNode(result.image)
        _fill(node, result.image)
        _inColour(node, result.image)
        background = None
        for image in result.maps.values():
            other, _first = self._quantityNode(image)
            _fill(other, image)
            if image.metadata.get(UNIT):
                _inColour(other, image)
                _legend(other, image, False)
            else:
                background = other
        _legend(node, result.image, True)
        if first:
            slicer.util.setSliceViewerLayers(background=background, fit=True)
            slicer.util.setSliceViewerLayers(background=background, foreground=node, foregroundOpacity=QUANTITY_OPACITY)
        return node

    def showPreview(self, image: Image, fraction: float) -> None:
        """Into a node of its own that says what it is, is not saved, and goes when the scan is complete or dropped."""
        node = self._node(self._previewId)
        first = node is None
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "")
            node.CreateDefaultDisplayNodes()
            node.SetSaveWithScene(False)
            self._previewId = node.GetID()
        percent = f"{100 * fraction:.0f}"
        node.SetName(_("PREVIEW {percent} % of {name}").format(percent=percent, name=image.name))
        node.SetAttribute(PREVIEW_ATTRIBUTE, percent)
        _fill(node, image)
        if first:
            slicer.util.setSliceViewerLayers(background=node, fit=True)

    def removePreview(self, shownInstead: Any) -> bool:
        """Take the preview off the screen; whether there was one."""
        node, self._previewId = self._node(self._previewId), ""
        if node is None:
            return False
        slicer.mrmlScene.RemoveNode(node)
        if shownInstead is not None:
            slicer.util.setSliceViewerLayers(background=shownInstead)
        return True

    def _quantityNode(self, image: Image) -> tuple[Any, bool]:
        """(node of a quantity, whether it is new)."""
        what = image.metadata[QUANTITY]
        node = self._node(self._quantityIds.get(what, ""))
        if node is not None:
            return node, False
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", image.name)
        node.CreateDefaultDisplayNodes()
        self._quantityIds[what] = node.GetID()
        return node, True

    @staticmethod
    def _node(identifier: str) -> Any:
        return slicer.mrmlScene.GetNodeByID(identifier) if identifier else None


def _fill(node: Any, image: Image) -> None:
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.ras_from_ijk))
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image.array))
    for key, value in image.metadata.items():
        node.SetAttribute(PROVENANCE_ATTRIBUTE + key, value)
    node.SetAttribute(UNIT_ATTRIBUTE, image.metadata.get(UNIT) or None)


def _inColour(node: Any, image: Image) -> None:
    """Colours between bounds that the data need; what is not known (NaN) is clear."""
    known = image.array[np.isfinite(image.array)]
    low, high = (float(value) for value in np.percentile(known, (0.5, 99.8))) if known.size else (0.0, 1.0)
    signed = low < 0 and image.metadata[UNIT] != "min"
    high = max(high, -low if signed else 0.0, 1e-3)
    if image.metadata[UNIT] == "min":
        high = min(high, DOSE_MAX_MIN)
    low = -high if signed else 0.0
    display = node.GetScalarVolumeDisplayNode()
    display.SetAndObserveColorNodeID(_table("IntraopMRI signed" if signed else "IntraopMRI rising", signed).GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(low, high)
    limit = float(np.abs(known).max()) + 1 if known.size else 1.0
    display.SetThreshold(-limit, limit)
    display.ApplyThresholdOn()
    display.SetInterpolate(False)


def _table(name: str, signed: bool) -> Any:
    found = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if found is not None:
        return found
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
    node.SetTypeToUser()
    node.SetNumberOfColors(COLORS)
    anchors = np.array(SIGNED if signed else RISING)
    at = np.linspace(0, 1, len(anchors))
    for index, share in enumerate(np.linspace(0, 1, COLORS)):
        red, green, blue = (float(np.interp(share, at, anchors[:, channel])) for channel in range(3))
        node.SetColor(index, f"{share:.2f}", red, green, blue, 1.0)
    node.SetSaveWithScene(True)
    return node


def _legend(node: Any, image: Image, visible: bool) -> None:
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(f"{image.metadata[QUANTITY]} ({image.metadata[UNIT]})")
    legend.SetLabelFormat("%.0f")
    legend.SetNumberOfLabels(5)
    legend.SetSize(0.14, 0.5)
    legend.SetPosition(0.98, 0.5)
    legend.SetVisibility(visible)
