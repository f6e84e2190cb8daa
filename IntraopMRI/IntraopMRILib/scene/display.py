"""What the views say in words and numbers, decided without drawing: the surgeon reads it from three metres.

A number is shown only while all that it rests on is sound; otherwise a dash and the reason in words take its place.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from IntraopMRIReconstructionLib.data import Level, Measurement, Verdict

from . import colors
from .colors import Color

if TYPE_CHECKING:
    from .heat_texts import HeatTexts

#: Font sizes as part of the view's height. READ is the smallest that carries meaning: a view is half the picture, so
#: 0.05 is 1/40 of the picture, 9 minutes of arc at three metres on a 27 inch screen.
HUGE, LARGE, MIDDLE, READ, SMALL = 0.125, 0.085, 0.06, 0.05, 0.036
#: Characters and lines that a reason may take in a corner.
_WRAP, _MAX_LINES = 27, 4
#: And the place of a piece, which has its size above it and the state of the session beside it.
_PLACE_WRAP, _MAX_PLACE_LINES = 23, 3
_UNITS = {"cm3": "cm³", "ml": "cm³", "mL": "cm³", "deg": "°", "percent": "%"}
#: Measurements of an implant that fit beside a picture, by the end of their name; the report has all of them.
SHOWN_OF_IMPLANT = ("entry deviation", "tip deviation", "radial deviation", "angular deviation", "pedicle breach")
#: What stands in the names of its distances to structures at risk.
CLEARANCE = ": clearance to "
#: More implants than these have one line each: where the tip went.
MOST_IN_FULL, MOST_IN_LINES = 1, 12
#: Without a tool, or with one that was laid aside, nobody is waiting for a number: a quiet word stands in its place.
CALM = ("never received", "out of sight")
NOT_CLINICAL = "Research use only. Not for clinical use."


class Tone(Enum):
    """Meaning of a text; red only for residual and danger."""

    NORMAL = colors.TEXT
    QUIET = colors.TEXT_QUIET
    GOOD = colors.GOOD
    CAUTION = colors.CAUTION
    DANGER = colors.DANGER

    @property
    def color(self) -> Color:
        """Red, green, blue in 0..1."""
        return self.value


@dataclass(frozen=True)
class Line:
    """One line of text: ``size`` is part of the view's height."""

    text: str
    size: float = READ
    color: Color = colors.TEXT
    bold: bool = False


@dataclass(frozen=True)
class Banner:
    """An alarm across the view: the title is never shortened, the detail says why."""

    title: str
    detail: str = ""
    tone: Tone = Tone.DANGER


@dataclass(frozen=True)
class ColorBar:
    """What the colours of a map mean: ``shades`` from the lowest to the highest value, ``numbers`` beside them."""

    unit: str
    shades: tuple[Color, ...]
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class Corners:
    """All texts of one view, lines from top to bottom."""

    topLeft: tuple[Line, ...] = ()
    topRight: tuple[Line, ...] = ()
    bottomLeft: tuple[Line, ...] = ()
    bottomRight: tuple[Line, ...] = ()
    banners: tuple[Banner, ...] = ()
    footer: str = ""
    colorBar: ColorBar | None = None


@dataclass(frozen=True)
class PieceText:
    """The piece of the residual that the views stand at, ``number`` of ``count``, with what is known of it.

    ``sure``: what speaks against its being residual, in words; empty when nothing does. ``tip``: its distance from the
    pointer; None without a tracker.
    """

    number: int
    count: int
    volume: Measurement
    place: str
    sure: str = ""
    tip: Measurement | None = None


