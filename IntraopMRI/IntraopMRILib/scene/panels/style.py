"""Colours and sizes of the panel; the colours are those of the views."""

from __future__ import annotations

from html import escape

from IntraopMRIReconstructionLib.data import Level

from .. import colors
from .page import Readiness


def code(color: colors.Color) -> str:
    """``#RRGGBB``."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)


#: Dark enough to be read on a light panel, and bright enough on a dark one.
GOOD, CHECK, DANGER = "#0b7d5f", "#9a6a00", "#c4161c"
LEVEL_COLORS = {Level.GOOD: GOOD, Level.CHECK: CHECK, Level.REFUSED: DANGER}
READINESS_COLORS = {Readiness.DONE: GOOD, Readiness.READY: "#1f6fb2", Readiness.BLOCKED: "#767676"}
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
BANNER = f"QLabel {{ background: {DANGER}; color: white; font-weight: bold; font-size: 15px; padding: 8px; }}"
PATIENT = "QLabel { font-weight: bold; font-size: 15px; padding: 2px; }"


def step(readiness: Readiness, current: bool) -> str:
    """Style of a step's button."""
    color = READINESS_COLORS[readiness]
    border = f"3px solid {color}" if current else "1px solid #a0a0a0"
    weight = "bold" if current else "normal"
    box = f"text-align: left; padding: 5px 8px; border: {border}; border-radius: 5px; font-weight: {weight};"
    return f"QPushButton {{ {box} }}"


def colored(text: str, color: str, size: int) -> str:
    """Rich text in one colour."""
    return f'<span style="color:{color}; font-size:{size}px; font-weight:bold">{escape(text)}</span>'


def sized(text: str, size: int) -> str:
    """Rich text in the panel's own colour, which a dark theme changes."""
    return f'<span style="font-size:{size}px; font-weight:bold">{escape(text)}</span>'
