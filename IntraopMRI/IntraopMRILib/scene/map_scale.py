"""The scale beside a map of a quantity, in the panel's views and in the pictures of the command line alike."""

from __future__ import annotations

from typing import Any

from IntraopMRIReconstructionLib.reconstruct.quantity_image import BASELINE

from .contents import ATTRIBUTE
from .display import ColorBar
from .scan_nodes import SOURCE

#: Steps of its colours.
_SHADES = 48


class MapScale:
    """Reads what the colours of a map mean from its node; made anew only when that has changed."""

    def __init__(self) -> None:
        self._of: tuple[Any, ...] = ()
        self._bar: ColorBar | None = None

    def of(self, node: Any | None) -> ColorBar | None:
        """Scale of the map in ``node``; None without one."""
        if node is None or node.GetScene() is None:
            return None
        display = node.GetScalarVolumeDisplayNode()
        colors = display.GetColorNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        unit, before = node.GetAttribute(f"{ATTRIBUTE}Unit") or "", node.GetAttribute(f"{SOURCE}{BASELINE}") or ""
        of = (colors, colors.GetMTime(), low, high, unit, before)
        if of != self._of:
            self._of, self._bar = of, _made(colors.GetLookupTable(), low, high, unit, before)
        return self._bar


def _made(table: Any, low: float, high: float, unit: str, before: str) -> ColorBar:
    shades = []
    for index in range(_SHADES):
        *color, opacity = table.GetTableValue(round(index / (_SHADES - 1) * (table.GetNumberOfTableValues() - 1)))
        red, green, blue = (opacity * part for part in color)
        shades.append((red, green, blue))
    # A rise is said as the temperature that it leads to: that is what a limit is given in.
    offset = float(before.split()[0]) if unit == "°C" and before.endswith("°C") else 0.0
    if unit == "min":
        unit = "CEM43 min"
    numbers = tuple(f"{offset + value:.3g}" for value in (low, (low + high) / 2, high))
    return ColorBar(unit if offset or not before else f"{unit} above {before}", tuple(shades), numbers)