@dataclass(frozen=True)
class Readout:
    """Everything that the texts are made of, as the session knows it now.

    ``implants``: name of the implant to its planned-against-actual measurements, in the order to show.
    ``image_age_s`` None means that the time of the scan is unknown. ``pose_trust`` is ``live``, ``stale``,
    ``returning``, ``not seen``, ``out of sight`` or ``never received``, the value of the pose watch's trust; only a
    live pose with an age is a position, and the last two are calm.
    ``withdrawn``: why there is no registration (the bridge's ``withdrawnBecause``). ``unplaced``: no scan came yet, so
    the pointer has no place in the volume that is shown.
    ``preview``: percent acquired, when the picture is the preview of a scan that still arrives.
    ``alone``: where the pose of the whole was refused and a person decides on vertebrae one by one, names of the
    accepted ones, empty for none; then ``implants`` holds only what rests on those. None elsewhere.
    ``heat``: texts of an ablation, whose numbers take the places of the residual's while it goes on.
    ``stored``: where what is shown comes from when no session stands for it; then nothing else is said.
    ``piece``: the piece of the residual that the views stand at. ``excluded``: what a person has judged not to be
    tumour, so that the numbers leave it out, in words.
    ``tracked``: whether a tracker is part of the session. ``unwatched``: no alarm is given for structures at risk.
    ``unconfirmed``: no person has looked at the registration and confirmed it yet.
    ``too_near``: the structure at risk that the tip is too near to. ``risk``: the nearest one and its distance from the
    tip.
    """

    residual: Measurement | None = None
    extent_of_resection: Measurement | None = None
    rano_class: str = ""
    tip_to_residual: Measurement | None = None
    implants: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)
    verdict: Verdict | None = None
    withdrawn: str = ""
    unplaced: bool = False
    image_age_s: float | None = None
    pose_age_s: float | None = None
    pose_trust: str = "never received"
    preview: str = ""
    alone: str | None = None
    heat: HeatTexts | None = None
    stored: str = ""
    piece: PieceText | None = None
    excluded: str = ""
    tracked: bool = True
    unwatched: bool = False
    unconfirmed: bool = False
    too_near: str = ""
    risk: tuple[str, Measurement] | None = None

    @property
    def refused(self) -> bool:
        """Whether a registration was tried and refused."""
        return self.verdict is not None and self.verdict.level is Level.REFUSED

    @property
    def registration_problem(self) -> str:
        """Why no number that rests on the registration may be shown, empty when it may."""
        if self.refused:
            return "registration refused"
        return "not registered" if self.verdict is None or self.withdrawn else ""

    @property
    def pose_problem(self) -> str:
        """Why the pose is no position, empty when it is one."""
        if self.pose_trust == "never received":
            return "no pointer tracked"
        if self.pose_trust == "out of sight":
            return "pointer out of sight"
        if self.pose_age_s is None or not math.isfinite(self.pose_age_s) or self.pose_age_s < 0:
            return "pointer age unknown"
        if self.pose_trust == "live":
            return ""
        if self.pose_trust == "returning":
            return "pointer coming back"
        return f"pointer {'late' if self.pose_trust == 'stale' else self.pose_trust} {age(self.pose_age_s)}"


def corners(readout: Readout) -> Corners:
    """Texts of the view that carries the numbers (the 3D view): one thing a corner, the largest what is decided on."""
    if readout.stored:
        return Corners(banners=banners(readout), footer=NOT_CLINICAL)
    needsRegistration = readout.registration_problem
    # Where the views stand at a piece, the whole makes room for it.
    size = HUGE if readout.piece is None else LARGE
    topLeft = block("RESIDUAL", readout.residual, needsRegistration, colors.RESIDUAL, size)
    resected = block("RESECTED", readout.extent_of_resection, needsRegistration, colors.TEXT, LARGE)
    if readout.rano_class and not needsRegistration and _value(readout.extent_of_resection):
        resected += (Line(f"RANO class {readout.rano_class}"),)
    if not readout.tracked or (readout.tip_to_residual is None and readout.implants):
        topRight: tuple[Line, ...] = ()
    else:
        problem = readout.pose_problem or needsRegistration
        topRight = block("TIP TO RESIDUAL", readout.tip_to_residual, problem, colors.TEXT, HUGE)
        if inside(readout.tip_to_residual) and not problem:
            topRight += (Line("inside it", bold=True),)
        if readout.piece is not None and not problem:
            topRight += block(f"TIP TO PIECE {readout.piece.number}", readout.piece.tip, "", colors.TEXT, LARGE)
        elif readout.risk is not None and not problem:
            name, distance = readout.risk
            words = f"{spread(distance)} {'inside' if inside(distance) else ''}".rstrip()
            topRight += riskLines(name, words, MIDDLE, bool(readout.too_near))
    if readout.excluded and not needsRegistration:
        less = (Line(readout.excluded, READ, colors.CAUTION, bold=True),)
        topLeft += less
        resected += less if resected else ()
    if readout.piece is not None and not needsRegistration:
        # Who goes on has decided: where to go takes the place of what is done.
        resected = _pieceLines(readout.piece)
    implants = _implantLines(readout, needsRegistration if readout.alone is None else "")
    if readout.residual is None and implants:
        topLeft, resected = implants, ()
    else:
        topRight += implants
    if readout.extent_of_resection is None and readout.piece is None:
        resected = ()
    if readout.heat is not None:
        tip = () if readout.pose_trust in CALM else topRight
        topLeft, topRight, resected = readout.heat.peak, tip + readout.heat.risks, readout.heat.volume
    return Corners(topLeft, topRight, resected, _state(readout), banners(readout), NOT_CLINICAL)


