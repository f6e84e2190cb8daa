"""Colours of the navigation view: red means residual or danger and nothing else.

The hues start from Okabe and Ito (2008) and are told apart with every common colour-vision deficiency, which a test
holds; shape (fill, outline, dashes, solid cylinder) says the same thing a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[float, float, float]


def _rgb(code: str) -> Color:
    """``RRGGBB`` as red, green, blue in 0..1."""
    red, green, blue = (int(code[start : start + 2], 16) / 255.0 for start in (0, 2, 4))
    return red, green, blue


@dataclass(frozen=True)
class Scale:
    """Colours of a map from its lowest to its highest value; lightness rises all the way: grey tells it too."""

    stops: tuple[Color, ...]

    def table(self, count: int = 256) -> list[Color]:
        """``count`` colours along the scale."""
        result = []
        for index in range(count):
            place = index / (count - 1) * (len(self.stops) - 1)
            low = min(int(place), len(self.stops) - 2)
            red, green, blue = (
                a + (b - a) * (place - low) for a, b in zip(self.stops[low], self.stops[low + 1], strict=True)
            )
            result.append((red, green, blue))
        return result


RESIDUAL = _rgb("FF2D2D")
RESECTED = _rgb("12B58A")
TUMOUR = _rgb("F0E442")
AT_RISK = _rgb("B36BFF")
PLANNED = _rgb("56B4E9")
ACTUAL = _rgb("E69F00")
POINTER = _rgb("FFFFFF")
TARGET = _rgb("56B4E9")
ANATOMY = _rgb("C9C4BC")

TEXT = _rgb("FFFFFF")
TEXT_QUIET = _rgb("B8BEC6")
GOOD = _rgb("12B58A")
CAUTION = _rgb("FFB000")
DANGER = _rgb("FF2D2D")
DANGER_BAND = _rgb("B8121B")
BACKGROUND = _rgb("000000")
DIVIDER = _rgb("2A2E33")

#: Brain shift: blue to yellow-green. Uncertainty: dark violet to light pink. Neither is ever red.
SHIFT_SCALE = Scale((_rgb("27306B"), _rgb("24628F"), _rgb("1F968B"), _rgb("74C864"), _rgb("E9F27A")))
UNCERTAINTY_SCALE = Scale((_rgb("2B1A4F"), _rgb("5B3A8E"), _rgb("9268C0"), _rgb("C9A2E0"), _rgb("F7E6FF")))
ARROW = _rgb("9BE8FF")
CAVITY = _rgb("12B58A")
#: Thin outline of what the software has proposed, reviewed or not, as words say: never filled, and no red.
PROPOSED = _rgb("4DD2FF")
#: Outline of what has reached the lethal dose: the far side of the amber of a temperature map.
LETHAL = _rgb("00E5FF")
#: Around what a person has marked as heated, or has gone to: calm, and no meaning of its own.
MARK = _rgb("DDE3EA")
#: Edge of what a map of a quantity shows: the amber of a temperature.
FRAME = _rgb("EDB833")
#: What an earlier session found: no colour that means anything now.
STORED, STORED_RESECTED = _rgb("C3CFDD"), _rgb("4A5460")
