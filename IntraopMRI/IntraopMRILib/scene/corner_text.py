"""Draws texts, orientation letters and a scale bar on the renderer of a view, off screen and in Slicer alike."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import vtk

from . import colors
from .colors import Color
from .display import READ, SMALL, Banner, ColorBar, Corners, Line, Tone

#: Distance of the texts from the edge and of the lines from one another, as part of the view's height.
_MARGIN, _LEADING = 0.03, 1.22
#: Letters at the ends of the R, A and S axes.
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
#: A direction takes a letter when it has at least this part along the axis; oblique views show two letters.
_SECOND_LETTER = 0.35
#: Width of a bold capital, in font sizes.
_CAPITAL_WIDTH = 0.66
#: Width of a small letter.
_LETTER_WIDTH = 0.52
#: Bands of the alarms, dark enough for white or bright enough for black words.
_BANDS = {Tone.DANGER: colors.DANGER_BAND, Tone.CAUTION: colors.CAUTION}
#: Size of an orientation letter.
_LETTER = 1.25 * READ
#: Width of the colours of a map's scale.
_BAR = READ
#: Opacity of the dark ground behind a text, so that it can be read on bright brain.
_BACKING = 0.55
_BARS_MM = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)


class ViewTexts:
    """Texts over one renderer. ``update`` replaces what is shown; ``close`` takes everything away."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        #: What each part shows, and its actors.
        self._parts: dict[str, tuple[Any, list[Any]]] = {}
        self._props: list[Any] = []

    def update(
        self, corners: Corners, sliceToRas: npt.ArrayLike | None = None, mmPerPixel: float | None = None
    ) -> None:
        """Draw ``corners``; with ``sliceToRas`` (4, 4) also orientation letters, with ``mmPerPixel`` a scale bar.

        Only parts that show something else than before are made anew: setting letters takes most of the time.
        """
        width, height = self._renderer.GetSize()
        # A view that is narrower than high, beside two others, has no room for letters made for its height.
        size = min(width, height)
        bands = [_fitted(banner, width / size) for banner in corners.banners]
        top = height - sum(_bandHeight(rows) for rows in bands) * size
        margin = _MARGIN * size
        # The words at the foot are long: what stands in the corners lies above them.
        floor = margin + (SMALL * size if corners.footer else 0.0)
        stacks = {
            "top left": (corners.topLeft, margin, top - margin, size, "Left"),
            "top right": (corners.topRight, width - margin, top - margin, size, "Right"),
            "bottom left": (corners.bottomLeft, margin, floor + _heightOf(corners.bottomLeft, size), size, "Left"),
            "bottom right": (
                corners.bottomRight,
                width - margin,
                floor + _heightOf(corners.bottomRight, size),
                size,
                "Right",
            ),
        }
        footer = Line(corners.footer, SMALL, colors.TEXT_QUIET) if corners.footer else None
        letters = () if sliceToRas is None else _lettersOf(np.asarray(sliceToRas, dtype=np.float64))
        self._part("banners", self._banners, corners.banners, bands, width, height, size)
        for name, stack in stacks.items():
            self._part(name, self._stack, *stack)
        # Drawn anew with what stands beside it, whose dark ground would otherwise come to lie over it.
        self._part("footer", self._footer, footer, width, margin, size, corners.bottomLeft, corners.bottomRight)
        self._part("letters", self._letters, letters, width, height, top, size, corners.topLeft, corners.bottomLeft)
        self._part("scale bar", self._scaleBar, mmPerPixel, width, size)
        self._part("colour bar", self._colorBar, corners.colorBar, width, height, size)

    def close(self) -> None:
        """Remove all that was drawn."""
        for _state, props in self._parts.values():
            self._remove(props)
        self._parts.clear()

    def _part(self, name: str, draw: Callable[..., None], *state: Any) -> None:
        """Draw a part of ``state``, unless that is what it shows already."""
        shown, props = self._parts.get(name, (None, []))
        if shown != state:
            self._remove(props)
            self._props = []
            draw(*state)
            self._parts[name] = (state, self._props)

    def _remove(self, props: Sequence[Any]) -> None:
        for prop in props:
            self._renderer.RemoveViewProp(prop)

    def _add(self, prop: Any) -> None:
        self._renderer.AddViewProp(prop)
        self._props.append(prop)

    def _actor(self, line: Line, x: float, y: float, height: int, justify: str, at: str = "Top") -> Any:
        actor = vtk.vtkTextActor()
        actor.SetInput(line.text)
        style = actor.GetTextProperty()
        style.SetFontFamilyToArial()
        style.SetFontSize(max(8, round(line.size * height)))
        style.SetBold(line.bold)
        style.SetColor(*line.color)
        getattr(style, f"SetJustificationTo{justify}")()
        getattr(style, f"SetVerticalJustificationTo{at}")()
        actor.SetPosition(round(x), round(y))
        return actor

    def _text(self, line: Line, x: float, y: float, height: int, justify: str, at: str = "Top") -> None:
        """One text on its own dark ground."""
        actor = self._actor(line, x, y, height, justify, at)
        wide, tall = self._extent(actor)
        left = x - wide * {"Left": 0.0, "Centered": 0.5, "Right": 1.0}[justify]
        bottom = y - tall * {"Bottom": 0.0, "Centered": 0.5, "Top": 1.0}[at]
        pad = 0.1 * line.size * height
        self._rectangle(left - pad, bottom - pad, wide + 2 * pad, tall + 2 * pad, colors.BACKGROUND, _BACKING)
        self._add(actor)

    def _stack(self, lines: Sequence[Line], x: float, top: float, height: int, justify: str) -> None:
        """Lines from ``top`` down on one dark ground."""
        if not lines:
            return
        actors, y = [], top
        for line in lines:
            actors.append(self._actor(line, x, y, height, justify))
            y -= _LEADING * line.size * height
        wide, pad = max(self._extent(actor)[0] for actor in actors), 0.3 * _MARGIN * height
        left = x if justify == "Left" else x - wide
        self._rectangle(left - pad, y - pad, wide + 2 * pad, top - y + 2 * pad, colors.BACKGROUND, _BACKING)
        for actor in actors:
            self._add(actor)

    def _extent(self, actor: Any) -> tuple[float, float]:
        size = [0.0, 0.0]
        actor.GetSize(self._renderer, size)
        return size[0], size[1]

    def _banners(
        self, banners: Sequence[Banner], bands: Sequence[Sequence[Line]], width: int, height: int, size: int
    ) -> None:
        """Alarms from the top edge down."""
        top = float(height)
        for banner, rows in zip(banners, bands, strict=True):
            tall = _bandHeight(rows) * size
            self._rectangle(0, top - tall, width, tall, _BANDS[banner.tone])
            y = top - 0.4 * READ * size
            for row in rows:
                self._add(self._actor(row, width / 2, y, size, "Centered"))
                y -= _LEADING * row.size * size
            top -= tall

    def _footer(self, line: Line | None, width: int, margin: float, size: int, *_beside: Sequence[Line]) -> None:
        if line is not None:
            self._text(line, width / 2, 0.4 * margin, size, "Centered", "Bottom")

    def _letters(
        self,
        letters: Sequence[str],
        width: int,
        height: int,
        top: float,
        size: int,
        above: Sequence[Line],
        below: Sequence[Line],
    ) -> None:
        """Orientation letters in the middle of the left, right, upper and lower edge; the left one where the texts
        ``above`` and ``below`` it leave room: no letter may be covered."""
        margin = 0.5 * _MARGIN * size
        half = 0.5 * _LEADING * _LETTER * size + margin
        lowest, highest = (2 * margin + _heightOf(below, size) + half, top - 2 * margin - _heightOf(above, size) - half)
        # Where no room is left it lies amid them: a side that is mistaken is worse than a covered word.
        left = (lowest + highest) / 2 if lowest > highest else min(max(height / 2, lowest), highest)
        places = (
            (margin, left, "Left", "Centered"),
            (width - margin, height / 2, "Right", "Centered"),
            (width / 2, top - margin, "Centered", "Top"),
            (width / 2, margin, "Centered", "Bottom"),
        )
        for text, place in zip(letters, places, strict=False):
            x, y, justify, vertical = place
            self._text(Line(text, _LETTER, colors.TEXT, bold=True), x, y, size, justify, vertical)

    def _scaleBar(self, mmPerPixel: float | None, width: int, height: int) -> None:
        if mmPerPixel is None:
            return
        longest = 0.28 * width * mmPerPixel
        length = next((bar for bar in _BARS_MM if bar <= longest), _BARS_MM[-1])
        pixels, margin, thick = length / mmPerPixel, _MARGIN * height, max(2.0, 0.006 * height)
        left = width - margin - pixels
        self._rectangle(left - 1, margin - 1, pixels + 2, thick + 2, colors.BACKGROUND)
        self._rectangle(left, margin, pixels, thick, colors.TEXT)
        label = Line(f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm", READ)
        self._text(label, width - margin, margin + thick + 0.4 * margin, height, "Right", "Bottom")

    def _colorBar(self, bar: ColorBar | None, width: int, height: int, size: int) -> None:
        """Between the scale bar and the letter of the patient's side, which must never be covered."""
        if bar is None:
            return
        margin, wide = _MARGIN * size, _BAR * size
        low, high = 2 * margin + 1.5 * _LEADING * READ * size, height / 2 - _LETTER * size - _LEADING * READ * size
        right, step = width - margin, (high - low) / len(bar.shades)
        self._rectangle(right - wide - 2, low - 2, wide + 4, high - low + 4, colors.BACKGROUND)
        for index, shade in enumerate(bar.shades):
            self._rectangle(right - wide, low + index * step, wide, step + 1, shade)
        for index, text in enumerate(bar.numbers):
            line = Line(text, READ, bold=True)
            share = index / max(1, len(bar.numbers) - 1)
            at = ("Bottom", "Centered", "Top")[round(2 * share)]
            self._text(line, right - wide - 0.5 * margin, low + share * (high - low), size, "Right", at)
        self._text(Line(bar.unit, READ, bold=True), right, high + 0.3 * margin, size, "Right", "Bottom")

    def _rectangle(self, x: float, y: float, width: float, height: float, color: Color, opacity: float = 1.0) -> None:
        points = vtk.vtkPoints()
        for corner in ((x, y), (x + width, y), (x + width, y + height), (x, y + height)):
            points.InsertNextPoint(*corner, 0.0)
        cells = vtk.vtkCellArray()
        cells.InsertNextCell(4, (0, 1, 2, 3))
        mesh = vtk.vtkPolyData()
        mesh.SetPoints(points)
        mesh.SetPolys(cells)
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(mesh)
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.GetProperty().SetColor(*color)
        actor.GetProperty().SetOpacity(opacity)
        self._add(actor)


def _lettersOf(sliceToRas: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """Letters at the left, right, upper and lower edge of a slice."""
    across, up = sliceToRas[:3, 0], sliceToRas[:3, 1]
    return tuple(orientationLetters(direction) for direction in (-across, across, up, -up))


def orientationLetters(direction: npt.ArrayLike) -> str:
    """Letters of the anatomical side that ``direction`` (3,), RAS, points to: ``R``, or ``RA`` when oblique."""
    vector = np.asarray(direction, dtype=np.float64)
    vector = vector / np.linalg.norm(vector)
    order = np.argsort(-np.abs(vector), kind="stable")
    letters = [_LETTERS[axis][int(vector[axis] > 0)] for axis in order if abs(vector[axis]) >= _SECOND_LETTER]
    return "".join(letters[:2])


def _fitted(banner: Banner, aspect: float) -> list[Line]:
    """Title on one line as large as it fits, detail below in as many lines as it needs: words are never cut off."""
    color = colors.TEXT if banner.tone is Tone.DANGER else colors.BACKGROUND
    size = min(1.7 * READ, 0.94 * aspect / (_CAPITAL_WIDTH * max(1, len(banner.title))))
    details = textwrap.wrap(banner.detail, int(0.94 * aspect / (_LETTER_WIDTH * READ)))
    return [Line(banner.title, size, color, bold=True), *(Line(row, READ, color) for row in details)]


def _bandHeight(rows: Sequence[Line]) -> float:
    """Height of an alarm's band, as part of the view's."""
    return sum(_LEADING * row.size for row in rows) + 0.5 * READ


def _heightOf(lines: Sequence[Line], height: int) -> float:
    return sum(_LEADING * line.size for line in lines) * height
