"""Reconstructions as volume nodes: the image, quantities in colour with a legend, and a preview that goes again.

Every node carries how it came about as attributes ``IntraopMRI.Reconstruction.*``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from ..data import Image
from ..reconstruct.quantity_image import COOLED_FROM, QUANTITY, UNIT
from ..reconstruct.result import Reconstruction
from .attributes import (
    ACQUIRED_ATTRIBUTE,
    PATIENT_ATTRIBUTE,
    PREVIEW_ATTRIBUTE,
    PROVENANCE_ATTRIBUTE,
    SAID_ATTRIBUTES,
    UNIT_ATTRIBUTE,
)

#: Attribute of a colour table of a volume's own: the scale that it was made for.
SCALE_ATTRIBUTE = "IntraopMRI.Scale"
#: How much of the anatomy a quantity lets through.
QUANTITY_OPACITY = 0.75
#: Colours of quantities with a sign (cold, none, hot) and of those without, dark to light, RGB.
SIGNED = ((0.02, 0.19, 0.58), (0.45, 0.68, 0.95), (0.95, 0.95, 0.95), (0.98, 0.55, 0.38), (0.65, 0.0, 0.05))
RISING = ((0.35, 0.05, 0.45), (0.65, 0.1, 0.45), (0.9, 0.3, 0.25), (0.98, 0.65, 0.1), (1.0, 1.0, 0.6))
#: Colours of what has cooled, little to much: dark next to the dark end of what has warmed up.
COOLING = ((0.03, 0.12, 0.45), (0.05, 0.35, 0.75), (0.15, 0.6, 0.95), (0.5, 0.85, 1.0), (0.85, 1.0, 1.0))
COLORS = 256
LEGEND_FONT = 14
#: Values below this share of a rising scale let the anatomy through, so that what is not heated is not painted.
CLEAR_SHARE = 0.15
#: A range that goes below 0 by less than this share of its top is noise about 0, not a sign.
SIGN_SHARE = 0.2
#: Grey levels end at this percentile of the brightness, of so many voxels; bright fat and flow may saturate.
WHITE_PERCENTILE, LOOKED_AT = 99.7, 100_000
#: Grey levels are set anew when the brightness of an image differs from that of the last by more than this factor.
BRIGHTNESS_CHANGE = 3.0
#: A dose scale ends where tissue dies for certain (Sapareto and Dewey), equivalent minutes at 43 C.
DOSE_MAX_MIN = 240.0


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
        _inColour(node, result.image)
        background = None
        for image in result.maps.values():
            other, _first = self._quantityNode(image)
            if image.metadata.get(UNIT):
                _fill(other, image)
                _inColour(other, image)
            else:
                self._inGrey(other, image)
                _fill(other, image)
                background = other
        if first:
            slicer.util.setSliceViewerLayers(background=background, fit=True)
            slicer.util.setSliceViewerLayers(background=background, foreground=node, foregroundOpacity=QUANTITY_OPACITY)
        # After the layers: a legend is only drawn where its volume is seen.
        _legend(node, result.image)
        return node

    def keepMaps(self, result: Reconstruction) -> None:
        """The maps of an image that carry a unit, each in a node of its own; no view shows them yet."""
        for image in result.maps.values():
            if image.metadata.get(UNIT):
                node, _first = self._quantityNode(image)
                _fill(node, image)
                _inColour(node, image)

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
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.ras_from_ijk))
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(image.array))
    for key in [key for key in node.GetAttributeNames() if key.startswith((PROVENANCE_ATTRIBUTE, *SAID_ATTRIBUTES))]:
        node.SetAttribute(key, None)  # of the image that was in this node before
    for key, value in image.metadata.items():
        node.SetAttribute(PROVENANCE_ATTRIBUTE + key, value)
    taken = image.acquired_utc_s
    node.SetAttribute(ACQUIRED_ATTRIBUTE, None if taken is None else datetime.fromtimestamp(taken, UTC).isoformat())
    node.SetAttribute(PATIENT_ATTRIBUTE, image.patient_id or None)
    node.SetAttribute(UNIT_ATTRIBUTE, image.metadata.get(UNIT) or None)


def _inColour(node: Any, image: Image) -> None:
    """Colours up to a round number that covers the data; what is not known (NaN) or hardly differs from 0 is clear."""
    known = image.array[np.isfinite(image.array)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if image.metadata[UNIT] == "min":
        high = min(high, DOSE_MAX_MIN)
    cooled = COOLED_FROM in image.metadata
    signed = cooled or low < -SIGN_SHARE * high
    top = _rounded(max(high, -low if signed else 0.0))
    display = node.GetScalarVolumeDisplayNode()
    if cooled:
        colours = _warmAndCold(node, top, -float(image.metadata[COOLED_FROM]))
    else:
        colours = _table("IntraopMRI signed", SIGNED) if signed else _table("IntraopMRI rising", RISING)
    display.SetAndObserveColorNodeID(colours.GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(-top if signed else 0.0, top)
    limit = max(abs(low), abs(float(known.max())) if known.size else 1.0) + top
    display.SetThreshold(-limit if signed else CLEAR_SHARE * top, limit)
    display.ApplyThresholdOn()
    display.SetInterpolate(False)


def _rounded(value: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10 ...: a scale that stays a while when a place warms up."""
    decade = 10.0 ** np.floor(np.log10(max(value, 1e-3)))
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return float(next(decade * step for step in steps if decade * step >= value * (1 - 1e-6)))


