"""Colours of the navigation view: red means residual or danger and nothing else.

The hues start from Okabe and Ito (2008) and are told apart with every common colour-vision deficiency, which a test
holds; shape (fill, outline, dashes, solid cylinder) says the same thing a second time.
"""

from __future__ import annotations

Color = tuple[float, float, float]


def _rgb(code: str) -> Color:
    """``RRGGBB`` as red, green, blue in 0..1."""
    red, green, blue = (int(code[start : start + 2], 16) / 255.0 for start in (0, 2, 4))
    return red, green, blue


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
