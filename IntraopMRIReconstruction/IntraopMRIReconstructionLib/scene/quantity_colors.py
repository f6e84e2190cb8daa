"""Colours of volumes whose voxels are a quantity, and the legend that says what they mean."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import slicer

from ..data import Image
from ..reconstruct.quantity_image import BASELINE, COOLED_FROM, QUANTITY, UNIT

#: Attribute of a colour table of a volume's own: the scale that it was made for.
SCALE_ATTRIBUTE = "IntraopMRI.Scale"
#: Colours of quantities with a sign (cold, none, hot) and of those without, dark to light, RGB. Amber, never red: red
#: is what is left of a tumour, or danger. Lightness rises all the way: grey tells it too.
SIGNED = ((0.02, 0.19, 0.58), (0.45, 0.68, 0.95), (0.95, 0.95, 0.95), (0.93, 0.65, 0.15), (0.5, 0.3, 0.0))
RISING = ((0.27, 0.17, 0.02), (0.5, 0.32, 0.02), (0.75, 0.5, 0.05), (0.95, 0.72, 0.2), (1.0, 0.97, 0.72))
#: Colours of what has cooled, little to much: dark next to the dark end of what has warmed up.
COOLING = ((0.03, 0.12, 0.45), (0.05, 0.35, 0.75), (0.15, 0.6, 0.95), (0.5, 0.85, 1.0), (0.85, 1.0, 1.0))
COLORS = 256
#: Letters of a legend, which is read from three metres, and how many numbers stand beside its colours.
LEGEND_FONT, LEGEND_NUMBERS = 30, 3
#: Letters of a line of a legend's title.
TITLE_LETTERS = 16
#: Values below this share of a rising scale let the anatomy through, so that what is not heated is not painted.
CLEAR_SHARE = 0.15
#: A range that goes below 0 by less than this share of its top is noise about 0, not a sign.
SIGN_SHARE = 0.2
#: A dose scale ends where tissue dies for certain (Sapareto and Dewey), equivalent minutes at 43 C.
DOSE_MAX_MIN = 240.0
#: A scale of temperature reaches at least so far, °C: noise of half a degree is not heat.
LEAST_TOP_C = 5.0


def inColour(node: Any, image: Image) -> None:
    """Colours up to a round number that covers the data; what is not known (NaN) or hardly differs from 0 is clear."""
    known = image.array[np.isfinite(image.array)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if image.metadata[UNIT] == "min":
        high = min(high, DOSE_MAX_MIN)
    cold = _cold(image)
    # A temperature is below its reference only where cooling is certain; the rest is noise.
    signed = cold is not None or (image.metadata[UNIT] != "°C" and low < -SIGN_SHARE * high)
    least = LEAST_TOP_C if image.metadata[UNIT] == "°C" else 0.0
    top = _rounded(max(high, -low if signed else 0.0, least))
    display = node.GetScalarVolumeDisplayNode()
    if cold is not None:
        colours = _warmAndCold(node, top, cold)
    else:
        scene = node.GetScene()
        colours = _table(scene, "IntraopMRI signed", SIGNED) if signed else _table(scene, "IntraopMRI rising", RISING)
    display.SetAndObserveColorNodeID(colours.GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(-top if signed else 0.0, top)
    limit = max(abs(low), abs(float(known.max())) if known.size else 1.0) + top
    display.SetThreshold(-limit if signed else CLEAR_SHARE * top, limit)
    display.ApplyThresholdOn()
    display.SetInterpolate(False)


def _cold(image: Image) -> float | None:
    """From how many degrees below the reference cooling is certain; None where there is none, or nobody knows."""
    try:
        return -float(image.metadata[COOLED_FROM])
    except (KeyError, ValueError):
        return None


def _rounded(value: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10 ...: a scale that stays a while when a place warms up."""
    decade = 10.0 ** np.floor(np.log10(max(value, 1e-3)))
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return float(next(decade * step for step in steps if decade * step >= value * (1 - 1e-6)))


def _table(scene: Any, name: str, anchors: tuple[tuple[float, float, float], ...]) -> Any:
    """The colour table of this name, made when there is none yet."""
    found = scene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if found is None:
        found = scene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
        found.SetTypeToUser()
        found.SetNumberOfColors(COLORS)
        found.SetSaveWithScene(True)
        _paint(found, np.linspace(0, 1, COLORS), anchors)
    return found


def _warmAndCold(node: Any, top: float, cold: float) -> Any:
    """A table of the volume's own from -top to top, clear from -cold to where warming is painted."""
    table = _table(node.GetScene(), f"IntraopMRI {node.GetName()}", RISING)
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


def legend(node: Any, image: Image) -> None:
    """A legend beside a quantity in the views that show it: what it is, and its unit."""
    shown = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    if shown is None:
        shown = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
        shown.SetVisibility(True)
    what = image.metadata.get(QUANTITY) or image.name
    # A third line would leave the colours and numbers below it no room.
    title = textwrap.fill(f"{what} ({image.metadata[UNIT]})", TITLE_LETTERS, break_on_hyphens=False)
    if BASELINE in image.metadata:
        title = f"{image.metadata[UNIT]} above\n{image.metadata[BASELINE]}"
    shown.SetTitleText(title)
    # Wide enough that titles and labels get one size; parts of round scales are written without rounding.
    shown.SetLabelFormat("%.3g")
    shown.SetNumberOfLabels(LEGEND_NUMBERS)
    for text in (shown.GetTitleTextProperty(), shown.GetLabelTextProperty()):
        text.SetFontFamilyToArial()
        text.SetFontSize(LEGEND_FONT)
    # Between the letter of the patient's side, which must never be covered, and the scale bar; alarms come from above.
    shown.SetSize(0.2, 0.3)
    shown.SetPosition(0.99, 0.14)