def banners(readout: Readout) -> tuple[Banner, ...]:
    """Alarms that belong into every view: what is wrong and since when, danger first."""
    if readout.stored:
        return (Banner("STORED SCENE, NOT VERIFIED", readout.stored, Tone.CAUTION),)
    result = [] if readout.heat is None else list(readout.heat.banners)
    if readout.too_near and not readout.pose_problem:
        result.append(Banner(_shouted(f"too near: {readout.too_near}"), tone=Tone.DANGER))
    if readout.preview:
        detail = "coarse, not registered, not for measurements"
        result.append(Banner(f"PREVIEW, {readout.preview} ACQUIRED", detail, Tone.CAUTION))
    if readout.alone:
        result.append(Banner("WHOLE SPINE NOT REGISTERED", f"only {readout.alone}, each on its own", Tone.CAUTION))
    elif readout.withdrawn or readout.refused:
        reasons = readout.verdict.text.partition(": ")[2] if readout.verdict is not None and readout.refused else ""
        # Refused: somebody asked for a pose, and whoever goes on after the one before is led astray. Not registered yet
        # is no danger: every number and outline that could mislead is gone, and red at each new scan would be overseen.
        title, tone = ("REGISTRATION REFUSED", Tone.DANGER) if readout.refused else ("NOT REGISTERED", Tone.CAUTION)
        result.append(Banner(title, reasons or readout.withdrawn, tone))
    elif readout.unplaced and not readout.pose_problem:
        result.append(Banner("NO SCAN YET: POINTER NOT PLACED", tone=Tone.CAUTION))
    if readout.unwatched and not readout.pose_problem:
        result.append(Banner("NO ALARMS WHILE ANOTHER MODULE IS OPEN", tone=Tone.CAUTION))
    # A tool that comes back is steady within a tenth of a second: a band across the views would only flash.
    if readout.pose_problem and readout.pose_trust not in (*CALM, "returning"):
        result.append(Banner(_shouted(readout.pose_problem), tone=Tone.CAUTION))
    return tuple(result)


