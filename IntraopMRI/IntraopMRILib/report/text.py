"""How numbers, times and levels are written for a person."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: Decimals that the measurement can carry, by unit; others get three significant digits.
_DECIMALS = {"cm3": 2, "%": 1, "mm": 1, "deg": 1, "s": 1}
_UNITS = {"cm3": "cm³", "mm2": "mm²", "deg": "°"}
#: Below this a tenth of a millimetre hides what was measured.
_FINE_MM = 10.0


def value_text(value: float, unit: str) -> tuple[str, str]:
    """A value with the decimals that its unit deserves, and the unit as people write it."""
    decimals = _DECIMALS.get(unit)
    if unit == "mm" and abs(value) < _FINE_MM:
        decimals = 2
    text = f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"
    # A minus before zero says a direction that is not there.
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", "−"), _UNITS.get(unit, unit)


def joined(number: str, unit: str) -> str:
    """Number and unit, with a space between where one belongs; the two do not part at the end of a line."""
    gap = "" if unit in ("", "°") else "\u00a0"
    return number + gap + unit


def interval_text(measurement: Mapping[str, Any]) -> str:
    """The interval of a measurement in words, empty when there is none."""
    if measurement["interval"] is None:
        return ""
    low, high = (value_text(bound, measurement["unit"]) for bound in measurement["interval"])
    return f"{low[0]} to {joined(*high)}"


def look_words(look: Mapping[str, Any]) -> list[str]:
    """Each number of an earlier look with its interval, and the class, in words."""
    words = []
    for one in look["measurements"]:
        between = interval_text(one)
        value = joined(*value_text(one["value"], one["unit"]))
        words.append(f"{one['name']} {value}" + (f" ({between})" if between else ""))
    return [*words, look["rano"]] if look["rano"] else words


def by_whom(entry: Mapping[str, Any], when: str) -> str:
    """Who has drawn what a measure rests on, or has reviewed what was proposed; empty when nobody is named."""
    if not entry["drawn_by"]:
        return ""
    change = entry.get("proposed", "")
    done, changed = ("Proposed by the software, reviewed", f": {change}") if change else ("Drawn", "")
    return f"{done} by {entry['drawn_by']} at {when}{changed}."


def level_of(verdict: Mapping[str, Any]) -> str:
    """Worst level among the reasons; refused when there is none."""
    levels = {reason["level"] for reason in verdict["reasons"]}
    return next((level for level in ("refused", "check", "good") if level in levels), "refused")


def clock(utc: str) -> str:
    """Time of day of an ISO 8601 text, a dash when there is none."""
    return datetime.fromisoformat(utc).strftime("%H:%M:%S") if utc else "–"


def day(utc: str) -> str:
    """The date of an ISO 8601 text."""
    return datetime.fromisoformat(utc).strftime("%d %B %Y")
