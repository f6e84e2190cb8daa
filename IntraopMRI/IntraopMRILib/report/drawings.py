"""Small drawings of the report as inline SVG: the residual against the RANO limits, a target, bars of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

#: Limits of the RANO classes in cm3 that the scale marks.
RANO_LIMITS_CM3 = (1.0, 5.0)
#: The scale ends here or at the next step above the interval.
SCALE_ENDS_CM3 = (2.0, 6.0, 12.0, 25.0, 50.0, 100.0, 250.0)
#: Drawn as a line: from here on a degree halves the time until tissue dies (Sapareto and Dewey 1984).
HEAT_LIMIT_C = 43.0
#: Rings of the target in mm: the limits of the published pedicle screw bands.
TARGET_RINGS_MM = (0.5, 2.0)


def residual_scale(value: float, interval: Sequence[float] | None) -> str:
    """The residual with its interval on a line that is divided at the RANO limits, cm3."""
    low, high = interval or (value, value)
    end = next((e for e in SCALE_ENDS_CM3 if e >= 1.15 * high), 1.15 * high)
    left, width, y = 14.0, 932.0, 34.0

    def x(volume: float) -> float:
        # A square root keeps the small volumes, on which the class turns, apart.
        return left + width * float(np.sqrt(max(0.0, volume) / end))

    marks = [0.0, *[limit for limit in RANO_LIMITS_CM3 if limit < end], end]
    names = {0.0: "2B, over 0 to 1 cm³", 1.0: "3A, over 1 to 5 cm³", 5.0: "3B, over 5 cm³"}
    shades = ("#eef3f7", "#dde7ee", "#cbd9e3")
    parts = []
    for start, stop, shade in zip(marks, marks[1:], shades, strict=False):
        parts.append(
            f'<rect x="{x(start):.1f}" y="{y - 8}" width="{x(stop) - x(start):.1f}" height="16" fill="{shade}"/>'
        )
        parts.append(f'<text x="{x(start) + 4:.1f}" y="{y - 14}" font-size="11.5" fill="#5b6975">{names[start]}</text>')
    for mark in marks:
        parts.append(f'<line x1="{x(mark):.1f}" y1="{y - 8}" x2="{x(mark):.1f}" y2="{y + 12}" stroke="#5b6975"/>')
        anchor = "start" if mark == 0 else "end" if mark == end else "middle"
        parts.append(
            f'<text x="{x(mark):.1f}" y="{y + 25}" font-size="11.5" fill="#5b6975" text-anchor="{anchor}">'
            f"{mark:g}</text>"
        )
    parts.append(
        f'<line x1="{x(low):.1f}" y1="{y}" x2="{x(high):.1f}" y2="{y}" stroke="#a8280c" stroke-width="4" '
        'stroke-linecap="round"/>'
    )
    parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="6.5" fill="#fff" stroke="#a8280c" stroke-width="3"/>')
    label = f"Residual {value:.2f} cm3, interval {low:.2f} to {high:.2f}, against the RANO limits"
    return f'<svg viewBox="0 0 960 66" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def target(implant: Mapping[str, Any]) -> str:
    """Where the tip went, seen along the planned axis: a dot with its uncertainty on rings of 0.5 and 2 mm."""
    entry, planned, actual = (
        np.asarray(implant[key], dtype=np.float64)
        for key in ("planned_entry_ras_mm", "planned_tip_ras_mm", "actual_tip_ras_mm")
    )
    axis = (planned - entry) / np.linalg.norm(planned - entry)
    # The picture's upright is the direction nearest to superior, or anterior for a vertical axis.
    upright, letter, opposite = (
        (np.array([0.0, 0.0, 1.0]), "S", "I") if abs(axis[2]) < 0.8 else (np.array([0.0, 1.0, 0.0]), "A", "P")
    )
    up = upright - (upright @ axis) * axis
    up /= np.linalg.norm(up)
    # Seen from the entry along the axis, as the surgeon looks.
    side = np.cross(axis, up)
    off = actual - planned
    x, y = float(off @ side), float(off @ up)
    reach = max(3.0, 1.25 * float(np.hypot(x, y)))
    scale = 80.0 / reach
    rings = "".join(
        f'<circle cx="100" cy="100" r="{ring * scale:.1f}" fill="none" stroke="#9fb0bd"/>'
        f'<text x="{102 + 0.707 * ring * scale:.1f}" y="{98 - 0.707 * ring * scale:.1f}" font-size="10" fill="#5b6975">'
        f"{ring:g}</text>"
        for ring in TARGET_RINGS_MM
    )
    across = "RLAPSI"[2 * int(np.argmax(np.abs(side))) + int(side[int(np.argmax(np.abs(side)))] < 0)]
    px, py = 100 + x * scale, 100 - y * scale
    spread = max(3.0, float(implant["uncertainty_mm"]) * scale)
    label = f"Tip {escape(str(implant['name']))}, {np.hypot(x, y):.2f} mm beside the planned axis"
    return (
        f'<svg viewBox="0 0 200 214" width="200" role="img" aria-label="{label}">'
        '<rect x="10" y="10" width="180" height="180" fill="#f4f6f8" rx="4"/>'
        '<path d="M100 14V186M14 100H186" stroke="#d8dee3"/>'
        f'{rings}<circle cx="{px:.1f}" cy="{py:.1f}" r="{spread:.1f}" fill="#17486b" fill-opacity=".18"/>'
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="#17486b"/>'
        f'<text x="100" y="23" font-size="11" text-anchor="middle" fill="#5b6975">{letter}</text>'
        f'<text x="100" y="185" font-size="11" text-anchor="middle" fill="#5b6975">{opposite}</text>'
        f'<text x="180" y="104" font-size="11" text-anchor="middle" fill="#5b6975">{across}</text>'
        '<text x="100" y="206" font-size="11" text-anchor="middle" fill="#5b6975">Tip along the planned axis, mm</text>'
        "</svg>"
    )


def bars(rows: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars of seconds, one a stage, with the total."""
    longest = max((seconds for _, seconds in rows), default=0.0) or 1.0
    height = 24 * (len(rows) + 1) + 6
    parts = []
    for n, (stage, seconds) in enumerate(rows):
        y = 24 * n
        length = 180.0 * seconds / longest
        parts.append(
            f'<text x="0" y="{y + 16}" font-size="12.5" fill="#1b2530">{escape(stage)}</text>'
            f'<rect x="190" y="{y + 5}" width="{max(1.0, length):.1f}" height="13" rx="2" fill="#6d93ad"/>'
            f'<text x="{196 + length:.1f}" y="{y + 16}" font-size="12" fill="#5b6975">{seconds:.1f} s</text>'
        )
    total = sum(seconds for _, seconds in rows)
    y = 24 * len(rows)
    parts.append(
        f'<text x="0" y="{y + 20}" font-size="12.5" font-weight="600" fill="#1b2530">Total</text>'
        f'<text x="190" y="{y + 20}" font-size="12.5" font-weight="600" fill="#1b2530">{total:.1f} s</text>'
    )
    return f'<svg viewBox="0 0 440 {height}" role="img" aria-label="Time per stage">{"".join(parts)}</svg>'


