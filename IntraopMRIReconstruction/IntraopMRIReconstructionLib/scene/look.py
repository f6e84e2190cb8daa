"""Colours and letters that can be read in both of Slicer's styles, light and dark: 4.5 to 1 for all words (WCAG 2.1).

Slicer greys what is disabled to 1.9 to 1. In a session that is connected, the link is such a field, and has to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import qt

#: Darker panels than this, of 255, are dark.
MIDDLE = 128
#: Height of the letters that the sizes here are made for; larger ones make the others larger too, smaller ones do not.
LETTERS_PX = 13
#: What must be seen: amber with black words.
AMBER = "#ffb000"
#: The next step, and what is selected.
BLUE = "#1f6fb2"


@dataclass(frozen=True)
class _Shades:
    """``quiet``: words of what is disabled, and in empty fields; ``field``: the ground of disabled fields."""

    quiet: str
    field: str
    selected: str
    onSelected: str


#: Words of what is disabled, on a light panel and on a dark one.
QUIET, QUIET_ON_DARK = "#5f6368", "#b4b4b4"
_LIGHT = _Shades(QUIET, "#f0f0f0", BLUE, "#ffffff")
_DARK = _Shades(QUIET_ON_DARK, "#2a2a2a", "#3ca4ff", "#000000")


class Suited:
    """Keeps a panel readable. Call it whenever the style of the application may have changed."""

    def __init__(self, widget: Any) -> None:
        self._widget = widget
        self._of: tuple[Any, ...] = ()
        self.dark, self.scale = False, 1.0

    def __call__(self) -> bool:
        """Whether something changed."""
        # Above the panel nothing of ours is mixed in.
        above = self._widget.parentWidget()
        palette = qt.QPalette((self._widget if above is None else above).palette)
        pixels = qt.QFontInfo(self._widget.font).pixelSize()
        of = (
            pixels,
            *(palette.color(role).name() for role in (qt.QPalette.Window, qt.QPalette.Base, qt.QPalette.Text)),
        )
        if of == self._of:
            return False
        self._of = of
        self.dark = palette.color(qt.QPalette.Window).lightness() < MIDDLE
        self.scale = max(1.0, pixels / LETTERS_PX)
        shades = _DARK if self.dark else _LIGHT
        for role in (qt.QPalette.WindowText, qt.QPalette.Text, qt.QPalette.ButtonText):
            palette.setColor(qt.QPalette.Disabled, role, qt.QColor(shades.quiet))
        palette.setColor(qt.QPalette.Disabled, qt.QPalette.Base, qt.QColor(shades.field))
        palette.setColor(qt.QPalette.Highlight, qt.QColor(shades.selected))
        palette.setColor(qt.QPalette.HighlightedText, qt.QColor(shades.onSelected))
        # Of Qt 5.12: a wrapper of an earlier one does not know it.
        if (placeholder := getattr(qt.QPalette, "PlaceholderText", None)) is not None:
            palette.setColor(placeholder, qt.QColor(shades.quiet))
        self._widget.setPalette(palette)
        return True


def nextButton(scale: float) -> str:
    """Style of the one prominent action."""
    return (
        f"QPushButton {{ background: {BLUE}; color: white; font-weight: bold; font-size: {round(16 * scale)}px; "
        "border: none; border-radius: 6px; padding: 8px; } "
        f"QPushButton:disabled {{ background: #c9ced3; color: #3f454b; font-size: {round(14 * scale)}px; }} "
        "QPushButton:pressed { background: #18578c; } QPushButton:focus { border: 2px solid black; padding: 6px; }"
    )


def notice(size: float) -> str:
    """Style of a label that must be seen."""
    return (
        f"QLabel {{ background: {AMBER}; color: black; font-weight: bold; font-size: {round(size)}px; padding: 3px; }}"
    )
