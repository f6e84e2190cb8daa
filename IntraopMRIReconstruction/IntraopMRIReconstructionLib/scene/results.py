"""Reconstructions as volume nodes: the image, quantities in colour with a legend, and a preview that goes again.

Every node carries how it came about as attributes ``IntraopMRI.Reconstruction.*``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from ..data import Image, assumed_geometry
from ..reconstruct.quantity_image import QUANTITY, UNIT
from ..reconstruct.result import Reconstruction
from .attributes import (
    ACQUIRED_ATTRIBUTE,
    PATIENT_ATTRIBUTE,
    PREVIEW_ATTRIBUTE,
    PROVENANCE_ATTRIBUTE,
    SAID_ATTRIBUTES,
    UNIT_ATTRIBUTE,
)
from .quantity_colors import inColour, legend

#: How much of the anatomy a quantity lets through.
QUANTITY_OPACITY = 0.75
#: Grey levels end at this percentile of the brightness, of so many voxels; bright fat and flow may saturate.
WHITE_PERCENTILE, LOOKED_AT = 99.7, 100_000
#: Grey levels are set anew when the brightness of an image differs from that of the last by more than this factor.
BRIGHTNESS_CHANGE = 3.0


class ResultNodes:
    """The nodes of one panel. Main thread only."""

    def __init__(self) -> None:
        self._previewId = ""
        self._quantityIds: dict[str, str] = {}
        self._white: dict[str, float] = {}

    def showImage(self, image: Image, node: Any) -> Any:
        """Fill ``node``, a new one when None; returns it."""
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", image.name or _("Reconstruction"))
            node.CreateDefaultDisplayNodes()
        first = node.GetImageData() is None or self.removePreview(None)
        self._inGrey(node, image)
        _fill(node, image)
        if first:
            slicer.util.setSliceViewerLayers(background=node, fit=True)
        return node

    def showQuantity(self, result: Reconstruction) -> Any:
        """A quantity in colour over its own magnitude, each in a node of its own; returns the quantity's node."""
        self.removePreview(None)
        node, first = self._quantityNode(result.image)
        _fill(node, result.image)
        inColour(node, result.image)
        background = None
        for image in result.maps.values():
            other, _first = self._quantityNode(image)
            if image.metadata.get(UNIT):
                _fill(other, image)
                inColour(other, image)
            else:
                self._inGrey(other, image)
                _fill(other, image)
                background = other
        if first:
            slicer.util.setSliceViewerLayers(background=background, fit=True)
            slicer.util.setSliceViewerLayers(background=background, foreground=node, foregroundOpacity=QUANTITY_OPACITY)
        # After the layers: a legend is only drawn where its volume is seen.
        legend(node, result.image)
        return node

    def keepMaps(self, result: Reconstruction) -> None:
        """The maps of an image that carry a unit, each in a node of its own; no view shows them yet."""
        for image in result.maps.values():
            if image.metadata.get(UNIT):
                node, _first = self._quantityNode(image)
                _fill(node, image)
                inColour(node, image)

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
        self._inGrey(node, image)
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

    def _inGrey(self, node: Any, image: Image) -> None:
        """Grey levels for the brightness of an image; they stay while it stays, whatever a person has chosen."""
        values = image.array.reshape(-1)
        looked = values[:: max(1, values.size // LOOKED_AT)]
        white = max(float(np.percentile(looked, WHITE_PERCENTILE)), float(np.finfo(np.float32).tiny))
        before = self._white.get(node.GetID())
        if before is not None and 1 / BRIGHTNESS_CHANGE < white / before < BRIGHTNESS_CHANGE:
            return
        self._white[node.GetID()] = white
        display = node.GetScalarVolumeDisplayNode()
        if display is None:
            node.CreateDefaultDisplayNodes()
            display = node.GetScalarVolumeDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, white)

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
    """The image, its place and where it comes from; who observes the node hears of it once."""
    before = node.StartModify()
    try:
        # In its name, so that every view and every list of volumes shows it.
        mark = " " + _("(orientation assumed)")
        node.SetName(node.GetName().removesuffix(mark) + (mark if assumed_geometry(image.metadata) else ""))
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.ras_from_ijk))
        slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image.array))
        ofThisImage = (PROVENANCE_ATTRIBUTE, *SAID_ATTRIBUTES)
        for key in [key for key in node.GetAttributeNames() if key.startswith(ofThisImage)]:
            node.SetAttribute(key, None)  # of the image that was in this node before
        for key, value in image.metadata.items():
            node.SetAttribute(PROVENANCE_ATTRIBUTE + key, value)
        taken = image.acquired_utc_s
        node.SetAttribute(ACQUIRED_ATTRIBUTE, None if taken is None else datetime.fromtimestamp(taken, UTC).isoformat())
        node.SetAttribute(PATIENT_ATTRIBUTE, image.patient_id or None)
        node.SetAttribute(UNIT_ATTRIBUTE, image.metadata.get(UNIT) or None)
    finally:
        node.EndModify(before)
