"""Colours and sizes of the panel; the colours are those of the views."""

from __future__ import annotations

from html import escape
from typing import Any

from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.scene.look import BLUE, LETTERS_PX, QUIET, QUIET_ON_DARK

from .page import Readiness

#: Of the words on a light panel. A style sheet names its colour: Qt does not let it follow that of the panel.
WORDS = "#000000"
GOOD, CHECK, DANGER = "#0a775a", "#8a5f00", "#c4161c"
LEVEL_COLORS = {Level.GOOD: GOOD, Level.CHECK: CHECK, Level.REFUSED: DANGER}
#: Colours of the grades that leave no doubt; a range, or a breach beside a good band, has to be looked at.
GRADES = {"optimal": GOOD, "unacceptable": DANGER}
READINESS_COLORS = {Readiness.DONE: GOOD, Readiness.READY: BLUE, Readiness.BLOCKED: QUIET}
#: What stands for each of them on a dark panel: none can be read on both.
ON_DARK = {
    GOOD: "#3fd0a4",
    CHECK: "#f2b740",
    DANGER: "#ff8a85",
    BLUE: "#6db3f2",
    QUIET: QUIET_ON_DARK,
    WORDS: "#ffffff",
}
#: Letters of a step are no larger than this.
MOST_OF_STEP_PX = 15
_on_dark, _scale = False, 1.0


def suit(dark: bool, scale: float = 1.0) -> None:
    """From now on words are made for a dark or light panel, and ``scale`` times as large as their sizes here say."""
    global _on_dark, _scale
    _on_dark, _scale = dark, scale


def pixels(size: float) -> int:
    """Height of letters of a ``size`` of this file on the panel."""
    return round(size * _scale)


def readable(color: str) -> str:
    """A colour of this file as it can be read on the panel."""
    return ON_DARK[color] if _on_dark else color


def choiceButton() -> str:
    """Two ways to decide, as prominent as the next step and as one another."""
    blue = readable(BLUE)
    return (
        f"QPushButton {{ border: 2px solid {blue}; color: {blue}; background: palette(base); font-weight: bold; "
        f"font-size: {pixels(15)}px; border-radius: 6px; }} QPushButton:focus {{ border-width: 4px; }} "
        "QPushButton:pressed { background: palette(midlight); }"
    )


def quietButton() -> str:
    """One of these two when there is nothing to decide: as any other."""
    return f"QPushButton {{ color: {readable(WORDS)}; }} QPushButton:disabled {{ color: {readable(QUIET)}; }}"


def step(readiness: Readiness, current: bool) -> str:
    """Style of a step's button."""
    color = readable(READINESS_COLORS[readiness])
    border = f"3px solid {color}" if current else "1px solid #808080"
    weight = "bold" if current else "normal"
    box = f"text-align: left; padding: 5px 8px; border: {border}; border-radius: 5px; font-weight: {weight}; "
    box += f"color: {readable(WORDS)};"
    if _scale > 1.0:
        # Two of them have to stand beside one another.
        box += f" font-size: {min(pixels(LETTERS_PX), MOST_OF_STEP_PX)}px;"
    return f"QPushButton {{ {box} }} QPushButton:focus {{ text-decoration: underline; }}"


def sentence(text: str) -> str:
    """A reason as it begins a line of its own."""
    return text[:1].upper() + text[1:]


def whole(text: str) -> str:
    """A number that keeps its unit in its line, rich text."""
    return f'<span style="white-space:nowrap">{escape(text)}</span>'


def colored(text: str, color: str, size: int) -> str:
    """Rich text in one colour."""
    return f'<span style="color:{readable(color)}; font-size:{pixels(size)}px; font-weight:bold">{escape(text)}</span>'


def graded(name: str, found: Any, size: int) -> str:
    """An implant and its grade in the colour of the grade, rich text."""
    return colored(f"{name}: {found.grade}", GRADES.get(found.grade, CHECK), size)


def sized(text: str, size: int) -> str:
    """Rich text in the panel's own colour, which a dark theme changes."""
    return f'<span style="font-size:{pixels(size)}px; font-weight:bold">{escape(text)}</span>'