def _table(name: str, anchors: tuple[tuple[float, float, float], ...]) -> Any:
    """The colour table of this name, made when there is none yet."""
    found = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if found is None:
        found = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
        found.SetTypeToUser()
        found.SetNumberOfColors(COLORS)
        found.SetSaveWithScene(True)
        _paint(found, np.linspace(0, 1, COLORS), anchors)
    return found


def _warmAndCold(node: Any, top: float, cold: float) -> Any:
    """A table of the volume's own from -top to top, clear from -cold to where warming is painted."""
    table = _table(f"IntraopMRI {node.GetName()}", RISING)
    scale = f"{top:g} {cold:g}"
    if table.GetAttribute(SCALE_ATTRIBUTE) != scale:
        values = np.linspace(-top, top, COLORS)
        modified = table.StartModify()
        _paint(table, np.abs(values) / top, RISING, values >= CLEAR_SHARE * top)
        _paint(table, np.abs(values) / top, COOLING, values <= -cold, np.flatnonzero(values < 0))
        table.SetAttribute(SCALE_ATTRIBUTE, scale)
        table.EndModify(modified)
    return table


def _paint(
    table: Any,
    shares: np.ndarray,
    anchors: tuple[tuple[float, float, float], ...],
    seen: np.ndarray | None = None,
    entries: np.ndarray | None = None,
) -> None:
    """Colour ``entries`` (all) by ``shares`` 0..1 of the way along the anchors, clear where not ``seen``."""
    at = np.linspace(0, 1, len(anchors))
    for index in range(len(shares)) if entries is None else entries.tolist():
        red, green, blue = (float(np.interp(shares[index], at, channel)) for channel in zip(*anchors, strict=True))
        table.SetColor(index, f"{shares[index]:.2f}", red, green, blue, float(seen is None or seen[index]))


def _legend(node: Any, image: Image) -> None:
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(
        "{what}\n({unit})".format(what=image.metadata[QUANTITY].replace(" ", "\n"), unit=image.metadata[UNIT])
    )
    # Wide enough that titles and labels get one size; parts of round scales are written without rounding.
    legend.SetLabelFormat("%7.4g")
    legend.SetNumberOfLabels(5 if node.GetScalarVolumeDisplayNode().GetWindowLevelMin() < 0 else 6)
    for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
        text.SetFontSize(LEGEND_FONT)
    legend.SetSize(0.14, 0.5)
    legend.SetPosition(0.98, 0.5)
    legend.SetVisibility(True)