def heat_course(course: Sequence[Sequence[float]]) -> str:
    """Peak temperature over time with its interval: rows of seconds, peak, lower and upper end (C)."""
    if len(course) < 2:
        return ""
    seconds, low, high = ([row[column] for row in course] for column in (0, 2, 3))
    bottom, top = min(35.0, *low), max(HEAT_LIMIT_C + 2, *high)
    first, span = seconds[0], max(seconds[-1] - seconds[0], 1e-9)

    def place(time_s: float, celsius: float) -> str:
        return f"{40 + 380 * (time_s - first) / span:.1f},{150 - 130 * (celsius - bottom) / (top - bottom):.1f}"

    band = " ".join([place(s, c) for s, c in zip(seconds, high, strict=True)])
    band += " " + " ".join(place(s, c) for s, c in reversed(list(zip(seconds, low, strict=True))))
    line = " ".join(place(row[0], row[1]) for row in course)
    limit, peak = float(place(first, HEAT_LIMIT_C).partition(",")[2]), max(row[1] for row in course)
    words = 'font-size="11" fill="#5b6975"'
    marks = "".join(
        f'<text x="34" y="{float(place(first, celsius).partition(",")[2]) + 4:.1f}" text-anchor="end" {words}>'
        f"{celsius:.0f}</text>"
        for celsius in (HEAT_LIMIT_C, peak)
    )
    return (
        f'<svg viewBox="0 0 440 182" width="440" role="img" aria-label="Peak temperature, up to {peak:.1f} C">{marks}'
        f'<path d="M40 20V150H420" fill="none" stroke="#9fb0bd"/>'
        f'<path d="M40 {limit}H420" stroke="#9fb0bd" stroke-dasharray="4 4"/>'
        f'<polygon points="{band}" fill="#c98a00" fill-opacity=".25"/>'
        f'<polyline points="{line}" fill="none" stroke="#8a5f00" stroke-width="2"/>'
        f'<text x="40" y="166" {words}>{first:.0f} s</text>'
        f'<text x="420" y="166" text-anchor="end" {words}>{seconds[-1]:.0f} s</text>'
        f'<text x="230" y="178" text-anchor="middle" {words}>Peak in the mark (°C) since the reference, with its '
        "interval</text></svg>"
    )