def shownOfImplant(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """What fits beside a picture: the deviations, the breach, and the structure at risk that is nearest."""
    found = tuple(measurements)
    near = [m for m in found if CLEARANCE in m.name and m.value is not None]
    nearest = min(near, key=lambda m: m.value or 0.0, default=None)
    return tuple(m for m in found if m.name.endswith(SHOWN_OF_IMPLANT) or m is nearest)


def number(value: float, unit: str) -> str:
    """A number with its unit, as a person reads it aloud."""
    shown = _UNITS.get(unit, unit)
    return f"{_digits(value, shown, value)}{'' if shown == '°' else ' '}{shown}".rstrip()


def interval(bounds: tuple[float, float], unit: str, value: float) -> str:
    """Both bounds, with the decimals of the number that they belong to."""
    shown = _UNITS.get(unit, unit)
    low, high = (_digits(bound, shown, value) for bound in bounds)
    return f"{low} to {high}{'' if shown == '°' else ' '}{shown}".rstrip()


def spread(measurement: Measurement) -> str:
    """Value and interval in one line: ``3.0 ± 0.5 mm``, or with both bounds when they lie unevenly."""
    value, bounds, shown = measurement.value, measurement.interval, _UNITS.get(measurement.unit, measurement.unit)
    if value is None or bounds is None:
        return "—" if value is None else number(value, measurement.unit)
    if math.isclose(value - bounds[0], bounds[1] - value, abs_tol=0.05):
        text = f"{_digits(value, shown, value)} ± {_digits(bounds[1] - value, shown, value)}"
        return f"{text}{'' if shown == '°' else ' '}{shown}".rstrip()
    return f"{number(value, measurement.unit)} ({interval(bounds, measurement.unit, value)})"


def age(seconds: float) -> str:
    """0.1 s, 45 s, 3 min, 2 h 05 min, 3 days."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} days"


def _digits(number: float, unit: str, like: float) -> str:
    """Decimals after the size of ``like``. Never rounds an incomplete resection up to 100 %, nor a rest down to 0."""
    if unit == "%":
        return f"{math.floor(number) if number < 100 else number:.0f}"
    if unit == "cm³" and 0 < number < 0.01:
        return "< 0.01"
    text = f"{number:.{2 if unit == 'cm³' and abs(like) < 1 else 1}f}"
    # What rounds to zero has no sign.
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", "−")


def _value(measurement: Measurement | None) -> float | None:
    return None if measurement is None else measurement.value


def block(caption: str, measurement: Measurement | None, problem: str, color: Color, size: float) -> tuple[Line, ...]:
    """Caption, number, interval; or caption, dash, reason, where there is a ``problem`` or no value."""
    head = Line(caption, READ, colors.TEXT_QUIET, bold=True)
    if problem or measurement is None or measurement.value is None:
        reason = problem or (measurement.missing_because if measurement else "not measured")
        return (head, Line("—", LARGE, colors.TEXT_QUIET, bold=True), *wrapped(reason))
    lines = [head, Line(number(measurement.value, measurement.unit), size, color, bold=True)]
    if measurement.interval is not None:
        lines.append(Line(interval(measurement.interval, measurement.unit, measurement.value)))
    return tuple(lines)


def inside(distance: Measurement | None) -> bool:
    """Whether a distance to a surface ends inside of it: a sign alone is easily overlooked."""
    return distance is not None and distance.value is not None and distance.value < 0


def riskLines(name: str, number: str, size: float, danger: bool) -> tuple[Line, ...]:
    """A structure at risk and one number of it, red only in ``danger``."""
    color = Tone.DANGER.color if danger else colors.TEXT
    return Line(name.upper(), READ, colors.AT_RISK, bold=True), Line(number, size, color, bold=True)


def pieceHead(readout: Readout) -> tuple[Line, ...]:
    """The piece that the views stand at, for every slice; nothing while no registration stands for it."""
    piece = readout.piece
    if piece is None or readout.registration_problem:
        return ()
    return (Line(f"PIECE {piece.number} OF {piece.count}", MIDDLE, colors.MARK, bold=True),)


def _pieceLines(piece: PieceText) -> tuple[Line, ...]:
    """Which piece the views stand at, how large it is and where, as the surgeon goes there."""
    color = colors.TEXT if piece.sure else colors.RESIDUAL
    size = block(f"PIECE {piece.number} OF {piece.count}", piece.volume, "", color, LARGE)
    doubt = (Line(piece.sure, READ, colors.CAUTION, bold=True),) if piece.sure else ()
    return (*size, *wrapped(piece.place, _PLACE_WRAP, _MAX_PLACE_LINES), *doubt)


def _implantLines(readout: Readout, problem: str) -> tuple[Line, ...]:
    lines: list[Line] = []
    if len(readout.implants) > MOST_IN_FULL and not problem:
        return _manyImplants(readout.implants)
    for name, measurements in readout.implants.items():
        lines.append(Line(name.upper(), READ, colors.ACTUAL, bold=True))
        if problem:
            lines += wrapped(problem)
            continue
        for measurement in measurements:
            what = measurement.name.rpartition(": ")[2].removesuffix(" deviation").removeprefix("clearance ")
            known = measurement.value is not None
            # The number comes first, so that numbers stand below one another.
            tone = colors.TEXT if known else colors.TEXT_QUIET
            lines.append(Line(f"{spread(measurement)}  {what}", MIDDLE, tone, bold=True))
            if not known:
                lines += wrapped(measurement.missing_because)
    return tuple(lines)


def _manyImplants(implants: Mapping[str, tuple[Measurement, ...]]) -> tuple[Line, ...]:
    """One line an implant: how far its tip is from the plan, and what it comes nearest to; a dash without a number."""
    lines = [Line("TIP FROM PLAN", READ, colors.ACTUAL, bold=True)]
    for name, measurements in list(implants.items())[:MOST_IN_LINES]:
        tip = next((m for m in measurements if m.name.endswith("tip deviation") and m.value is not None), None)
        near = next((m for m in measurements if CLEARANCE in m.name and m.value is not None), None)
        words = f"{'—' if tip is None else spread(tip)}  {name}"
        if near is not None and near.value is not None:
            words += f", {number(near.value, near.unit)} to {near.name.partition(CLEARANCE)[2]}"
        lines.append(Line(words, READ, colors.TEXT_QUIET if tip is None else colors.TEXT))
    if len(implants) > MOST_IN_LINES:
        lines.append(Line(f"and {len(implants) - MOST_IN_LINES} more", READ, colors.TEXT_QUIET))
    return tuple(lines)


def _state(readout: Readout) -> tuple[Line, ...]:
    """Registration and ages."""
    if readout.alone:
        registration = [Line("Whole not registered", READ, Tone.CAUTION.color, bold=True)]
    elif readout.verdict is None or (readout.withdrawn and not readout.refused):
        registration = [Line("Not registered", READ, Tone.CAUTION.color, bold=True)]
    else:
        tones = {Level.GOOD: Tone.GOOD, Level.CHECK: Tone.CAUTION, Level.REFUSED: Tone.DANGER}
        level = readout.verdict.level
        # Green from afar says that somebody has agreed.
        waits = readout.unconfirmed and level is not Level.REFUSED
        color = Tone.NORMAL.color if waits else tones[level].color
        registration = [Line(f"Registration {level.value}", READ, color, bold=True)]
        if waits:
            registration.append(Line("not confirmed", READ, Tone.CAUTION.color, bold=True))
        if level is Level.CHECK:
            registration += wrapped(readout.verdict.text.partition(": ")[2])
    image = "Image, time unknown" if readout.image_age_s is None else f"Image {age(readout.image_age_s)} old"
    if readout.unplaced:
        image = "No scan yet"
    if readout.preview:
        image = f"Preview, {readout.preview} acquired"
    problem = readout.pose_problem
    if readout.pose_trust in CALM:
        pose = Line(problem.capitalize(), READ, colors.TEXT_QUIET)
    elif problem or readout.pose_age_s is None:
        pose = Line(problem.capitalize(), READ, Tone.CAUTION.color, bold=True)
    else:
        pose = Line(f"Pointer {age(readout.pose_age_s)} old")
    return (*registration, Line(image), pose) if readout.tracked else (*registration, Line(image))


def _shouted(text: str) -> str:
    """Capitals, but units and their numbers as they are: POINTER LATE 1.3 s."""
    words = re.match(r"\D*", text)
    letters = words.group() if words else ""
    return letters.upper() + text[len(letters) :]


def wrapped(text: str, width: int = _WRAP, most: int = _MAX_LINES) -> tuple[Line, ...]:
    """A reason in quiet lines that fit into a corner."""
    rows = textwrap.wrap(text, width, max_lines=most, placeholder=" …")
    return tuple(Line(row, READ, colors.TEXT_QUIET) for row in rows)
