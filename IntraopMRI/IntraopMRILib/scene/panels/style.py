"""Colours and sizes of the panel; the colours are those of the views."""

from __future__ import annotations

from html import escape
from typing import Any

from IntraopMRIReconstructionLib.data import Level

from .. import colors
from .page import Readiness


def code(color: colors.Color) -> str:
    """``#RRGGBB``."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)


#: Of the words on a light panel.
GOOD, CHECK, DANGER = "#0a775a", "#8a5f00", "#c4161c"
LEVEL_COLORS = {Level.GOOD: GOOD, Level.CHECK: CHECK, Level.REFUSED: DANGER}
#: Colours of the grades that leave no doubt; a range, or a breach beside a good band, has to be looked at.
GRADES = {"optimal": GOOD, "unacceptable": DANGER}
READINESS_COLORS = {Readiness.DONE: GOOD, Readiness.READY: "#1f6fb2", Readiness.BLOCKED: "#767676"}
#: What stands for each of them on a dark panel: none can be read on both.
ON_DARK = {GOOD: "#3fd0a4", CHECK: "#f2b740", DANGER: "#ff8a85", "#1f6fb2": "#6db3f2", "#767676": "#a8a8a8"}
#: Darker panels than this, of 255, are dark.
MIDDLE = 128
_on_dark = False
NEXT_BUTTON = (
    "QPushButton { background: #1f6fb2; color: white; font-weight: bold; font-size: 16px; border: none; "
    "border-radius: 6px; padding: 8px; } QPushButton:disabled { background: #c9ced3; color: #3f454b; font-size: 14px; }"
    " QPushButton:pressed { background: #18578c; }"
)
#: Two ways to decide, as prominent as the next step and as one another.
CHOICE_BUTTON = (
    "QPushButton { border: 2px solid #1f6fb2; color: #1f6fb2; background: white; font-weight: bold; font-size: 15px; "
    "border-radius: 6px; } QPushButton:disabled { border: 1px solid #a0a0a0; color: #767676; background: transparent; }"
    " QPushButton:pressed { background: #dbe9f5; }"
)
#: What went wrong has to be read, but is no danger: those stand in the views, in red.
BANNER = (
    f"QLabel {{ background: {code(colors.CAUTION)}; color: black; font-weight: bold; font-size: 15px; padding: 8px; }}"
)
PATIENT = "QLabel { font-weight: bold; font-size: 15px; padding: 2px; }"


def suit(lightness: int) -> None:
    """From now on colours are made for a panel of that ``lightness``, 0 to 255: Slicer has light and dark styles."""
    global _on_dark
    _on_dark = lightness < MIDDLE


def readable(color: str) -> str:
    """A colour of this file as it can be read on the panel."""
    return ON_DARK[color] if _on_dark else color


def step(readiness: Readiness, current: bool) -> str:
    """Style of a step's button."""
    color = readable(READINESS_COLORS[readiness])
    border = f"3px solid {color}" if current else "1px solid #a0a0a0"
    weight = "bold" if current else "normal"
    box = f"text-align: left; padding: 5px 8px; border: {border}; border-radius: 5px; font-weight: {weight};"
    return f"QPushButton {{ {box} }}"


def colored(text: str, color: str, size: int) -> str:
    """Rich text in one colour."""
    return f'<span style="color:{readable(color)}; font-size:{size}px; font-weight:bold">{escape(text)}</span>'


def graded(name: str, found: Any, size: int) -> str:
    """An implant and its grade in the colour of the grade, rich text."""
    return colored(f"{name}: {found.grade}", GRADES.get(found.grade, CHECK), size)


def sized(text: str, size: int) -> str:
    """Rich text in the panel's own colour, which a dark theme changes."""
    return f'<span style="font-size:{size}px; font-weight:bold">{escape(text)}</span>'
